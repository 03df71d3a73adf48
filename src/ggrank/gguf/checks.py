"""Checks of a GGUF's metadata and shapes, for which llama.cpp ends the process or reads past an array.

llama.cpp refuses many damaged files itself. What it asserts in every graph, such as heads that divide a
vector, is left to `ggrank.loading.preflight`, whose child process meets the same assertion.

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

_WIDE_AS_EMBEDDINGS = ENCODERS | {"llama", "llama-embed", "mistral3", "gemma-embedding"}
_WIDE_AS_EMBEDDINGS |= {"qwen2", "qwen3", "qwen3vl"}
"""Architectures whose vectors are as wide as their embeddings."""

_NOT_FOR_COMPUTING = frozenset({"q8_1", "q8_k", "i8", "i16", "i32", "i64", "f64"})
"""Types without ``vec_dot`` in ggml-cpu.c; a matrix product with one calls a null pointer."""

_MOST_LAYERS = 512
_ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")


def check_kind(header: Header) -> None:
    """Checks that a valid GGUF is a complete model, and not a part of one or an addition to one."""
    metadata, path = header.metadata, header.path
    architecture, file_type = metadata.get("general.architecture"), metadata.get("general.type")
    if architecture == "clip" or file_type == "mmproj":
        raise ModelModeError(
            f"{path} is a multimodal projector (mmproj): it turns images into input for another model. "
            "Expected an embedding or reranker model: load the .gguf without 'mmproj' in its name."
        )
    if file_type in ("adapter", "imatrix"):
        name = "a LoRA adapter" if file_type == "adapter" else "an importance matrix"
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
    """Checks the model's settings and the types of its tensors."""
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


def _check_widths(facts: _ModelKeys) -> None:
    n_embd, n_ff = facts.whole("embedding_length", 0), facts.wholes("feed_forward_length")
    if facts.architecture in _WIDE_AS_EMBEDDINGS:
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
