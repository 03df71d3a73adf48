"""GGUFs by hand, byte for byte, so that a test can write what no library would."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGUFValueType as Type

_CODES = {
    Type.UINT8: "u1", Type.INT8: "i1", Type.UINT16: "u2", Type.INT16: "i2", Type.UINT32: "u4",
    Type.INT32: "i4", Type.FLOAT32: "f4", Type.BOOL: "?", Type.UINT64: "u8", Type.INT64: "i8",
    Type.FLOAT64: "f8",
}  # fmt: skip
DTYPES = {type: np.dtype(code).newbyteorder("<") for type, code in _CODES.items()}

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "▁a", "▁b", "▁c", "d", "e", "f", "g", "h"]
N_EMBD, N_CTX, N_FF = 32, 16, 64


@dataclass(frozen=True)
class Key:
    """One key: ``items`` is the type of an array's values."""

    name: str
    type: Type
    value: Any
    items: Type | None = None


@dataclass(frozen=True)
class Tensor:
    """One tensor as it is stored: the fastest dimension comes first. Type 0 is f32."""

    name: str
    shape: tuple[int, ...]
    data: bytes
    type: int = 0


@dataclass(frozen=True)
class Gguf:
    """A file before it is written."""

    keys: tuple[Key, ...]
    tensors: tuple[Tensor, ...]
    version: int = 3
    alignment: int = 32

    def value(self, name: str) -> Any:
        """What a key holds."""
        return next(key.value for key in self.keys if key.name == name)

    def with_key(self, name: str, value: Any, *, type: Type | None = None, items: Type | None = None) -> Gguf:
        """The same file with one key changed, or added at the end."""
        old = next((key for key in self.keys if key.name == name), Key(name, Type.UINT32, None))
        new = Key(name, old.type if type is None else type, value, old.items if items is None else items)
        if old not in self.keys:
            return replace(self, keys=(*self.keys, new))
        return replace(self, keys=tuple(new if key is old else key for key in self.keys))

    def without_key(self, name: str) -> Gguf:
        """The same file without one key."""
        return replace(self, keys=tuple(key for key in self.keys if key.name != name))

    def with_tensor(self, name: str, /, **changes: Any) -> Gguf:
        """The same file with one tensor changed."""
        changed = (replace(tensor, **changes) if tensor.name == name else tensor for tensor in self.tensors)
        return replace(self, tensors=tuple(changed))

    def to_bytes(self) -> bytes:
        """The file."""
        head = b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(self.keys))
        head += b"".join(_string(key.name) + _encoded(key) for key in self.keys)
        offset, body = 0, b""
        for tensor in self.tensors:
            head += _string(tensor.name) + struct.pack("<I", len(tensor.shape))
            head += struct.pack(f"<{len(tensor.shape)}QIQ", *tensor.shape, tensor.type, offset)
            body += tensor.data + bytes(-len(tensor.data) % self.alignment)
            offset = len(body)
        return head + bytes(-len(head) % self.alignment) + body


def small() -> Gguf:
    """A header as a BERT reranker has it, with the fewest keys and tensors that pass every check."""
    whole = {
        "bert.context_length": N_CTX, "bert.embedding_length": N_EMBD, "bert.block_count": 1,
        "bert.feed_forward_length": N_FF, "bert.attention.head_count": 4, "bert.pooling_type": 4,
        "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.seperator_token_id": 3,
        "tokenizer.ggml.unknown_token_id": 1,
    }  # fmt: skip
    return Gguf(
        keys=(
            Key("general.architecture", Type.STRING, "bert"),
            *(Key(name, Type.UINT32, value) for name, value in whole.items()),
            Key("bert.attention.layer_norm_epsilon", Type.FLOAT32, 1e-12),
            Key("bert.classifier.output_labels", Type.ARRAY, ["LABEL_0"], Type.STRING),
            Key("tokenizer.ggml.model", Type.STRING, "bert"),
            Key("tokenizer.ggml.tokens", Type.ARRAY, WORDS, Type.STRING),
            Key("tokenizer.ggml.token_type", Type.ARRAY, [3, 2, 3, 3] + [1] * 8, Type.INT32),
        ),
        tensors=(
            f32("token_embd.weight", N_EMBD, len(WORDS)),
            f32("position_embd.weight", N_EMBD, N_CTX),
            f32("blk.0.ffn_up.weight", N_EMBD, N_FF),
            f32("blk.0.ffn_up.bias", N_FF),
            f32("cls.output.weight", N_EMBD, 1),
        ),
    )


def f32(name: str, *shape: int) -> Tensor:
    """A tensor of random numbers."""
    values = np.random.default_rng(len(name)).standard_normal(shape[::-1], dtype=np.float32)
    return Tensor(name, shape, values.tobytes())


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _encoded(key: Key) -> bytes:
    if key.items is None:
        return struct.pack("<I", key.type) + _values(key.type, [key.value])
    return struct.pack("<IIQ", key.type, key.items, len(key.value)) + _values(key.items, key.value)


def _values(type: Type, values: Sequence[Any]) -> bytes:
    if type is Type.STRING:
        return b"".join(map(_string, values))
    return np.asarray(values, dtype=DTYPES[type]).tobytes()


def read(path: Path) -> Gguf:
    """A sound file as it would be written again; strings stay bytes."""
    return _Parser(path.read_bytes()).parse()


class _Parser:
    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def parse(self) -> Gguf:
        _, version, n_tensors, n_keys = self.take("<4sIQQ")
        keys = tuple(self.key() for _ in range(n_keys))
        heads = [self.tensor_head() for _ in range(n_tensors)]
        start = self.place + -self.place % 32
        tensors = []
        for name, shape, code, offset in heads:
            block, block_bytes = GGML_QUANT_SIZES[code]
            end = start + offset + int(np.prod(shape)) // block * block_bytes
            tensors.append(Tensor(name, shape, self.data[start + offset : end], code))
        return Gguf(keys, tuple(tensors), version)

    def take(self, code: str) -> tuple[Any, ...]:
        found = struct.unpack_from(code, self.data, self.place)
        self.place += struct.calcsize(code)
        return found

    def string(self) -> bytes:
        (length,) = self.take("<Q")
        self.place += length
        return self.data[self.place - length : self.place]

    def key(self) -> Key:
        name, type = self.string().decode(), Type(self.take("<I")[0])
        if type is not Type.ARRAY:
            return Key(name, type, self.values(type, 1)[0])
        items, count = self.take("<IQ")
        return Key(name, type, self.values(Type(items), count), Type(items))

    def values(self, type: Type, count: int) -> list[Any]:
        if type is Type.STRING:
            return [self.string() for _ in range(count)]
        found = np.frombuffer(self.data, DTYPES[type], count, self.place)
        self.place += found.nbytes
        return list(found.tolist())

    def tensor_head(self) -> tuple[str, tuple[int, ...], int, int]:
        name, (n_dimensions,) = self.string().decode(), self.take("<I")
        shape = self.take(f"<{n_dimensions}Q")
        return name, shape, *self.take("<IQ")
