"""BERT and XLM-R as a graph of OpenVINO's operators, from a GGUF's tensors.

    token vectors (n_tokens, n_embd) -> layers -> pooling -> head -> (sequences, n_outputs)

The tokens of all sequences stand in a row, and matrices are multiplied for these alone. Only attention needs
each sequence on its own, padded to the longest: a tenth of the work.

The network is that of ``src/models/bert.cpp`` and ``build_pooling`` in llama.cpp's ``llama-graph.cpp``,
except GELU, which is the original model's here; llama.cpp reads an approximation from a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ggrank.engine.openvino.library import op, ov
from ggrank.engine.weights import Weights
from ggrank.gguf import GgufFile
from ggrank.types import PoolingType

VERSION = 3
"""Must count up when the graph computes other numbers, so that cached results are not taken for its own."""

Precision = Literal["f32", "bf16", "int8"]
"""How matrices are multiplied: "f32" exactly; "bf16" for AMX; "int8" in blocks of 32 with a scale each,
weights and activations, as llama.cpp does with q8_0."""

ONE_TOKEN = (PoolingType.CLS, PoolingType.RANK)
"""Pooling that reads the first token alone; the last layer computes no other token."""

Node = Any


def build_graph(file: GgufFile, weights: Weights, *, pooling: PoolingType, precision: Precision) -> ov.Model:
    """The model, with dynamic shapes.

    Inputs, in this order:
        tokens: (n_tokens, n_embd), float32: the sums of the embeddings, all sequences in a row.
        positions: (sequences, length), int32: the tokens of each sequence.
        mask: (sequences, 1, 1, length), float32: 0, or a large negative number after a sequence's end.
        back: (n_tokens,), int32: where each token stands in the flattened ``positions``.
        first: (sequences,), int32: the first token of each sequence; only for pooling that reads it alone.
        pool: (sequences, n_tokens), float32: each token's share; only for mean and last-token pooling.

    Output: (sequences, n_outputs); without pooling (n_tokens, n_embd).
    """
    return _Builder(file, weights, precision).build(pooling)


class _Builder:
    def __init__(self, file: GgufFile, weights: Weights, precision: Precision) -> None:
        self._weights, self._precision = weights, precision
        self._gelu = "tanh" if file.text("ggrank.gelu") == "tanh" else "erf"  # as the original computes it
        names = ("block_count", "embedding_length", "attention.head_count", "attention.layer_norm_epsilon")
        facts = (file.metadata[f"{file.architecture}.{name}"] for name in names)
        self._n_layer, self._n_embd, self._n_head, self._epsilon = facts

    def build(self, pooling: PoolingType) -> ov.Model:
        tokens = op.parameter([-1, self._n_embd], ov.Type.f32, name="tokens")
        rows = _Rows(
            positions=op.parameter([-1, -1], ov.Type.i32, name="positions"),
            mask=op.parameter([-1, 1, 1, -1], ov.Type.f32, name="mask"),
            back=op.parameter([-1], ov.Type.i32, name="back"),
        )
        first = op.parameter([-1], ov.Type.i32, name="first")
        pool = op.parameter([-1, -1], ov.Type.f32, name="pool")
        inputs = [tokens, rows.positions, rows.mask, rows.back]
        x = self._norm(tokens, "token_embd_norm")
        for i in range(self._n_layer):
            is_last = i + 1 == self._n_layer
            x = self._layer(x, rows, f"blk.{i}", only=first if is_last and pooling in ONE_TOKEN else None)
        if pooling in ONE_TOKEN:
            inputs.append(first)
            x = self._head(x) if pooling is PoolingType.RANK else x
        elif pooling is not PoolingType.NONE:
            inputs.append(pool)
            x = op.matmul(pool, x, False, False)
        return ov.Model([op.result(x)], inputs, "bert")

    def _layer(self, x: Node, rows: _Rows, name: str, *, only: Node | None) -> Node:
        """One layer for all tokens, or for the tokens in ``only``, one a sequence."""
        key, value = (self._heads(self._dense(x, f"{name}.attn_{letter}"), rows) for letter in "kv")
        computed = x if only is None else _rows(x, only)
        query = self._dense(computed, f"{name}.attn_q")
        if only is None:
            query = self._heads(query, rows)
        else:  # (sequences, n_embd) as (sequences, heads, 1, width of a head)
            query = op.reshape(query, _ints(-1, self._n_head, 1, self._n_embd // self._n_head), False)
        attention = op.scaled_dot_product_attention(query, key, value, rows.mask)
        joined = op.reshape(op.transpose(attention, _ints(0, 2, 1, 3)), _ints(-1, self._n_embd), False)
        joined = _rows(joined, rows.back) if only is None else joined
        joined = self._dense(joined, f"{name}.attn_output")
        x = self._norm(op.add(computed, joined), f"{name}.attn_output_norm")
        up = op.gelu(self._dense(x, f"{name}.ffn_up"), self._gelu)
        return self._norm(op.add(x, self._dense(up, f"{name}.ffn_down")), f"{name}.layer_output_norm")

    def _heads(self, x: Node, rows: _Rows) -> Node:
        """(n_tokens, n_embd) as (sequences, heads, length, width of a head)."""
        each = _rows(x, rows.positions)
        split = op.reshape(each, _ints(0, 0, self._n_head, self._n_embd // self._n_head), True)
        return op.transpose(split, _ints(0, 2, 1, 3))

    def _head(self, x: Node) -> Node:
        if "cls.weight" in self._weights:
            x = op.tanh(self._dense(x, "cls"))
        return self._dense(x, "cls.output") if "cls.output.weight" in self._weights else x

    def _norm(self, x: Node, name: str) -> Node:
        scaled = op.mvn(x, _ints(-1), True, self._epsilon, "INSIDE_SQRT")
        return op.add(op.multiply(scaled, self._vector(f"{name}.weight")), self._vector(f"{name}.bias"))

    def _dense(self, x: Node, name: str) -> Node:
        product = op.matmul(x, self._matrix(f"{name}.weight"), False, True)
        has_bias = f"{name}.bias" in self._weights
        return op.add(product, self._vector(f"{name}.bias")) if has_bias else product

    def _vector(self, name: str) -> Node:
        return op.constant(self._weights.array(name).reshape(-1))

    def _matrix(self, name: str) -> Node:
        """A matrix as it is multiplied; one that the file keeps in whole floats is not rounded."""
        weights, n_in = self._weights, self._weights.shape(name)[-1]
        if self._precision == "f32" or not weights.is_quantized(name):
            return op.constant(weights.array(name).reshape(-1, n_in))
        if self._precision == "bf16":
            halves = weights.array(name).reshape(-1, n_in).astype(np.float16)
            return op.convert(op.constant(halves), "f32")
        codes, scales = weights.blocks(name)
        wide = op.multiply(op.convert(op.constant(codes), "f16"), op.constant(scales))
        return op.convert(op.reshape(wide, _ints(len(codes), n_in), False), "f32")


@dataclass(frozen=True)
class _Rows:
    """How attention finds the tokens of each sequence and puts them back in a row; see `build_graph`."""

    positions: Node
    mask: Node
    back: Node


def _rows(x: Node, indices: Node) -> Node:
    return op.gather(x, indices, _ints(0))


def _ints(*values: int) -> Node:
    return op.constant(np.array(values, np.int64))
