"""The text beside a committed offset. M2: what is written comes back, or is left out for want of room."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sizes import SOAK

from streamworker.offsets import codec
from streamworker.offsets.progress import Progress, Suspect

NUMBERS = st.integers(0, 10**18 - 1)
SMALL, LARGE = st.integers(1, 40), st.integers(1, 10**9)


@st.composite
def progresses(draw: st.DrawFn, lengths: st.SearchStrategy[int] = SMALL | LARGE, most: int = 60) -> Progress:
    """Something done and something tried beyond an offset, with the distances of `lengths`."""
    offset = draw(st.integers(0, 10**12))
    ends = list(accumulate(draw(st.lists(lengths, max_size=2 * most)), initial=offset))
    done = tuple((first, last - 1) for first, last in zip(ends[1::2], ends[2::2], strict=False))
    tried = accumulate(draw(st.lists(lengths, max_size=most)), initial=offset)
    attempts = {one: draw(st.integers(1, 300)) for one in tried if not any(low <= one <= high for low, high in done)}
    suspect = draw(st.none() | st.builds(Suspect, NUMBERS, NUMBERS, st.integers(0, 9)))
    owner, topic_id = (
        draw(st.sampled_from(["", "0c1", "deadbeef"])),
        draw(st.sampled_from(["", "Zp3vX0yQR6e-mSxY8k_2Aw"])),
    )
    unread = draw(st.integers(0, 3))
    running, *said = (draw(st.booleans()) for _ in range(3))
    return Progress(offset, done, attempts, running, suspect, owner, topic_id, unread, *said)


@settings(max_examples=1000 * SOAK)
@given(NUMBERS, progresses())
def test_what_is_written_comes_back(request_number: int, progress: Progress) -> None:
    encoded = codec.encode(request_number, progress)

    assert codec.decode(encoded.text, progress.offset) == codec.Metadata(request_number, progress)
    assert encoded.complete
    assert len(encoded.text.encode()) <= codec.MAX_METADATA_BYTES


@settings(max_examples=50 * SOAK)
@given(NUMBERS, progresses(most=3000, lengths=st.integers(1, 2) | st.integers(500, 10**6)))
@example(1, Progress(0, tuple((one, one) for one in range(1000, 4_000_000, 1000))))
@example(1, Progress(0, (), dict.fromkeys(range(0, 20_000, 2), 3)))
def test_what_does_not_fit_is_left_out_and_the_offset_stays_right(request_number: int, progress: Progress) -> None:
    encoded = codec.encode(request_number, progress)

    read = codec.decode(encoded.text, progress.offset)

    assert len(encoded.text) <= codec.MAX_METADATA_BYTES
    assert encoded.complete == (encoded.whole_bytes <= codec.MAX_METADATA_BYTES)
    assert read is not None
    assert read.progress is not None
    assert (read.progress.offset, read.progress.suspect) == (progress.offset, progress.suspect)
    assert read.progress.done in (progress.done, ())
    assert read.progress.attempts.items() <= progress.attempts.items()


def test_the_bound_of_a_partition_fits_whatever_is_done_of_it() -> None:
    """With 16 384 delivered records and no gaps a bitmap is the worst that can come."""
    offset = 10**17
    every_other = tuple((one, one) for one in range(offset + 1, offset + 16_384, 2))

    encoded = codec.encode(10**18 - 1, Progress(offset, every_other))

    assert encoded.whole_bytes <= codec.PRESSURE_BYTES


def test_beside_another_offset_than_its_own_it_says_nothing_but_its_number() -> None:
    text = codec.encode(7, Progress(42, ((44, 45),))).text

    assert codec.decode(text, 43) == codec.decode(text) == codec.Metadata(7, None)


@pytest.mark.parametrize("topic_id", ["a.b", "a+b/c==", "x" * 33, " ", "\u0661"])
def test_an_id_that_could_not_be_read_again_is_left_out(topic_id: str) -> None:
    """Otherwise no answer to the commit would be known as one."""
    text = codec.encode(7, Progress(42, topic_id=topic_id)).text

    assert codec.decode(text, 42) == codec.Metadata(7, Progress(42))


def test_the_first_form_is_still_read() -> None:
    assert codec.decode("sw1 q=42", 7) == codec.Metadata(42, None)


@given(st.text())
@example("")
@example("sw1 q=" + "9" * 5000)
@example("lithops")
@example("AgEAAA==")
def test_what_others_wrote_is_not_ours(text: str) -> None:
    assert text.startswith(("sw1", "sw2")) or codec.decode(text, 0) is None


@pytest.mark.parametrize(
    "text",
    [
        "sw1 q=",
        "sw1 q=1 ",
        "SW1 Q=1",
        "sw1 q=-1",
        "sw1 q=1\n",
        "sw1 q=\u0661",
        "sw1 q=" + "9" * 19,
        "sw2 q=1",
        "sw2 q=1 @0",
        "sw2 q=1 @0 r ",
        "sw2 q=1 @0 x",
        "sw2 q=1 @0 r d=x00",
        "sw2 q=1 @0 r d=r",
        "sw2 q=1 @0 r d=rAQ",  # an open length without a done one
        "sw2 q=1 @0 r d=rAQA",  # nothing is done
        "sw2 q=1 @0 r d=r_____w",  # ends within a number
        "sw2 q=1 @0 r d=rAf_______f38",  # more than any log has
        "sw2 q=1 @0 r d=rAQE=",
        "sw2 q=1 @0 r a=AQ",
        "sw2 q=1 @0 r a=AP___38B",  # more attempts than fit
        "sw2 q=1 @0 r g=1,2",
        "sw3 q=1 @0 r",
    ],
)
def test_a_near_miss_is_not_ours(text: str) -> None:
    assert codec.decode(text, 0) is None
