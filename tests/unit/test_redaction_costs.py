"""What hiding secrets costs: it runs on the loop thread for every failure, on text that may be a payload."""

from __future__ import annotations

import time

import pytest

from streamworker.observability.redaction import error_text, safe_text

CHARS = 512  # what is logged of an error


@pytest.mark.parametrize("word", ["password", "secret", "token", "api_key", "a", "a.", "a+", "://", 'password="'])
def test_secrets_are_looked_for_in_a_time_that_a_text_cannot_blow_up(word: str) -> None:
    """Found by fuzzing: a word that looks secret, repeated in the text of an error, took time in its length cubed.

    Four kilobytes of `password` took a minute, in which the loop stood still until the watchdog ended the process;
    the record was then handed over again.
    """
    text = word * (CHARS // len(word))

    begin_s = time.process_time()
    safe_text(text)
    error_text(ValueError(text))

    assert time.process_time() - begin_s < 0.02
