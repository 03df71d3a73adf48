"""The tiny models' weights: NumPy arrays from a seed, named and shaped as ``transformers`` has them.

Both sides read these arrays: ``gguf_layout`` renames them as llama.cpp's converter does, ``torch_reference``
gives them to ``load_state_dict``. Knows shapes and magnitudes; neither GGUF nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Shape:
    """The sizes of one model, in the words of ``transformers``."""

    vocab_size: int
    hidden_size: int = 64
    intermediate_size: int = 128
    num_hidden_layers: int = 2
    num_attention_heads: int = 4
    num_key_value_heads: int = 4
    head_dim: int = 16
    max_position_embeddings: int = 128
    type_vocab_size: int = 2


class Source:
    """Seeded draws, scaled so that attention is not flat and logits spread over several units.

    A matrix has a standard deviation of ``gain / sqrt(columns)``. With the 0.02 that models are initialised
    with, every pair would score the same, and a wrong graph would pass.

    Feed-forward blocks with GELU write little (gain 0.05 to 0.15). llama.cpp's GELU on the CPU is the tanh
    formula, rounded to float16 in a table (``GGML_GELU_FP16`` in ggml's ``vec.h``); models are trained with
    the exact one. Each block is wrong by about 0.0005 of what it writes, in steps that hang on its input's
    last bit: with a gain of 1 a logit of a range of five is off by up to 0.0015, and moves by up to 0.0003
    between micro-batches. A block that is left out, or has another activation, still moves the farthest
    logits by 0.2 to 1 and by 0.03 to 0.1.
    """

    def __init__(self, seed: int) -> None:
        self._random = np.random.Generator(np.random.PCG64(seed))

    def table(self, rows: int, columns: int, *, scale: float = 1.0) -> NDArray[np.float32]:
        return (self._random.standard_normal((rows, columns)) * scale).astype(np.float32)

    def matrix(self, rows: int, columns: int, *, gain: float = 1.0) -> NDArray[np.float32]:
        return self.table(rows, columns, scale=gain / columns**0.5)

    def vector(self, size: int, *, mean: float = 0.0, scale: float = 0.1) -> NDArray[np.float32]:
        return (mean + self._random.standard_normal(size) * scale).astype(np.float32)

    def linear(self, name: str, rows: int, columns: int, *, gain: float = 1.0, bias: float = 0.0) -> Weights:
        matrix = self.matrix(rows, columns, gain=gain)
        return {f"{name}.weight": matrix, f"{name}.bias": self.vector(rows, mean=bias)}

    def norm(self, name: str, size: int) -> Weights:
        weight = self.vector(size, mean=1.0, scale=0.2)
        return {f"{name}.weight": weight, f"{name}.bias": self.vector(size)}


def bert(shape: Shape, seed: int, *, unused_positions: int = 0, types_scale: float = 0) -> Weights:
    """BertModel or XLMRobertaModel without pooler; XLM-R has two rows before its first used position.

    The token types have rows of their own of ``types_scale``; with 0 all are the same.
    """
    source, n = Source(seed), shape.hidden_size
    positions = shape.max_position_embeddings + unused_positions
    types = source.table(shape.type_vocab_size, n, scale=types_scale or 0.5)
    weights = {
        "embeddings.word_embeddings.weight": source.table(shape.vocab_size, n),
        "embeddings.position_embeddings.weight": source.table(positions, n, scale=0.3),
        "embeddings.token_type_embeddings.weight": types if types_scale else types[:1].repeat(len(types), 0),
        **source.norm("embeddings.LayerNorm", n),
    }
    for i in range(shape.num_hidden_layers):
        layer = f"encoder.layer.{i}"
        for name in ("query", "key"):
            weights |= source.linear(f"{layer}.attention.self.{name}", n, n, gain=1.2)
        weights |= source.linear(f"{layer}.attention.self.value", n, n, gain=2.0)
        weights |= source.linear(f"{layer}.attention.output.dense", n, n, gain=2.0)
        weights |= source.norm(f"{layer}.attention.output.LayerNorm", n)
        weights |= source.linear(f"{layer}.intermediate.dense", shape.intermediate_size, n, bias=-0.5)
        weights |= source.linear(f"{layer}.output.dense", n, shape.intermediate_size, gain=0.05)
        weights |= source.norm(f"{layer}.output.LayerNorm", n)
    return weights


def bert_head(shape: Shape, seed: int, *, n_labels: int) -> Weights:
    """BertForSequenceClassification: the pooler (dense, tanh), then a linear layer."""
    source, n = Source(seed), shape.hidden_size
    return source.linear("pooler.dense", n, n) | source.linear("classifier", n_labels, n, gain=6.0)


def roberta_head(shape: Shape, seed: int, *, n_labels: int) -> Weights:
    """XLMRobertaForSequenceClassification: dense, tanh, out_proj."""
    source, n = Source(seed), shape.hidden_size
    dense = source.linear("classifier.dense", n, n)
    return dense | source.linear("classifier.out_proj", n_labels, n, gain=6.0)


def modernbert(shape: Shape, seed: int, *, n_labels: int) -> Weights:
    """ModernBertForSequenceClassification: no biases but the last layer's; layer 0 has no attention norm.

    The head's dense layer is large, so that most of what its GELU reads lies beyond 10, where the table
    ends: with a gain of 1 the table alone is wrong by up to 0.003 in logits of -7..7, and by up to 0.001
    between micro-batches.
    """
    source, n, ff = Source(seed), shape.hidden_size, shape.intermediate_size
    weights = {"model.embeddings.tok_embeddings.weight": source.table(shape.vocab_size, n)}
    weights |= _only_weight(source.norm("model.embeddings.norm", n))
    for i in range(shape.num_hidden_layers):
        layer = f"model.layers.{i}"
        if i:
            weights |= _only_weight(source.norm(f"{layer}.attn_norm", n))
        query_key, value = source.matrix(2 * n, n, gain=1.2), source.matrix(n, n, gain=2.0)
        weights[f"{layer}.attn.Wqkv.weight"] = np.concatenate([query_key, value])
        weights[f"{layer}.attn.Wo.weight"] = source.matrix(n, n, gain=2.0)
        weights |= _only_weight(source.norm(f"{layer}.mlp_norm", n))
        weights[f"{layer}.mlp.Wi.weight"] = source.matrix(2 * ff, n)
        weights[f"{layer}.mlp.Wo.weight"] = source.matrix(n, ff, gain=0.1)
    weights |= _only_weight(source.norm("model.final_norm", n))
    weights["head.dense.weight"] = source.matrix(n, n, gain=60.0)
    weights |= _only_weight(source.norm("head.norm", n))
    return weights | source.linear("classifier", n_labels, n, gain=1.6)


def qwen3(shape: Shape, seed: int) -> Weights:
    """Qwen3ForCausalLM with tied embeddings: grouped queries, RMS norms on queries and keys."""
    source, n, ff = Source(seed), shape.hidden_size, shape.intermediate_size
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    weights = {"model.embed_tokens.weight": source.table(shape.vocab_size, n, scale=0.4)}
    for i in range(shape.num_hidden_layers):
        layer = f"model.layers.{i}"
        weights |= _only_weight(source.norm(f"{layer}.input_layernorm", n))
        for name, rows, gain in (("q", queries, 1.2), ("k", keys, 1.2), ("v", keys, 1.5)):
            weights[f"{layer}.self_attn.{name}_proj.weight"] = source.matrix(rows, n, gain=gain)
        for name in ("q", "k"):
            weights |= _only_weight(source.norm(f"{layer}.self_attn.{name}_norm", shape.head_dim))
        weights[f"{layer}.self_attn.o_proj.weight"] = source.matrix(n, queries, gain=1.5)
        weights |= _only_weight(source.norm(f"{layer}.post_attention_layernorm", n))
        weights[f"{layer}.mlp.gate_proj.weight"] = source.matrix(ff, n)
        weights[f"{layer}.mlp.up_proj.weight"] = source.matrix(ff, n)
        weights[f"{layer}.mlp.down_proj.weight"] = source.matrix(n, ff)
    return weights | _only_weight(source.norm("model.norm", n))


def nomic(shape: Shape, seed: int) -> Weights:
    """NomicBertModel: rotary positions, a gated SiLU block, no biases except the norms'."""
    source, n, ff = Source(seed), shape.hidden_size, shape.intermediate_size
    weights = {
        "embeddings.word_embeddings.weight": source.table(shape.vocab_size, n),
        "embeddings.token_type_embeddings.weight": source.table(shape.type_vocab_size, n, scale=0.5),
        **source.norm("embeddings.LayerNorm", n),
    }
    for i in range(shape.num_hidden_layers):
        layer = f"layers.{i}"
        for name, gain in (("q", 1.2), ("k", 1.2), ("v", 2.0), ("o", 2.0)):
            weights[f"{layer}.self_attn.{name}_proj.weight"] = source.matrix(n, n, gain=gain)
        weights |= source.norm(f"{layer}.post_attention_layernorm", n)
        weights[f"{layer}.mlp.gate_proj.weight"] = source.matrix(ff, n)
        weights[f"{layer}.mlp.up_proj.weight"] = source.matrix(ff, n)
        weights[f"{layer}.mlp.down_proj.weight"] = source.matrix(n, ff)
        weights |= source.norm(f"{layer}.post_mlp_layernorm", n)
    return weights


def jina(shape: Shape, seed: int) -> Weights:
    """JinaBert (v2): ALiBi instead of positions, a gated GELU block, and a head of one linear layer.

    The names are those of jinaai/jina-reranker-v1-tiny-en; ``transformers`` has no class for it.
    """
    source, n, ff = Source(seed), shape.hidden_size, shape.intermediate_size
    weights = {
        "embeddings.word_embeddings.weight": source.table(shape.vocab_size, n),
        "embeddings.token_type_embeddings.weight": source.table(shape.type_vocab_size, n, scale=0.5),
        **source.norm("embeddings.LayerNorm", n),
    }
    for i in range(shape.num_hidden_layers):
        layer = f"encoder.layer.{i}"
        for name, gain in (("query", 1.2), ("key", 1.2), ("value", 2.0)):
            weights |= source.linear(f"{layer}.attention.self.{name}", n, n, gain=gain)
        weights |= source.linear(f"{layer}.attention.output.dense", n, n, gain=2.0)
        weights |= source.norm(f"{layer}.attention.output.LayerNorm", n)
        weights[f"{layer}.mlp.gated_layers.weight"] = source.matrix(2 * ff, n)
        weights |= source.linear(f"{layer}.mlp.wo", n, ff, gain=0.15)
        weights |= source.norm(f"{layer}.mlp.layernorm", n)
    return weights | source.linear("classifier", 1, n, gain=1.0)


def _only_weight(pair: Weights) -> Weights:
    return {name: array for name, array in pair.items() if name.endswith(".weight")}
