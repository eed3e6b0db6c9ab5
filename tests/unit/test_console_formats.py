"""How values look to people at the console: nothing is lost, nothing becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import Environment
from markupsafe import escape

from streamworker.console import formats
from streamworker.replay.dead_record import LetterId
from streamworker.replay.filters import Exactly, Field, Term, parse

ANYTHING = st.text(alphabet=st.characters(), max_size=60) | st.text(
    alphabet="<>&\"'\x00\r\n \ud800\\{}[]:,0a", max_size=30
)


class Text(HTMLParser):
    """What a browser would show of markup, and the elements in it."""

    def __init__(self, markup: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""
        self.tags: list[str] = []
        self.feed(markup)
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


def sent(text: str) -> str:
    """What arrives of `text`."""
    return re.sub("[\ud800-\udfff]", lambda one: f"\\u{ord(one[0]):04x}", text.replace("\x00", "\u2400"))


@given(ANYTHING)
def test_what_is_shown_can_be_sent_and_is_text(text: str) -> None:
    markup = Environment(autoescape=True, finalize=formats.shown).from_string("{{ text }}").render(text=text)

    found = Text(markup)
    markup.encode()
    assert (found.text, found.tags) == (sent(text), [])
    assert "\r" not in markup


@given(ANYTHING, st.sampled_from(["json", "avro", "text", "hex"]))
def test_marking_changes_no_character_and_adds_spans_only(text: str, kind: str) -> None:
    found = Text(str(escape(formats.marked(text, kind))))

    assert found.text == sent(text)
    assert set(found.tags) <= {"span"}


def test_parts_of_json_are_told_apart() -> None:
    text = json.dumps({"a": "b", "n": -1.5e3, "t": True, "z": None})

    markup = str(formats.marked(text, "json"))

    assert re.findall(r'class="json-(\w+)">([^<]+)', markup) == [
        ("key", "&#34;a&#34;"), ("string", "&#34;b&#34;"), ("key", "&#34;n&#34;"), ("number", "-1500.0"),
        ("key", "&#34;t&#34;"), ("word", "true"), ("key", "&#34;z&#34;"), ("word", "null"),
    ]  # fmt: skip


def test_characters_that_are_not_seen_are_named_once() -> None:
    assert formats.hidden("a\u202eb\u202e\x1bc") == ["U+202E", "U+001B"]
    assert formats.hidden("plain\ttext\n") == []


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_572_864, "1.5 MiB"), (2**50, "1048576.0 GiB")],
)
def test_sizes_are_in_the_largest_unit_that_fits(value: int, shown: str) -> None:
    assert formats.size(value) == shown


@pytest.mark.parametrize(
    ("at_ms", "shown"),
    [(100_000, "now"), (99_500, "now"), (40_000, "1 min ago"), (98_000, "2 s ago"), (3_700_000, "in 1 h")],
)
def test_times_are_told_from_now(at_ms: int, shown: str) -> None:
    assert formats.ago(at_ms, 100_000) == shown


def test_a_time_that_no_calendar_has_is_told_as_a_number() -> None:
    assert formats.moment(2**62) == f"{2**62} ms"
    assert formats.machine_moment(-(2**62)) == ""
    assert formats.moment(0) == "1970-01-01 00:00:00.000 UTC"


@pytest.mark.parametrize(
    ("duration_ms", "shown"), [(0, "0 ms"), (999, "999 ms"), (61_000, "1 min 1 s"), (90_061_000, "1 d 1 h")]
)
def test_durations_have_two_units_at_most(duration_ms: int, shown: str) -> None:
    assert formats.lasting(duration_ms) == shown


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_a_condition_that_a_link_makes_is_one_condition(text: str) -> None:
    read = parse(formats.term("fp", text), 0)

    assert read.terms == (Term(Field.FINGERPRINT, (Exactly(text),)),)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40))
def test_an_address_stays_on_this_site_whatever_is_in_it(text: str) -> None:
    address = formats.path_of("topics", text) + formats.query(q=text)

    parts = urlsplit(address)
    assert (parts.scheme, parts.netloc) == ("", "")
    assert parts.path.startswith("/topics/")
    assert "/" not in parts.path.removeprefix("/topics/")
    assert parse_qs(parts.query).get("q", [""]) == [text]


def test_a_letter_has_its_address() -> None:
    assert formats.letter_path("a.dlq", LetterId(3, 1042), "repair") == "/topics/a.dlq/3/1042/repair"


@pytest.mark.parametrize("text", ['{"a": 1,}', "[" * 100_000, "", '"\ud800', "9" * 5000])
def test_what_is_no_json_is_said_and_what_nests_too_deep_too(text: str) -> None:
    found = formats.as_json(text)

    assert found is None if text == '"\ud800"' else found


def test_line_ends_that_a_browser_adds_are_taken_away_again() -> None:
    assert formats.as_typed("a\r\nb", "a\nb") == "a\nb"
    assert formats.as_typed("a\r\nb", "a\r\nc") == "a\r\nb"


@pytest.mark.parametrize(
    ("line", "kind"),
    [("+a", "added"), ("-a", "removed"), (" a", "same"), ("@@ -1 +1 @@", "place"), ("--- a", "file"), ("", "same")],
)
def test_lines_of_a_diff_are_told_apart(line: str, kind: str) -> None:
    assert formats.lined(line) == kind


def test_bytes_are_shown_as_text_or_digits() -> None:
    assert [formats.raw(one) for one in (None, b"a", b"\xff")] == ["null", "a", "0xff"]
    assert formats.raw(b"a" * 200).endswith("…")
