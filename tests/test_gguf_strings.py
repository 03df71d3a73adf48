"""Where the strings of an array lie, and whether one is there twice."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggrank.gguf.format import GgufArray, repeated_string, string_offsets, strings

SHORT, LONG = st.binary(max_size=12), st.binary(min_size=250, max_size=300)
STRINGS = st.lists(st.one_of(SHORT, LONG, st.just(b""), st.just(b"\0" * 9)), max_size=60)
WORDS = st.lists(st.binary(max_size=10) | st.sampled_from([b"a", b"a\0b", b"abcdefghijk"]), max_size=40)


def joined(words: list[bytes]) -> bytes:
    return b"".join(struct.pack("<Q", len(string)) + string for string in words)


@given(words=STRINGS, before=SHORT, after=SHORT)
def test_strings_are_found_where_their_lengths_put_them(
    words: list[bytes], before: bytes, after: bytes
) -> None:
    sizes = [len(before), *(8 + len(string) for string in words)]
    offsets = string_offsets(before + joined(words) + after, len(before), len(words))
    assert offsets.tolist() == np.cumsum(sizes).tolist()


@given(words=STRINGS.filter(bool), missing=st.integers(1, 9))
def test_strings_that_end_after_the_data_are_refused(words: list[bytes], missing: int) -> None:
    data = joined(words)
    with pytest.raises(ValueError, match="ends after"):
        string_offsets(data[: max(0, len(data) - missing)], 0, len(words))


def test_many_strings_in_a_row_are_found_in_every_mixture() -> None:
    random = np.random.default_rng(7)
    shares = {0: 0.02, 1: 0.2, 5: 0.5, 12: 0.2, 255: 0.02, 256: 0.05, 3000: 0.01}
    lengths = random.choice(list(shares), p=list(shares.values()), size=30_000)
    data = joined([random.integers(1, 256, size=n, dtype=np.uint8).tobytes() for n in lengths])
    assert string_offsets(data, 0, len(lengths)).tolist() == np.cumsum([0, *(8 + lengths)]).tolist()


@given(words=WORDS)
def test_a_string_is_repeated_when_c_reads_it_twice(words: list[bytes]) -> None:
    data = joined(words) + bytes(8)
    seen = [string.split(b"\0")[0] for string in words if string.split(b"\0")[0]]
    found = repeated_string(data, string_offsets(data, 0, len(words)))
    assert (found is not None) == (len(seen) > len(set(seen)))


def test_a_string_that_ends_with_the_data_is_compared_too() -> None:
    data = joined([b"a", b"b", b"a"])
    assert repeated_string(data, string_offsets(data, 0, 3)) == "a"


def test_bytes_that_are_no_utf_8_become_replacement_characters() -> None:
    data = joined(["é".encode(), b"\xff", b""])
    assert strings(data, GgufArray("string", 3, 0, len(data))) == ["é", "\ufffd", ""]
