"""Files that are cut off, or do not fit together, whatever model they hold."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest

from ggrank.errors import ModelFileError
from ggrank.gguf import open_gguf
from ggrank.gguf.format import TENSOR_TYPES
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
