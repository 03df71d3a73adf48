"""The format of a GGUF, versions 2 and 3: its bytes as keys, arrays and tensors.

Every length, count and offset is checked against the size of the file before it is used, so that a damaged
file raises `ModelFileError` and is never read past its end. Nothing large is copied: an array is a range of
bytes.

Source: ``docs/gguf.md`` in https://github.com/ggml-org/ggml, and llama.cpp's ``ggml/src/gguf.cpp``
for what it refuses.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import ModelFileError

Bytes = mmap.mmap | bytes

VALUE_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "?", "string", "array", "u8", "i8", "f8")
"""``enum gguf_type``, gguf.h, as NumPy names; little-endian."""

TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("f32", 1, 4), 1: ("f16", 1, 2), 2: ("q4_0", 32, 18), 3: ("q4_1", 32, 20), 6: ("q5_0", 32, 22),
    7: ("q5_1", 32, 24), 8: ("q8_0", 32, 34), 9: ("q8_1", 32, 36), 10: ("q2_k", 256, 84),
    11: ("q3_k", 256, 110), 12: ("q4_k", 256, 144), 13: ("q5_k", 256, 176), 14: ("q6_k", 256, 210),
    15: ("q8_k", 256, 292), 16: ("iq2_xxs", 256, 66), 17: ("iq2_xs", 256, 74), 18: ("iq3_xxs", 256, 98),
    19: ("iq1_s", 256, 50), 20: ("iq4_nl", 32, 18), 21: ("iq3_s", 256, 110), 22: ("iq2_s", 256, 82),
    23: ("iq4_xs", 256, 136), 24: ("i8", 1, 1), 25: ("i16", 1, 2), 26: ("i32", 1, 4), 27: ("i64", 1, 8),
    28: ("f64", 1, 8), 29: ("iq1_m", 256, 56), 30: ("bf16", 1, 2), 34: ("tq1_0", 256, 54),
    35: ("tq2_0", 256, 66), 39: ("mxfp4", 32, 17), 40: ("nvfp4", 64, 36), 41: ("q1_0", 128, 18),
    42: ("q2_0", 64, 18),
}  # fmt: skip
"""``enum ggml_type``, ggml.h: name, numbers in a block, bytes of a block (ggml-common.h)."""

LEAST_ALIGNMENT = 32
"""Less is legal, but llama.cpp asserts it for memory-mapped weights (ggml_backend_cpu_buffer_from_ptr)."""

MAX_NAME_BYTES = 63
"""llama.cpp keeps a tensor's name in 64 bytes with a closing zero: ``GGML_MAX_NAME``."""

_SMALLEST_KEY = 8 + 1 + 4 + 1
_SMALLEST_TENSOR = 8 + 1 + 4 + 8 + 4 + 8
_STRING, _ARRAY = VALUE_TYPES.index("string"), VALUE_TYPES.index("array")


@dataclass(frozen=True)
class GgufArray:
    """Where the file has an array of the metadata; ``type`` is "string", or a NumPy name such as "i4"."""

    type: str
    count: int
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: the fastest dimension is the first, and ``offset`` counts from the file's beginning."""

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    n_bytes: int


@dataclass(frozen=True)
class Header:
    """Everything before the weights; ``string_offsets`` are those of each array of strings."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    string_offsets: Mapping[str, NDArray[np.int64]]

    def damaged(self, what: str) -> ModelFileError:
        """The error for a damaged file; ``what`` says what was expected and found."""
        return ModelFileError(f"{self.path} is damaged: {what}. Download it again.")


def read_header(data: Bytes, path: Path) -> Header:
    """Reads a file that begins with ``GGUF``; ``path`` is for messages only."""
    reader = _Reader(data, path)
    _check_version(reader)
    n_tensors = reader.count("tensors", smallest=_SMALLEST_TENSOR)
    n_keys = reader.count("keys", smallest=_SMALLEST_KEY)
    metadata: dict[str, Any] = {}
    for _ in range(n_keys):
        key = reader.string("the name of a key")
        if not key or key in metadata:
            raise reader.damaged(f"expected every key to have its own name, found {key!r}")
        metadata[key] = reader.value(key)
    alignment = metadata.get("general.alignment", LEAST_ALIGNMENT)
    is_power = isinstance(alignment, int) and alignment > 0 and alignment & (alignment - 1) == 0
    if not is_power or alignment < LEAST_ALIGNMENT:
        raise reader.damaged(f"expected general.alignment to be a power of two from 32, found {alignment!r}")
    tensors = _read_tensors(reader, n_tensors, int(alignment))
    return Header(path, metadata, tensors, reader.string_offsets)


def numbers(data: Bytes, array: GgufArray) -> NDArray[Any]:
    """The values of an array of numbers: a copy of shape (count,)."""
    if array.type == "string":
        raise TypeError("expected an array of numbers, found one of strings")
    block = data[array.offset : array.offset + array.n_bytes]
    return np.frombuffer(block, np.dtype(array.type).newbyteorder("<"))


def strings(data: Bytes, array: GgufArray) -> list[str]:
    """The values of an array of strings; bytes that are not UTF-8 become U+FFFD."""
    if array.type != "string":
        raise TypeError("expected an array of strings, found one of numbers")
    found = raw_strings(data, string_offsets(data, array.offset, array.count))
    return [string.decode("utf-8", "replace") for string in found]


def string_offsets(data: Bytes, start: int, count: int) -> NDArray[np.int64]:
    """The position of each string of an array, and the end of the last one: shape (count + 1,).

    A string is its length, eight bytes little-endian, and then its bytes.
    """
    length_at, n_bytes = struct.Struct("<Q").unpack_from, len(data)

    def positions() -> Iterator[int]:
        position = start
        yield position
        for _ in range(count):
            position += 8 + length_at(data, position)[0] if position + 8 <= n_bytes else 8
            if position > n_bytes:
                raise ValueError("an array of strings ends after the data")
            yield position

    return np.fromiter(positions(), np.int64, count + 1)


def raw_strings(data: Bytes, offsets: NDArray[np.int64]) -> list[bytes]:
    """The strings at ``offsets``."""
    first = int(offsets[0])
    block = data[first : int(offsets[-1])]
    starts, ends = (offsets[:-1] + 8 - first).tolist(), (offsets[1:] - first).tolist()
    return [block[start:end] for start, end in zip(starts, ends, strict=True)]


def repeated_string(data: Bytes, offsets: NDArray[np.int64]) -> str | None:
    """A string that the array holds twice, or None. Empty strings do not count.

    llama.cpp reads strings as C does, so they end at their first zero byte here too.
    """
    found = [string.partition(b"\0")[0] for string in raw_strings(data, offsets)]
    if len(set(found)) + found.count(b"") - (b"" in found) == len(found):
        return None
    twice = next(string for string, n in Counter(filter(None, found)).items() if n > 1)
    return twice.decode("utf-8", "backslashreplace")


def _check_version(reader: _Reader) -> None:
    reader.skip(4, "its first word")
    version = reader.u32("its version")
    if version in (2, 3):
        return
    if version & 0xFFFF == 0:
        raise ModelFileError(
            f"{reader.path} is a big-endian GGUF; expected a little-endian one. Download the little-endian "
            "file (most are), or convert it with llama.cpp's gguf_convert_endian.py."
        )
    advice = (
        "It is too old: download a newer conversion of this model."
        if version == 1
        else "It is damaged, or newer than this release: download it again, or update ggrank."
    )
    raise ModelFileError(f"{reader.path} is GGUF version {version}; expected version 2 or 3. {advice}")


def _read_tensors(reader: _Reader, n_tensors: int, alignment: int) -> dict[str, TensorInfo]:
    """The tensors by name, all of them inside the file."""
    found: dict[str, TensorInfo] = {}
    end = padded_end = 0
    for _ in range(n_tensors):
        tensor = _read_tensor(reader)
        if tensor.name in found:
            raise reader.damaged(f"expected every tensor to have its own name, found {tensor.name!r} twice")
        if tensor.offset != padded_end:
            raise reader.damaged(
                f"expected the numbers of {tensor.name!r} at {padded_end:,}, after those of the tensor "
                f"before it, found {tensor.offset:,}"
            )
        found[tensor.name] = tensor
        end = tensor.offset + tensor.n_bytes
        padded_end = _padded(end, alignment)
    start = _padded(reader.position, alignment)
    missing = start + end - reader.size
    if missing > 0 and found:
        raise ModelFileError(
            f"{reader.path} is cut off: expected {start + end:,} bytes, found {reader.size:,}; {missing:,} "
            "are missing. The download or copy was interrupted: download it again."
        )
    return {name: replace(tensor, offset=start + tensor.offset) for name, tensor in found.items()}


def _read_tensor(reader: _Reader) -> TensorInfo:
    name = reader.string("the name of a tensor", most=MAX_NAME_BYTES)
    n_dimensions = reader.u32(f"the shape of {name!r}")
    if not 1 <= n_dimensions <= 4:
        raise reader.damaged(f"expected 1 to 4 dimensions of {name!r}, found {n_dimensions}")
    shape = tuple(reader.u64(f"the shape of {name!r}") for _ in range(n_dimensions))
    code = reader.u32(f"the type of {name!r}")
    offset = reader.u64(f"the offset of {name!r}")
    if code not in TENSOR_TYPES:
        raise ModelFileError(
            f"{reader.path} stores {name!r} as type {code}; expected one of the {len(TENSOR_TYPES)} types "
            "that this release knows. The file is damaged, or made for a newer or a much older llama.cpp: "
            "download it again, or another quantization (Q8_0, Q4_K_M)."
        )
    type_name, block, block_bytes = TENSOR_TYPES[code]
    n_numbers = math.prod(shape)
    if n_numbers == 0 or shape[0] % block or n_numbers >= 1 << 62:
        raise reader.damaged(
            f"expected dimensions of {name!r} from 1, the first a multiple of {block} ({type_name}), "
            f"found {shape}"
        )
    return TensorInfo(name, shape, type_name, offset, n_numbers // block * block_bytes)


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


class _Reader:
    """A position in the file, and reads that never pass its end."""

    def __init__(self, data: Bytes, path: Path) -> None:
        self.data, self.path, self.size, self.position = data, path, len(data), 0
        self.string_offsets: dict[str, NDArray[np.int64]] = {}

    def damaged(self, what: str) -> ModelFileError:
        where = f"near byte {self.position:,}"
        return ModelFileError(f"{self.path} is damaged {where}: {what}. Download it again.")

    def skip(self, n_bytes: int, what: str) -> int:
        """Moves the position; returns the old one."""
        start, end = self.position, self.position + n_bytes
        if end > self.size:
            raise ModelFileError(
                f"{self.path} ends at byte {self.size:,}, in {what}: at least {end - self.size:,} more bytes "
                "were expected. The file is cut off or damaged: download it again."
            )
        self.position = end
        return start

    def u32(self, what: str) -> int:
        return int(struct.unpack_from("<I", self.data, self.skip(4, what))[0])

    def u64(self, what: str) -> int:
        return int(struct.unpack_from("<Q", self.data, self.skip(8, what))[0])

    def count(self, what: str, *, smallest: int) -> int:
        count = self.u64(f"the number of {what}")
        if count * smallest > self.size:
            raise self.damaged(f"expected no more {what} than {self.size:,} bytes can hold, found {count:,}")
        return count

    def string(self, what: str, *, most: int = 1 << 30) -> str:
        length = self.u64(what)
        if length > most:
            raise self.damaged(f"expected at most {most:,} bytes in {what}, found {length:,}")
        start = self.skip(length, what)
        return self.data[start : start + length].decode("utf-8", "backslashreplace")

    def value(self, key: str) -> Any:
        code = self.u32(f"the type of {key!r}")
        if code == _STRING:
            return self.string(f"the value of {key!r}")
        if code == _ARRAY:
            return self._array(key)
        dtype = self._dtype(code, key)
        start = self.skip(dtype.itemsize, f"the value of {key!r}")
        return np.frombuffer(self.data[start : self.position], dtype)[0].item()

    def _dtype(self, code: int, key: str) -> np.dtype[Any]:
        if code >= len(VALUE_TYPES) or code in (_STRING, _ARRAY):
            raise self.damaged(f"expected {key!r} to have a type that GGUF knows, found type {code}")
        return np.dtype(VALUE_TYPES[code]).newbyteorder("<")

    def _array(self, key: str) -> GgufArray:
        code = self.u32(f"the type of {key!r}")
        count = self.u64(f"the length of {key!r}")
        smallest = 8 if code == _STRING else self._dtype(code, key).itemsize
        what = f"the {count:,} values of {key!r}"
        offset = self.skip(count * smallest, what)
        if code == _STRING:
            try:
                self.string_offsets[key] = string_offsets(self.data, offset, count)
            except ValueError:
                raise self.damaged(f"expected {what} to end before the file does") from None
            self.position = int(self.string_offsets[key][-1])
        return GgufArray(VALUE_TYPES[code], count, offset, self.position - offset)
