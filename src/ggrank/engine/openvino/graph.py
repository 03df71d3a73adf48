"""BERT and XLM-R as a graph of OpenVINO's operators, from a GGUF's tensors.

    token vectors (n_tokens, n_embd) -> layers -> pooling -> head -> (sequences, n_outputs)

The tokens of all sequences stand in a row, and matrices are multiplied for no others. Only attention needs
each sequence on its own, filled up to the longest: a tenth of the work.

The network is that of ``src/models/bert.cpp`` and ``build_pooling`` in llama.cpp's ``llama-graph.cpp``, but
for GELU: it is the original model's here, where llama.cpp takes an approximation from a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ggrank.engine.openvino.library import op, ov
from ggrank.engine.openvino.shape import ONE_TOKEN, BertShape, Precision
from ggrank.engine.weights import Weights
from ggrank.types import PoolingType

VERSION = 3
"""Of this graph: counts up when it gives other numbers, so that none that were kept are taken for its own."""

Node = Any


def build_graph(
    weights: Weights, shape: BertShape, *, pooling: PoolingType, precision: Precision
) -> ov.Model:
    """The model: inputs and outputs have dynamic shapes.

    Inputs: ``tokens`` (n_tokens, n_embd), float32, the sums of the embeddings, all sequences in a row;
    ``places`` (sequences, length), int32, which of them each sequence reads; ``mask`` (sequences, 1, 1,
    length), float32, 0 or a large negative number after a sequence's end; ``back`` (n_tokens,), int32,
    where in the flat ``places`` each token stands; for pooling by the first token ``first`` (sequences,),
    int32, where it is; for mean and last-token pooling ``pool`` (sequences, n_tokens), float32, each token's
    share.

    Output: (sequences, n_outputs); without pooling (n_tokens, n_embd).
    """
    return _Builder(weights, shape, precision).build(pooling)


class _Builder:
    def __init__(self, weights: Weights, shape: BertShape, precision: Precision) -> None:
        self._weights, self._shape, self._precision = weights, shape, precision

    def build(self, pooling: PoolingType) -> ov.Model:
        shape = self._shape
        tokens = op.parameter([-1, shape.n_embd], ov.Type.f32, name="tokens")
        rows = _Rows(
            places=op.parameter([-1, -1], ov.Type.i32, name="places"),
            mask=op.parameter([-1, 1, 1, -1], ov.Type.f32, name="mask"),
            back=op.parameter([-1], ov.Type.i32, name="back"),
        )
        first = op.parameter([-1], ov.Type.i32, name="first")
        pool = op.parameter([-1, -1], ov.Type.f32, name="pool")
        inputs = [tokens, rows.places, rows.mask, rows.back]
        x = self._norm(tokens, "token_embd_norm")
        for i in range(shape.n_layer):
            is_last = i + 1 == shape.n_layer
            x = self._layer(x, rows, f"blk.{i}", only=first if is_last and pooling in ONE_TOKEN else None)
        if pooling in ONE_TOKEN:
            inputs.append(first)
            x = self._head(x) if pooling is PoolingType.RANK else x
        elif pooling is not PoolingType.NONE:
            inputs.append(pool)
            x = op.matmul(pool, x, False, False)
        return ov.Model([op.result(x)], inputs, "bert")

    def _layer(self, x: Node, rows: _Rows, name: str, *, only: Node | None) -> Node:
        """One layer for all tokens, or for those alone that ``only`` names, one a sequence."""
        key, value = (self._heads(self._dense(x, f"{name}.attn_{which}"), rows) for which in "kv")
        asking = x if only is None else _rows(x, only)
        query = self._dense(asking, f"{name}.attn_q")
        query = self._heads(query, rows) if only is None else self._one_each(query)
        attention = op.scaled_dot_product_attention(query, key, value, rows.mask)
        joined = op.reshape(op.transpose(attention, _ints(0, 2, 1, 3)), _ints(-1, self._shape.n_embd), False)
        joined = _rows(joined, rows.back) if only is None else joined
        x = self._norm(op.add(asking, self._dense(joined, f"{name}.attn_output")), f"{name}.attn_output_norm")
        up = op.gelu(self._dense(x, f"{name}.ffn_up"), self._shape.gelu)
        return self._norm(op.add(x, self._dense(up, f"{name}.ffn_down")), f"{name}.layer_output_norm")

    def _heads(self, x: Node, rows: _Rows) -> Node:
        """(n_tokens, n_embd) as (sequences, heads, length, width of a head)."""
        n_head = self._shape.n_head
        each = _rows(x, rows.places)
        split = op.reshape(each, _ints(0, 0, n_head, self._shape.n_embd // n_head), True)
        return op.transpose(split, _ints(0, 2, 1, 3))

    def _one_each(self, x: Node) -> Node:
        """(sequences, n_embd) as (sequences, heads, 1, width of a head)."""
        n_head = self._shape.n_head
        return op.reshape(x, _ints(-1, n_head, 1, self._shape.n_embd // n_head), False)

    def _head(self, x: Node) -> Node:
        if "cls.weight" in self._weights:
            x = op.tanh(self._dense(x, "cls"))
        return self._dense(x, "cls.output") if "cls.output.weight" in self._weights else x

    def _norm(self, x: Node, name: str) -> Node:
        scaled = op.mvn(x, _ints(-1), True, self._shape.epsilon, "INSIDE_SQRT")
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
    """How the tokens of a micro-batch become sequences for attention, and come back; see `build_graph`."""

    places: Node
    mask: Node
    back: Node


def _rows(x: Node, which: Node) -> Node:
    return op.gather(x, which, _ints(0))


def _ints(*values: int) -> Node:
    return op.constant(np.array(values, np.int64))
