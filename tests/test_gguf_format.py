"""Files that are cut off, do not fit together, or are of another kind; and the strings of an array."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggrank.errors import ModelFileError
from ggrank.gguf import open_gguf
from ggrank.gguf.format import TENSOR_TYPES, GgufArray, repeated_string, string_offsets, strings
from gguf_bytes import N_EMBD, N_FF, Gguf, Type, f32, small


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(ModelFileError) as caught:
        open_gguf(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_the_types_of_tensors_are_those_of_the_gguf_package() -> None:
    theirs = {int(kind): (kind.name.lower(), *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    theirs[9] = ("q8_1", 32, 36)  # gguf 0.19 says 40, from when llama.cpp kept its two scales as floats.
    assert {code: TENSOR_TYPES[code] for code in theirs} == theirs


def test_version_2_is_read_as_version_3_is(path: Path) -> None:
    path.write_bytes(small().to_bytes())
    expected = open_gguf(path)
    path.write_bytes(Gguf(small().keys, small().tensors, version=2).to_bytes())
    assert open_gguf(path) == expected


def test_another_alignment_is_kept(path: Path) -> None:
    file = Gguf(small().keys, small().tensors, alignment=128).with_key("general.alignment", 128)
    path.write_bytes(file.to_bytes())
    found = open_gguf(path).tensors
    assert all(tensor.offset % 128 == 0 for tensor in found.values())
    last = found["cls.output.weight"]
    assert path.read_bytes()[last.offset :][: last.n_bytes] == small().tensors[-1].data


def test_a_cut_off_file_says_how_many_bytes_are_missing(path: Path) -> None:
    whole = small().to_bytes()
    message = refusal(path, whole[:-1000])
    assert f"expected {len(whole):,} bytes, found {len(whole) - 1000:,}; 1,000 are missing" in message
    assert "download it again" in message


def test_a_file_that_lacks_only_its_last_padding_is_whole(path: Path) -> None:
    file = Gguf(small().keys, (*small().tensors, f32("cls.output.bias", 1)))
    path.write_bytes(file.to_bytes()[:-28])
    assert "cls.output.bias" in open_gguf(path).tensors


def test_a_file_cut_anywhere_is_refused(path: Path) -> None:
    whole = small().to_bytes()
    path.write_bytes(whole)
    start = open_gguf(path).tensors["token_embd.weight"].offset
    for length in (*range(4, start, 3), *range(start, len(whole), 97)):
        assert "ownload it again" in refusal(path, whole[:length])


VERSIONS = {
    0: "big-endian",  # its lower half is zero, as in a big-endian 3
    1: "too old",
    4: "update ggrank",
    0x02000000: "little-endian",
    0x03000000: "big-endian",
}


@pytest.mark.parametrize("version", VERSIONS)
def test_another_version_is_refused(path: Path, version: int) -> None:
    data = Gguf(small().keys, small().tensors, version=version).to_bytes()
    assert VERSIONS[version] in refusal(path, data)


@pytest.mark.parametrize("field", [8, 16])
@pytest.mark.parametrize("count", [1 << 16, 1 << 32, (1 << 63) - 1, (1 << 64) - 1])
def test_absurd_counts_are_refused(path: Path, field: int, count: int) -> None:
    data = bytearray(small().to_bytes())
    data[field : field + 8] = struct.pack("<Q", count)
    assert f"found {count:,}" in refusal(path, bytes(data))


def changed(name: str, value: object, **types: Type) -> Callable[[Gguf], Gguf]:
    return lambda file: file.with_key(name, value, **types)


def up(**changes: object) -> Callable[[Gguf], Gguf]:
    return lambda file: file.with_tensor("blk.0.ffn_up.weight", **changes)


DAMAGES: dict[str, tuple[Callable[[Gguf], Gguf], str]] = {
    "a key twice": (lambda file: Gguf((*file.keys, file.keys[0]), file.tensors), "general.architecture"),
    "a key without a name": (changed("", 1), "own name"),
    "a tensor twice": (lambda file: Gguf(file.keys, (*file.tensors, file.tensors[0])), "token_embd.weight"),
    "a long name": (up(name="x" * 64), "at most 63 bytes"),
    "no dimensions": (up(shape=()), "1 to 4 dimensions"),
    "five dimensions": (up(shape=(32, 4, 4, 4, 1)), "1 to 4 dimensions"),
    "a dimension of zero": (up(shape=(32, 0)), "dimensions"),
    "dimensions that overflow": (up(shape=(1 << 40, 1 << 40)), "dimensions"),
    "a type that is no more": (up(type=4), "type 4"),
    "a type of the future": (up(type=1000), "type 1000"),
    "a row that is no whole block": (up(type=8, shape=(16, 64)), "multiple of 32"),
    "tensors with a gap": (up(data=bytes(N_EMBD * N_FF * 4 + 32)), "expected the numbers of"),
    "tensors that overlap": (up(data=bytes(N_EMBD * N_FF * 4 - 32)), "expected the numbers of"),
    "an alignment of 3": (changed("general.alignment", 3), "power of two"),
    "an alignment of 8": (changed("general.alignment", 8), "from 32"),
    "an alignment in words": (changed("general.alignment", "32", type=Type.STRING), "power of two"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_what_does_not_fit_together_is_refused(path: Path, name: str) -> None:
    damage, part = DAMAGES[name]
    message = refusal(path, damage(small()).to_bytes())
    assert part in message
    assert "expected" in message
    assert "ownload it again" in message


def test_an_array_of_arrays_is_refused(path: Path) -> None:
    data = small().with_key("x", [1], type=Type.ARRAY, items=Type.UINT32).to_bytes()
    place = data.index(b"x" + struct.pack("<II", Type.ARRAY, Type.UINT32)) + 5
    assert "type 9" in refusal(path, data[:place] + struct.pack("<I", Type.ARRAY) + data[place + 4 :])


# -- files of another kind

POINTER = b"""\
version https://git-lfs.github.com/spec/v1
oid sha256:363a0a4855dff6c653e06efe3209157debcf7f74e52d0d7c71e2747cd523043e
size 24808224
"""
TENSORS_HEADER = b'{"weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}'
SAFETENSORS = struct.pack("<Q", len(TENSORS_HEADER)) + TENSORS_HEADER + bytes(16)
AGAIN = "ownload it again"

IMPOSTORS = {
    "an LFS pointer": (POINTER, ["Git LFS pointer", "24,808,224 bytes", "git lfs pull"]),
    "an HTML page": (b"\n<!DOCTYPE html>\n<title>404</title>", ["web page", AGAIN]),
    "an XML error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", ["web page"]),
    "a JSON error": (b'{"error": "Repository not found"}', ["JSON", "Repository not found", AGAIN]),
    "a text": ("Accès refusé".encode(), ["text", "Accès refusé"]),
    "a long text cut inside a character": (b"x" + "é".encode() * 4000, ["text"]),
    "a safetensors file": (SAFETENSORS, ["safetensors", "convert_hf_to_gguf.py"]),
    "a PyTorch archive": (b"PK\x03\x04" + bytes(60), ["zip archive", "PyTorch"]),
    "a pickle": (b"\x80\x02}q\x00" + bytes(60), ["pickle", "GGUF conversion"]),
    "an older format": (b"tjgg" + bytes(60), ["GGJT", "before GGUF"]),
    "a gzip archive": (b"\x1f\x8b\x08" + bytes(60), ["gzip", "unpack"]),
    "zeros": (bytes(5000), ["zeros", AGAIN]),
    "other bytes": (b"\x12\x34\x56\x78\x9a\xff", ["12 34 56 78", AGAIN]),
    "three letters": (b"GGU", ["not a model", "'GGU'"]),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_a_file_of_another_kind_is_named(path: Path, name: str) -> None:
    data, parts = IMPOSTORS[name]
    message = refusal(path, data)
    assert "xpected a GGUF" in message or "expected the first bytes" in message
    for part in parts:
        assert part in message


# -- arrays of strings

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
