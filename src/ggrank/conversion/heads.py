"""Pooling of an embedder, and the last layers of a reranker.

A reranker's head is in the model itself (``ForSequenceClassification``), in modules of sentence-transformers
(Dense, LayerNorm, Dense after the pooling), or in two rows of a language model's embedding ("yes", "no").
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ggrank.conversion.original import Floats, Json, Module, Original, Tensor, Tensors, read_tensors
from ggrank.errors import ModelFileError, ModelModeError, warn
from ggrank.loading.heads import YES_LABELS
from ggrank.types import PoolingType

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RERANK_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the "
    "query\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""What Qwen3-Reranker was trained to read; source: its model card."""

_POOLINGS = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS, "lasttoken": PoolingType.LAST}
_OLD_POOLINGS = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "lasttoken"}
_WITHOUT_TENSORS = ("Transformer", "Pooling", "Normalize", "Dropout", "LogitScore")
_CLASSIFIER_NAMES = {
    "pooler.dense": "cls",
    "classifier.dense": "cls",
    "head.dense": "cls",
    "head.norm": "cls.norm",
    "classifier": "cls.output",
    "classifier.out_proj": "cls.output",
}
"""llama.cpp's names for the layers of ``BertForSequenceClassification`` and its relatives."""


def read_head(
    original: Original, tensors: Tensors, tokenizer: Tokenizer, *, architecture: str
) -> tuple[Json, Tensors]:
    """The head's keys and tensors in llama.cpp's terms; an embedder has its pooling alone."""
    class_name = (original.config.get("architectures") or [""])[0]
    if class_name.endswith("ForSequenceClassification"):
        return _classifier(original, tensors, architecture)
    if layers := [module for module in original.modules if module.name not in _WITHOUT_TENSORS]:
        return _module_head(original, layers, architecture)
    if architecture == "qwen3" and _is_language_reranker(original):
        return _language_head(original, tensors, tokenizer)
    return {f"{architecture}.pooling_type": int(_pooling(original, architecture))}, {}


def _rank_keys(architecture: str, labels: list[str], first: PoolingType) -> Json:
    """``first`` is the pooling before ModernBERT's head; other architectures have a fixed one."""
    keys: Json = {
        f"{architecture}.pooling_type": int(PoolingType.RANK),
        f"{architecture}.classifier.output_labels": labels,
    }
    if architecture == "modern-bert":
        keys[f"{architecture}.classifier.pooling_type"] = int(first)
    return keys


def _module(original: Original, name: str) -> Module | None:
    return next((module for module in original.modules if module.name == name), None)


def _pooling(original: Original, architecture: str) -> PoolingType:
    module = _module(original, "Pooling")
    if module is None and architecture == "qwen3":
        raise ModelModeError(
            f"{original.name} is a language model without pooling (no modules.json), and not called a "
            "reranker: it writes text. Expected an embedder saved by sentence-transformers, or a Qwen3 "
            "reranker with 'rerank' in its name or README.md."
        )
    if module is None:
        warn(
            f"{original.name} does not say how it pools token vectors (no modules.json): the mean is "
            "written, as sentence-transformers takes it. Save the model with sentence-transformers to say it."
        )
        return PoolingType.MEAN
    config = module.config
    flags = [name.partition("pooling_mode_")[2] for name, is_on in config.items() if is_on]
    modes = config.get("pooling_mode") or [_OLD_POOLINGS.get(flag, flag) for flag in filter(None, flags)]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in _POOLINGS:
        raise ModelFileError(
            f"{original.name} pools token vectors by {modes}; llama.cpp knows one of {', '.join(_POOLINGS)} "
            "at a time."
        )
    if config.get("include_prompt") is False:
        raise ModelFileError(f"{original.name} leaves its prompt out of the pooling; llama.cpp cannot.")
    return _POOLINGS[modes[0]]


def _classifier(original: Original, tensors: Tensors, architecture: str) -> tuple[Json, Tensors]:
    found: Tensors = {}
    for name, tensor in tensors.items():
        layer, _, suffix = name.rpartition(".")
        if layer in _CLASSIFIER_NAMES:
            found[f"{_CLASSIFIER_NAMES[layer]}.{suffix}"] = tensor
    is_modernbert = architecture == "modern-bert"
    needed = ["cls.weight", "cls.output.weight", *(["cls.norm.weight"] if is_modernbert else [])]
    if missing := [name for name in needed if name not in found]:
        raise ModelFileError(
            f"{original.name} lacks layers of its head ({', '.join(missing)} in llama.cpp's words): expected "
            "the whole model as it was trained."
        )
    labels = _labels(original, found["cls.output.weight"].shape[0])
    first = _POOLINGS[(is_modernbert and original.config.get("classifier_pooling")) or "cls"]
    return _rank_keys(architecture, labels, first), found


def _labels(original: Original, n_labels: int) -> list[str]:
    """The names of the outputs; a reranker has one output, or one that means "relevant"."""
    named = original.config.get("id2label") or {}
    labels = [str(named.get(str(i), f"LABEL_{i}")) for i in range(n_labels)]
    if n_labels > 1 and not any(label.lower() in YES_LABELS for label in labels):
        raise ModelModeError(
            f"{original.name} is a classifier with {n_labels} outputs ({', '.join(labels)}), not a reranker: "
            f"expected one output, or one that is called {' or '.join(repr(name) for name in YES_LABELS)}."
        )
    return labels


def _module_head(original: Original, layers: list[Module], architecture: str) -> tuple[Json, Tensors]:
    """A reranker's head in modules of sentence-transformers, if llama.cpp's graph computes the same.

    ModernBERT's graph: a layer without bias, GELU, a norm, a layer. BERT's and XLM-R's: the first token, a
    layer, tanh, a layer.
    """
    is_modernbert = architecture == "modern-bert"
    usual = ["Dense", "LayerNorm", "Dense"] if is_modernbert else ["Dense", "Dense"]
    names = [layer.name for layer in layers]
    activations = [str(layer.config.get("activation_function")).rpartition(".")[2] for layer in layers]
    pooling = _pooling(original, architecture)
    fits = (
        names in (usual, ["Dense"])
        and layers[-1].config.get("out_features") == 1
        and activations[-1] == "Identity"
        and (len(layers) == 1 or activations[0] == ("GELU" if is_modernbert else "Tanh"))
        and (is_modernbert or pooling is PoolingType.CLS)
        and not any(layer.config.get("use_residual") for layer in layers)
    )
    if not fits:
        listed = ", ".join(f"{name} ({what})" for name, what in zip(names, activations, strict=True))
        raise ModelFileError(
            f"{original.name} has modules after its pooling that llama.cpp does not compute for this "
            f"architecture: {listed}. Expected none, or a reranker's head: {', '.join(usual)} to one value."
        )
    tensors = _module_tensors([read_tensors(layer.folder) for layer in layers], original, is_modernbert)
    return _rank_keys(architecture, ["LABEL_0"], pooling), tensors


def _module_tensors(layers: list[Tensors], original: Original, is_modernbert: bool) -> Tensors:
    last = layers[-1]
    tensors = {"cls.output.weight": last["linear.weight"]}
    shift: Floats | None = last["linear.bias"].load() if "linear.bias" in last else None
    if len(layers) > 1:
        tensors["cls.weight"] = layers[0]["linear.weight"]
        bias = layers[0].get("linear.bias")
        if bias is not None and not is_modernbert:
            tensors["cls.bias"] = bias
        elif bias is not None and bias.load().any():
            raise ModelFileError(
                f"{original.name}: llama.cpp's ModernBERT has no bias before the head's GELU"
            )
    if len(layers) == 3:
        tensors["cls.norm.weight"] = layers[1]["norm.weight"]
        # llama.cpp's norm has no bias; the bias of the linear layer after it can hold it.
        moved = last["linear.weight"].load() @ layers[1]["norm.bias"].load()
        shift = moved if shift is None else shift + moved
    if shift is not None:
        tensors["cls.output.bias"] = Tensor(shift.shape, lambda: shift)
    return tensors


def _is_language_reranker(original: Original) -> bool:
    if _module(original, "LogitScore") is not None:
        return True
    names = f"{original.name} {original.repo} {original.config.get('_name_or_path', '')} {original.readme}"
    return _module(original, "Pooling") is None and "rerank" in names.lower()


def _language_head(original: Original, tensors: Tensors, tokenizer: Tokenizer) -> tuple[Json, Tensors]:
    """Two rows of the last matrix, "yes" first, between which llama.cpp's graph takes the softmax."""
    score = _module(original, "LogitScore")
    chosen = score.config if score is not None else {}
    token = tokenizer.token_to_id
    rows = [chosen.get("true_token_id", token("yes")), chosen.get("false_token_id", token("no"))]
    if None in rows:
        raise ModelFileError(
            f"{original.name} has no tokens 'yes' and 'no', from which a Qwen3 reranker computes its score"
        )
    is_tied = original.config.get("tie_word_embeddings", True) or "lm_head.weight" not in tensors
    matrix = tensors["embed_tokens.weight" if is_tied else "lm_head.weight"]
    # A copy: a view of the rows would keep the whole matrix in memory.
    head = Tensor((2, *matrix.shape[1:]), lambda: matrix.load()[np.array(rows)].copy())
    template = {
        "tokenizer.chat_templates": ["rerank"],
        "tokenizer.chat_template.rerank": RERANK_TEMPLATE,
    }
    keys = _rank_keys("qwen3", ["yes", "no"], PoolingType.LAST)
    return {**keys, **template}, {"cls.output.weight": head}
