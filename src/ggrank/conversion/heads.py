"""What follows the network: pooling for an embedder, a classifier's layers for a reranker.

A reranker's head is in the model itself (``ForSequenceClassification``), in modules of sentence-transformers
(Dense, LayerNorm, Dense after the pooling), or in two rows of a language model's embedding ("yes", "no").
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np

from ggrank.conversion.original import Floats, Json, Module, Original, Tensor, read_tensors
from ggrank.conversion.vocabulary import Vocabulary
from ggrank.errors import GgrankWarning, ModelFileError, ModelModeError
from ggrank.loading.heads import YES_LABELS
from ggrank.types import PoolingType

Tensors = dict[str, Tensor]

RERANK_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
    'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the "
    "query\n<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
"""What Qwen3-Reranker was trained to read; source: its model card."""

_POOLINGS = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS, "lasttoken": PoolingType.LAST}
_OLD_POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken"}
_HARMLESS = ("Transformer", "Pooling", "Normalize", "Dropout")


@dataclass(frozen=True)
class Head:
    """Pooling, and for a reranker the tensors of its head under llama.cpp's names.

    Attributes:
        pooling: RANK for a reranker.
        labels: what the head's outputs mean; empty for an embedder.
        before: how a reranker with ModernBERT's head pools first; None for others.
        template: how a language model reads a pair.
    """

    pooling: PoolingType
    labels: tuple[str, ...] = ()
    tensors: Tensors = field(default_factory=dict)
    before: PoolingType | None = None
    template: str = ""

    @property
    def is_reranker(self) -> bool:
        """Whether it scores pairs."""
        return self.pooling is PoolingType.RANK

    def keys(self, architecture: str) -> Json:
        """llama.cpp's keys."""
        keys: Json = {f"{architecture}.pooling_type": int(self.pooling)}
        if self.labels:
            keys[f"{architecture}.classifier.output_labels"] = list(self.labels)
        if self.before is not None:
            keys[f"{architecture}.classifier.pooling_type"] = int(self.before)
        if self.template:
            keys["tokenizer.chat_templates"] = ["rerank"]
            keys["tokenizer.chat_template.rerank"] = self.template
        return keys


def read_head(original: Original, tensors: Tensors, vocabulary: Vocabulary, *, architecture: str) -> Head:
    """The head of an original.

    Args:
        tensors: all of the model's, without the prefixes of a model with a head.
        architecture: llama.cpp's name.

    Raises:
        ModelFileError: modules that llama.cpp does not compute, or a layer is missing.
        ModelModeError: a classifier or a chat model: neither embeds nor reranks.
    """
    kind = (original.config.get("architectures") or [""])[0]
    if kind.endswith("ForSequenceClassification"):
        return _classifier(original, tensors, architecture)
    if _layers_after_pooling(original):
        return _module_head(original, architecture)
    if architecture == "qwen3" and _is_language_reranker(original):
        return _language_head(original, tensors, vocabulary)
    return Head(_pooling(original, architecture))


# -- pooling


def _module(original: Original, kind: str) -> Module | None:
    return next((module for module in original.modules if module.kind == kind), None)


def _pooling(original: Original, architecture: str) -> PoolingType:
    module = _module(original, "Pooling")
    if module is None:
        return _usual_pooling(original, architecture)
    modes = module.config.get("pooling_mode") or [
        name for name, old in _OLD_POOLINGS.items() if module.config.get(f"pooling_mode_{old}")
    ]
    modes = [modes] if isinstance(modes, str) else list(modes)
    others = [name for name, value in module.config.items() if name.startswith("pooling_mode_") and value]
    if len(modes) != 1 or modes[0] not in _POOLINGS or len(others) > 1:
        raise ModelFileError(
            f"{original.name} pools token vectors by {modes or others}; llama.cpp knows one of "
            f"{', '.join(_POOLINGS)} at a time."
        )
    if module.config.get("include_prompt") is False:
        raise ModelFileError(f"{original.name} leaves its prompt out of the pooling; llama.cpp cannot.")
    return _POOLINGS[modes[0]]


def _usual_pooling(original: Original, architecture: str) -> PoolingType:
    """For a folder of transformers alone: sentence-transformers takes the mean there."""
    if architecture == "qwen3":
        raise ModelModeError(
            f"{original.name} is a language model without pooling (no modules.json), and not called a "
            "reranker: it writes text. Expected an embedder saved by sentence-transformers, or a Qwen3 "
            "reranker with 'rerank' in its name or README.md."
        )
    warnings.warn(
        f"{original.name} does not say how it pools token vectors (no modules.json): the mean is written, "
        "which is what sentence-transformers takes. Save the model with sentence-transformers to say it.",
        GgrankWarning,
        stacklevel=2,
    )
    return PoolingType.MEAN


# -- classifiers


def _classifier(original: Original, tensors: Tensors, architecture: str) -> Head:
    """The layers of ``BertForSequenceClassification`` and its relatives."""
    names = {
        "pooler.dense": "cls",
        "classifier.dense": "cls",
        "head.dense": "cls",
        "head.norm": "cls.norm",
        "classifier": "cls.output",
        "classifier.out_proj": "cls.output",
    }
    found: Tensors = {}
    for name, tensor in tensors.items():
        stem, _, suffix = name.rpartition(".")
        if stem in names:
            found[f"{names[stem]}.{suffix}"] = tensor
    needed = ["cls.weight", "cls.output.weight"] + (
        ["cls.norm.weight"] if architecture == "modern-bert" else []
    )
    if missing := [name for name in needed if name not in found]:
        raise ModelFileError(
            f"{original.name} lacks layers of its head ({', '.join(missing)} in llama.cpp's words): expected "
            "the whole model as it was trained."
        )
    before = str(original.config.get("classifier_pooling") or "cls")
    return Head(
        PoolingType.RANK,
        _labels(original, found["cls.output.weight"].shape[0]),
        found,
        _POOLINGS[before] if architecture == "modern-bert" else None,
    )


def _labels(original: Original, n_labels: int) -> tuple[str, ...]:
    """What the outputs mean; a reranker has one output, or one that means "relevant"."""
    named = original.config.get("id2label") or {}
    labels = tuple(str(named.get(str(i), f"LABEL_{i}")) for i in range(n_labels))
    if n_labels > 1 and not any(label.lower() in YES_LABELS for label in labels):
        raise ModelModeError(
            f"{original.name} is a classifier with {n_labels} outputs ({', '.join(labels)}), not a reranker: "
            f"expected one output, or one that is called {' or '.join(repr(name) for name in YES_LABELS)}."
        )
    return labels


# -- modules of sentence-transformers


def _layers_after_pooling(original: Original) -> list[Module]:
    return [module for module in original.modules if module.kind not in (*_HARMLESS, "LogitScore")]


def _module_head(original: Original, architecture: str) -> Head:
    """A reranker's head in modules: Dense with the activation of llama.cpp's graph, a norm, Dense.

    ModernBERT's has GELU, no bias, and a norm; BERT's and XLM-R's tanh, a bias, and the first token.
    """
    layers = _layers_after_pooling(original)
    is_modernbert = architecture == "modern-bert"
    usual = ["Dense", "LayerNorm", "Dense"] if is_modernbert else ["Dense", "Dense"]
    kinds = [layer.kind for layer in layers]
    pooling = _pooling(original, architecture)
    fits = kinds in (usual, ["Dense"]) and layers[-1].config.get("out_features") == 1
    fits = fits and (is_modernbert or pooling is PoolingType.CLS)
    activations = [str(layer.config.get("activation_function")).rpartition(".")[2] for layer in layers]
    fits = fits and activations[-1] == "Identity"
    fits = fits and (len(layers) == 1 or activations[0] == ("GELU" if is_modernbert else "Tanh"))
    if not fits or any(layer.config.get("use_residual") for layer in layers):
        listed = ", ".join(
            f"{kind} ({activation})" for kind, activation in zip(kinds, activations, strict=True)
        )
        raise ModelFileError(
            f"{original.name} has modules after its pooling that llama.cpp's {architecture} does not "
            f"compute: {listed}. Expected none, or a reranker's head: {', '.join(usual)} to one value."
        )
    tensors = _module_tensors([read_tensors(layer.folder) for layer in layers], original, is_modernbert)
    return Head(PoolingType.RANK, ("LABEL_0",), tensors, pooling if is_modernbert else None)


def _module_tensors(layers: list[Tensors], original: Original, is_modernbert: bool) -> Tensors:
    tensors = {"cls.output.weight": layers[-1]["linear.weight"]}
    shift: Floats | None = layers[-1]["linear.bias"].load() if "linear.bias" in layers[-1] else None
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
        # llama.cpp's norm has no bias; the linear layer after it takes the bias in.
        moved = layers[-1]["linear.weight"].load() @ layers[1]["norm.bias"].load()
        shift = moved if shift is None else shift + moved
    if shift is not None:
        tensors["cls.output.bias"] = constant(shift)
    return tensors


def constant(values: Floats) -> Tensor:
    """Numbers that are there already."""
    return Tensor(values.shape, lambda: np.ascontiguousarray(values, dtype=np.float32))


# -- language models


def _is_language_reranker(original: Original) -> bool:
    if _module(original, "LogitScore") is not None:
        return True
    names = f"{original.name} {original.repo} {original.config.get('_name_or_path', '')} {original.readme}"
    return _module(original, "Pooling") is None and "rerank" in names.lower()


def _language_head(original: Original, tensors: Tensors, vocabulary: Vocabulary) -> Head:
    """Two rows of the last matrix, "yes" first, between which llama.cpp's graph takes the softmax."""
    score = _module(original, "LogitScore")
    chosen = score.config if score is not None else {}
    token = vocabulary.tokenizer.token_to_id
    rows = [chosen.get("true_token_id", token("yes")), chosen.get("false_token_id", token("no"))]
    if None in rows:
        raise ModelFileError(
            f"{original.name} has no tokens 'yes' and 'no', of which a Qwen3 reranker's score is"
        )
    is_tied = original.config.get("tie_word_embeddings", True) or "lm_head.weight" not in tensors
    matrix = tensors["embed_tokens.weight" if is_tied else "lm_head.weight"]
    # A copy: the rows alone would keep the whole matrix.
    head = Tensor((2, *matrix.shape[1:]), lambda: matrix.load()[np.array(rows)].copy())
    return Head(PoolingType.RANK, ("yes", "no"), {"cls.output.weight": head}, template=RERANK_TEMPLATE)
