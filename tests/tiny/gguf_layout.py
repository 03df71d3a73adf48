"""Writes a tiny model as GGUF, laid out as llama.cpp's ``convert_hf_to_gguf.py`` lays out the real ones.

Tensor names come from the ``gguf`` package's own table, as they do in that converter (``conversion/*.py`` in
llama.cpp). Two things differ, on purpose: rerankers say ``pooling_type = rank``, which the converter leaves
out except for Qwen3; and BERT keeps its pooler, which the converter drops.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

from tiny import vocab
from tiny.models import TinyModel
from tiny.templates import RERANK_TEMPLATE
from tiny.weights import Weights

ARCHS = {
    "bert": gguf.MODEL_ARCH.BERT,
    "xlmr": gguf.MODEL_ARCH.BERT,
    "modernbert": gguf.MODEL_ARCH.MODERN_BERT,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
    "nomic": gguf.MODEL_ARCH.NOMIC_BERT,
    "jina": gguf.MODEL_ARCH.JINA_BERT_V2,
}
POOLING = {
    "mean": gguf.PoolingType.MEAN,
    "cls": gguf.PoolingType.CLS,
    "last": gguf.PoolingType.LAST,
    "rank": gguf.PoolingType.RANK,
}


def write(model: TinyModel, path: Path) -> None:
    """Writes ``model`` to ``path``, every tensor in float32."""
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[ARCHS[model.family]])
    _add_general(writer, model)
    _add_family(writer, model)
    _add_job(writer, model)
    vocab.add(writer, model.tokenizer, n_token_types=model.shape.type_vocab_size)
    for name, array in _tensors(model).items():
        writer.add_tensor(name, np.ascontiguousarray(array, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_general(writer: gguf.GGUFWriter, model: TinyModel) -> None:
    shape = model.shape
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(model.kind)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_family(writer: gguf.GGUFWriter, model: TinyModel) -> None:
    shape, family = model.shape, model.family
    if family == "qwen3":
        writer.add_head_count_kv(shape.num_key_value_heads)
        writer.add_key_length(shape.head_dim)
        writer.add_value_length(shape.head_dim)
        writer.add_rope_freq_base(1_000_000.0)
        writer.add_layer_norm_rms_eps(1e-6)
        return
    writer.add_causal_attention(False)
    writer.add_layer_norm_eps(1e-12 if family in ("bert", "nomic", "jina") else 1e-5)
    if family == "nomic":
        writer.add_rope_freq_base(1000.0)
    if family == "modernbert":
        writer.add_rope_freq_base(160_000.0)
        writer.add_rope_freq_base_swa(10_000.0)
        writer.add_rope_scaling_type(gguf.RopeScalingType.NONE)
        writer.add_sliding_window(32)
        writer.add_sliding_window_pattern(3)
        writer.add_vocab_size(shape.vocab_size)
        writer.add_layer_norm_rms_eps(1e-5)  # the converter writes both, as the real configurations have both
        writer.add_string(f"{writer.arch}.hidden_activation", "gelu")  # gguf 0.19 has no method for this one


def _add_job(writer: gguf.GGUFWriter, model: TinyModel) -> None:
    if model.pooling is not None:
        writer.add_pooling_type(POOLING[model.pooling])
    if model.labels:
        writer.add_classifier_output_labels(model.labels)
    if model.segment_ids is not None:
        writer.add_bool("ggrank.segment_ids", model.segment_ids)
    if model.classifier_pooling:
        # gguf 0.19 has no method for this field, which newer converters write.
        writer.add_uint32(f"{writer.arch}.classifier.pooling_type", POOLING[model.classifier_pooling])
    if model.family == "qwen3" and model.is_reranker:
        writer.add_chat_template([{"name": "rerank", "template": RERANK_TEMPLATE}])


def _tensors(model: TinyModel) -> Weights:
    """The weights under GGUF's names, changed where the converter changes them."""
    changed: dict[str, Callable[[TinyModel], Weights]] = {
        "bert": _bert,
        "xlmr": _xlmr,
        "modernbert": _modernbert,
        "qwen3": _qwen3,
        "nomic": _nomic,
        "jina": lambda model: model.weights,
    }
    names = gguf.get_tensor_name_map(ARCHS[model.family], model.shape.num_hidden_layers)
    out: Weights = {}
    for name, array in changed[model.family](model).items():
        target = name if name.startswith("cls.") else names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise KeyError(f"llama.cpp has no name for {name!r}")
        out[target] = array
    return out


def _bert(model: TinyModel) -> Weights:
    """The pooler becomes ``cls`` (dense, tanh), and ``classifier`` becomes ``cls.output``."""
    return _renamed(model.weights, {"pooler.dense": "cls", "classifier": "cls.output"})


def _xlmr(model: TinyModel) -> Weights:
    """The position table starts at the first used position, after the row of the padding token."""
    name = "embeddings.position_embeddings.weight"
    return model.weights | {name: model.weights[name][2:]}


def _modernbert(model: TinyModel) -> Weights:
    weights = {name.removeprefix("model."): array for name, array in model.weights.items()}
    return _renamed(weights, {"classifier": "cls.output"})


def _qwen3(model: TinyModel) -> Weights:
    """The head is two rows of the tied embedding: "yes", then "no"."""
    if not model.is_reranker:
        return model.weights
    rows = [vocab.token_id("qwen2", label) for label in model.labels]
    return model.weights | {"cls.output.weight": model.weights["model.embed_tokens.weight"][rows]}


def _nomic(model: TinyModel) -> Weights:
    """The original repository's names, which the converter reads: queries, keys and values in one matrix."""
    names = {
        "self_attn.o_proj": "attn.out_proj",
        "mlp.up_proj": "mlp.fc11",
        "mlp.gate_proj": "mlp.fc12",
        "mlp.down_proj": "mlp.fc2",
        "post_attention_layernorm": "norm1",
        "post_mlp_layernorm": "norm2",
    }
    out: Weights = {}
    for name, array in model.weights.items():
        theirs = name.replace("embeddings.LayerNorm", "emb_ln")
        for part, original in names.items():
            theirs = theirs.replace(part, original)
        out[f"encoder.{theirs}" if theirs.startswith("layers.") else theirs] = array
    for i in range(model.shape.num_hidden_layers):
        parts = [out.pop(f"encoder.layers.{i}.self_attn.{part}_proj.weight") for part in "qkv"]
        out[f"encoder.layers.{i}.attn.Wqkv.weight"] = np.concatenate(parts)
    return out


def _renamed(weights: Weights, stems: dict[str, str]) -> Weights:
    parts = {name: name.rpartition(".") for name in weights}
    return {f"{stems.get(stem, stem)}.{suffix}": weights[name] for name, (stem, _, suffix) in parts.items()}
