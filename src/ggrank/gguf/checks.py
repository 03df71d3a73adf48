"""Checks of a GGUF's metadata and shapes, for everything that llama.cpp asserts instead of refusing.

llama.cpp refuses many damaged files itself; those are left to it. A failed ``GGML_ASSERT`` ends the
process, so what it asserts when it loads a file, plans a graph or computes is checked here.

Source: llama.cpp's ``src/llama-model.cpp`` (``load_hparams``), ``src/llama-graph.cpp``,
``src/models/*.cpp``, ``ggml/src/ggml-cpu/ops.cpp``.
"""

from __future__ import annotations

import math
from typing import Any

from ggrank.errors import ModelFileError, ModelModeError
from ggrank.gguf.format import Bytes, GgufArray, Header, numbers

ENCODERS = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3"}
    | {"modern-bert", "neo-bert", "eurobert"}
)
"""Architectures that read a whole text at once: embedders and rerankers, never chat models."""

_HEADS_FILL_N_EMBD = ENCODERS | {"qwen2"}
_ROTATES_WHOLE_HEADS = frozenset({"llama", "llama-embed", "mistral3", "qwen2", "qwen3", "qwen3vl"})
_ROTATES_NOTHING = frozenset({"bert", "jina-bert-v2"})
_PLAIN_ATTENTION = _HEADS_FILL_N_EMBD | _ROTATES_WHOLE_HEADS | {"gemma-embedding"}
"""Those that assert keys and values of one length, in heads, in every layer. Others are left alone."""

_PERIODS = {"modern-bert": 3, "gemma-embedding": 6}
"""Layers from one that reads the whole text to the next, in files that do not name the number."""

_NOT_FOR_COMPUTING = frozenset({"q8_1", "q8_k", "i8", "i16", "i32", "i64", "f64"})
"""Types without ``vec_dot`` in ggml-cpu.c; a matrix product with one calls a null pointer."""

_MOST_LAYERS = 512
_MOST_EXPERTS = 1024
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")


def check_kind(header: Header) -> None:
    """Checks that a valid GGUF is a complete model.

    Raises:
        ModelModeError: it belongs to a model: an image encoder, a LoRA adapter, an importance matrix.
        ModelFileError: it is one piece of several, has no weights, or names no architecture.
    """
    metadata, path = header.metadata, header.path
    architecture, kind = metadata.get("general.architecture"), metadata.get("general.type")
    if architecture == "clip" or kind == "mmproj":
        raise ModelModeError(
            f"{path} is a multimodal projector (mmproj): it turns images into input for another model. "
            "Expected an embedding or reranker model: load the .gguf without 'mmproj' in its name."
        )
    if kind in ("adapter", "imatrix"):
        name = "a LoRA adapter" if kind == "adapter" else "an importance matrix"
        raise ModelModeError(
            f"{path} is {name}, which is not a model by itself. Expected an embedding or reranker model: "
            "load the model that it was made for, or one that it was merged into."
        )
    n_pieces, piece = metadata.get("split.count", 0), metadata.get("split.no", 0)
    if isinstance(n_pieces, int) and n_pieces > 1:
        raise ModelFileError(
            f"{path} is one of {n_pieces} pieces of a model (split.no {piece}). Expected a whole model: join "
            "the pieces with llama.cpp's 'llama-gguf-split --merge', or download a file that is whole."
        )
    if not isinstance(architecture, str) or not architecture:
        raise header.damaged(f"expected it to name a general.architecture, found {architecture!r}")
    if not header.tensors:
        raise ModelFileError(
            f"{path} holds a vocabulary or settings, but no weights. Expected a model: download the whole "
            "one (files named 'vocab' hold words only)."
        )


def check_model(header: Header, data: Bytes) -> None:
    """Checks the model's settings and the types of its tensors.

    Raises:
        ModelFileError: llama.cpp would end the process over them.
    """
    facts = _ModelKeys(header, data)
    for name in ("context_length", "embedding_length"):
        facts.need(1 <= facts.whole(name, 0) < 1 << 31, name, "a whole number from 1")
    n_layers = facts.whole("block_count", 0)
    facts.need(1 <= n_layers <= _MOST_LAYERS, "block_count", f"a whole number from 1 to {_MOST_LAYERS}")
    n_predicted = facts.whole("nextn_predict_layers", 0)
    facts.need(n_predicted < n_layers, "nextn_predict_layers", f"less than the {n_layers} layers")
    pooling = facts.whole("pooling_type", 0)
    facts.need(0 <= pooling <= 4 or pooling == 0xFFFFFFFF, "pooling_type", "a whole number from 0 to 4")
    for name in ("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"):
        epsilon = facts.get(name, 0.0)
        fits = isinstance(epsilon, float) and math.isfinite(epsilon) and epsilon >= 0
        facts.need(fits, name, "a small positive number")
    scaling = facts.get("rope.scaling.type", "none")
    facts.need(scaling in _ROPE_SCALINGS, "rope.scaling.type", f"one of {', '.join(_ROPE_SCALINGS)}")
    _check_heads(facts)
    _check_windows(facts, n_layers)
    _check_experts(facts)
    _check_widths(facts)
    _check_tensors(facts)


class _ModelKeys:
    """The keys of the model's architecture, such as ``bert.block_count`` for "block_count"."""

    def __init__(self, header: Header, data: Bytes) -> None:
        self.header, self.data = header, data
        self.architecture = str(header.metadata["general.architecture"])

    def get(self, name: str, default: Any = None) -> Any:
        return self.header.metadata.get(f"{self.architecture}.{name}", default)

    def whole(self, name: str, default: int) -> int:
        value = self.get(name, default)
        self.need(isinstance(value, int) and not isinstance(value, bool), name, "a whole number")
        return int(value)

    def wholes(self, name: str) -> list[int]:
        """One number for all layers, or one for each; empty when the file says nothing."""
        value = self.get(name)
        if not isinstance(value, GgufArray):
            return [] if value is None else [self.whole(name, 0)]
        self.need(value.type in ("u4", "i4"), name, "whole numbers")
        return [int(number) for number in numbers(self.data, value)]

    def need(self, fits: bool, name: str, expected: str) -> None:
        if fits:
            return
        value = self.get(name)
        found = "none" if value is None else "a list" if isinstance(value, GgufArray) else repr(value)
        raise self.header.damaged(f"expected {self.architecture}.{name} to be {expected}, found {found}")


def _check_heads(facts: _ModelKeys) -> None:
    """Reshapes and matrix products of the attention assert that heads divide what they share."""
    n_embd = facts.whole("embedding_length", 0)
    heads = facts.wholes("attention.head_count")
    is_plain = facts.architecture in _PLAIN_ATTENTION
    facts.need(not is_plain or min(heads, default=0) > 0, "attention.head_count", "a whole number from 1")
    if not facts.whole("attention.key_length", 0):
        # Then a head is n_embd / n_heads wide.
        fits = all(n_embd % n_heads == 0 for n_heads in heads if n_heads > 0)
        facts.need(fits, "attention.head_count", f"a divisor of the embedding's length {n_embd}")
    shared = facts.wholes("attention.head_count_kv") or heads
    n_layers = max(len(heads), len(shared))
    for n_heads, n_shared in zip(_each(heads, n_layers), _each(shared, n_layers), strict=False):
        fits = n_heads % n_shared == 0 if n_shared > 0 else not is_plain
        facts.need(fits, "attention.head_count_kv", f"a divisor of the {n_heads} heads")
    if is_plain:
        _check_head_width(facts, n_embd // heads[0])


def _each(values: list[int], n_layers: int) -> list[int]:
    return values * n_layers if len(values) == 1 else values


def _check_head_width(facts: _ModelKeys, usual: int) -> None:
    keys, values = facts.whole("attention.key_length", usual), facts.whole("attention.value_length", usual)
    facts.need(keys == values > 0, "attention.value_length", f"as long as a key, {keys}")
    if facts.architecture in _HEADS_FILL_N_EMBD:
        facts.need(keys == usual, "attention.key_length", f"{usual}, embedding_length over head_count")
    rotated = facts.whole("rope.dimension_count", keys)
    if facts.architecture in _ROTATES_WHOLE_HEADS:
        facts.need(rotated == keys, "rope.dimension_count", f"{keys}, the width of a head")
    if facts.architecture not in _ROTATES_NOTHING:
        fits = 0 <= rotated <= keys and rotated % 2 == 0
        facts.need(fits, "rope.dimension_count", f"an even number up to {keys}, the width of a head")


def _check_windows(facts: _ModelKeys, n_layers: int) -> None:
    """llama.cpp asserts a buffer for the mask of each kind of layer, with and without a window."""
    period = _PERIODS.get(facts.architecture, 0)
    if not period or not facts.whole("attention.sliding_window", 0):
        return
    pattern = facts.get("attention.sliding_window_pattern", period)
    if isinstance(pattern, GgufArray):
        have = [] if pattern.type == "string" else numbers(facts.data, pattern)[:n_layers].tolist()
        kinds = {bool(value) for value in have} | ({False} if len(have) < n_layers else set())
    else:
        period = facts.whole("attention.sliding_window_pattern", period)
        full = 0 if facts.architecture == "modern-bert" else period - 1
        kinds = {period == 0 or i % period != full for i in range(n_layers)}
    expected = "layers with a window and layers without"
    facts.need(len(kinds) == 2, "attention.sliding_window_pattern", expected)


def _check_experts(facts: _ModelKeys) -> None:
    """``load_hparams`` asserts all of this."""
    n_experts, used = facts.whole("expert_count", 0), max(facts.wholes("expert_used_count"), default=0)
    facts.need(n_experts <= _MOST_EXPERTS, "expert_count", f"{_MOST_EXPERTS} at most")
    fits = 1 <= used <= n_experts if n_experts else used == 0
    facts.need(fits, "expert_used_count", f"within the {n_experts} experts")
    groups, used_groups = facts.whole("expert_group_count", 0), facts.whole("expert_group_used_count", 0)
    fits = groups < max(n_experts, 1) and (groups < 2 or n_experts % groups == 0)
    facts.need(fits, "expert_group_count", f"a divisor of the {n_experts} experts")
    facts.need(groups < 2 or 1 <= used_groups < groups, "expert_group_used_count", f"less than {groups}")


def _check_widths(facts: _ModelKeys) -> None:
    n_embd, n_ff = facts.whole("embedding_length", 0), facts.wholes("feed_forward_length")
    if facts.architecture in _PLAIN_ATTENTION:
        # llama.cpp would read that many numbers of each vector.
        fits = facts.whole("embedding_length_out", n_embd) == n_embd
        facts.need(fits, "embedding_length_out", f"{n_embd}, as embedding_length")
    if facts.architecture in ENCODERS:
        up = facts.header.tensors.get("blk.0.ffn_up.weight")
        fits = up is None or (len(n_ff) > 0 and up.shape[1:] in ((n_ff[0],), (2 * n_ff[0],)))
        facts.need(fits, "feed_forward_length", "the height of blk.0.ffn_up.weight, or half of it")
    for name in ("dense_2_feat_in", "dense_3_feat_out"):
        facts.need(facts.whole(name, 0) in (0, n_embd), name, f"{n_embd}, as embedding_length")


def _check_tensors(facts: _ModelKeys) -> None:
    header = facts.header
    for tensor in header.tensors.values():
        # What is added or multiplied number by number must be f32: binary_op in ggml-cpu.
        is_added = len(tensor.shape) == 1 or tensor.name == "token_types.weight"
        if tensor.type in _NOT_FOR_COMPUTING or (is_added and tensor.type != "f32"):
            expected = "f32" if is_added else "a type that llama.cpp multiplies"
            raise header.damaged(f"expected {tensor.name!r} to be stored as {expected}, found {tensor.type}")
    rows = {
        "token_embd.weight": (header.metadata["tokenizer.ggml.tokens"].count, "words in the vocabulary"),
        "position_embd.weight": (facts.whole("context_length", 0), f"as {facts.architecture}.context_length"),
    }
    for name, (n_rows, of) in rows.items():
        shape = header.tensors[name].shape if name in header.tensors else (0, n_rows)
        if shape[1:] != (n_rows,):
            raise header.damaged(f"expected {name!r} to have {n_rows:,} rows, {of}, found {shape}")
