"""Writes tiny models as GGUF, by the parts of `ggrank.convert` from the folders of `tiny.original_folder`.

What cannot be converted is made from a model that can: `CHANGES` are files for tests of errors and warnings,
each one that llama.cpp itself would load. Jina's architecture is written key by key.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np

from ggrank.conversion.network import Network, read_network
from ggrank.conversion.original import Json, Tensor, find_original
from ggrank.conversion.writing import write_gguf, write_model
from tiny import models, original_folder, vocab
from tiny.models import TinyModel


def write(kind: str, path: Path) -> None:
    """Writes a model of `tiny.models.KINDS` or `CHANGES` to ``path``, every tensor in float32."""
    base, change = CHANGES.get(kind, (kind, _unchanged))
    model = models.build(base)
    if model.family == "jina":
        _write_jina(model, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        original = find_original(original_folder.write_model(model, Path(folder, base)), revision=None)
        write_model(path, change(read_network(original)), {"general.name": kind}, "f32")


def _unchanged(network: Network) -> Network:
    return network


def _without(*names: str) -> Callable[[Network], Network]:
    """Without the keys whose name ends with one of these, and the tensors whose name begins with one."""
    return lambda network: replace(
        network,
        keys={key: value for key, value in network.keys.items() if not key.endswith(names)},
        tensors={name: one for name, one in network.tensors.items() if not name.startswith(names)},
    )


def _three_labels(network: Network) -> Network:
    def repeated(tensor: Tensor) -> Tensor:
        return Tensor((3, *tensor.shape[1:]), lambda: np.repeat(tensor.load(), 3, axis=0))

    labels = {"bert.classifier.output_labels": ["LABEL_0", "LABEL_1", "LABEL_2"]}
    head = {name: repeated(one) for name, one in network.tensors.items() if name.startswith("cls.output")}
    return replace(network, keys=network.keys | labels, tensors=network.tensors | head)


def _one_segment(network: Network) -> Network:
    return replace(network, keys=network.keys | {"ggrank.segment_ids": False})


CHANGES: dict[str, tuple[str, Callable[[Network], Network]]] = {
    "rank-without-head": ("bert-reranker", _without("cls.", "output_labels")),
    "bert-reranker-without-pooler": ("bert-reranker", _without("cls.weight", "cls.bias")),
    "bert-reranker-without-pooling-type": ("bert-reranker", _without("bert.pooling_type")),
    "xlmr-reranker-without-pooling-type": ("xlmr-reranker", _without("bert.pooling_type")),
    "bert-without-pooling-type": ("bert-mean", _without("bert.pooling_type")),
    "bert-reranker-segments-off": ("bert-reranker-segments", _one_segment),
    "bert-reranker-3-labels": ("bert-reranker", _three_labels),
    "chat": (
        "qwen3-reranker",
        _without("cls.", "output_labels", "pooling_type", "chat_templates", "chat_template.rerank"),
    ),
}


# -- Jina


def _write_jina(model: TinyModel, path: Path) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.JINA_BERT_V2, model.shape.num_hidden_layers)
    tensors = {}
    for name, array in model.weights.items():
        target = name if name.startswith("cls.") else names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None, name
        tensors[target] = Tensor(array.shape, lambda array=array: array)
    write_gguf(path, "jina-bert-v2", _jina_keys(model), tensors)


def _jina_keys(model: TinyModel) -> Json:
    """As llama.cpp's converter writes them (``conversion/bert.py``), and pooling_type = rank."""
    shape, data = model.shape, vocab.read("roberta")
    tokens = vocab.tokens("roberta")
    roles = {
        "bos": "<s>",
        "eos": "</s>",
        "unknown": "<unk>",
        "seperator": "</s>",
        "padding": "<pad>",
        "mask": "<mask>",
    }
    kinds = {one["content"]: 3 if one["special"] else 4 for one in data["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    of_model = {
        "block_count": shape.num_hidden_layers,
        "context_length": shape.max_position_embeddings,
        "embedding_length": shape.hidden_size,
        "feed_forward_length": shape.intermediate_size,
        "attention.head_count": shape.num_attention_heads,
        "attention.layer_norm_epsilon": 1e-12,
        "attention.causal": False,
        "pooling_type": 4,
        "classifier.output_labels": list(model.labels),
    }
    of_tokenizer = {
        "model": "gpt2",
        "pre": "jina-v1-en",
        "tokens": list(tokens),
        "token_type": [kinds.get(token, 1) for token in tokens],
        "merges": merges,
        "token_type_count": shape.type_vocab_size,
        "add_bos_token": True,
        "add_eos_token": True,
        "add_sep_token": True,
        **{f"{role}_token_id": tokens.index(token) for role, token in roles.items()},
    }
    return {
        "general.type": "model",
        "general.name": model.kind,
        "general.file_type": 0,
        "general.quantization_version": 2,
        **{f"jina-bert-v2.{name}": value for name, value in of_model.items()},
        **{f"tokenizer.ggml.{name}": value for name, value in of_tokenizer.items()},
    }
