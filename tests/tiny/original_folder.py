"""Writes a tiny model as the folder that ``transformers`` and all that is built on it load by its path.

So originals run as their users run them, and `ggrank.convert` reads what it reads everywhere. Needs neither
torch nor transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tiny import vocab
from tiny.models import TinyModel, build

Json = dict[str, Any]

CLASSES = {
    "bert": "Bert",
    "xlmr": "XLMRoberta",
    "modernbert": "ModernBert",
    "qwen3": "Qwen3",
    "nomic": "NomicBert",
}
"""The families that transformers has classes for."""
MODEL_TYPES = {"xlmr": "xlm-roberta", "nomic": "nomic_bert"}
PREFIXES = {"bert": "bert.", "xlmr": "roberta."}
POOLING = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
END_OF_TEXT = "<|endoftext|>"


def write(kind: str, folder: Path) -> Path:
    """The folder of one of `tiny.models.KINDS`, but for Jina's, as float32."""
    return write_model(build(kind), folder)


def write_model(model: TinyModel, folder: Path) -> Path:
    """The folder of a model; an embedder's with the modules of sentence-transformers."""
    folder.mkdir(parents=True, exist_ok=True)
    _dump(folder / "config.json", _config(model))
    save_file(_tensors(model), folder / "model.safetensors", metadata={"format": "pt"})
    _dump(folder / "tokenizer.json", _tokenizer(model))
    _dump(folder / "tokenizer_config.json", _tokenizer_config(model))
    if not model.is_reranker:
        write_modules(folder, model, pooling=POOLING[model.pooling or "mean"])
    return folder


def write_modules(folder: Path, model: TinyModel, *, pooling: str, more: tuple[str, ...] = ()) -> None:
    """modules.json with transformer and pooling, and ``more`` kinds of modules, whose folders stay empty."""
    paths = ["", "1_Pooling", *(f"{number}_{kind}" for number, kind in enumerate(more, 2))]
    kinds = ["Transformer", "Pooling", *more]
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(zip(paths, kinds, strict=True))
    ]
    _dump(folder / "modules.json", entries)
    _dump(
        folder / "1_Pooling" / "config.json",
        {"pooling_mode": pooling, "embedding_dimension": model.shape.hidden_size},
    )


def _dump(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), "utf-8")


def _config(model: TinyModel) -> Json:
    shape, family = model.shape, model.family
    head = "ForSequenceClassification" if model.is_reranker else "Model"
    kind = "ForCausalLM" if family == "qwen3" else head
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return {
        "architectures": [CLASSES[family] + kind],
        "model_type": MODEL_TYPES.get(family, family),
        **{name: getattr(shape, name) for name in names},
        "max_position_embeddings": shape.max_position_embeddings,
        "dtype": "float32",
        **({"id2label": {str(i): label for i, label in enumerate(model.labels)}} if model.labels else {}),
        **_of_family(model),
    }


def _of_family(model: TinyModel) -> Json:
    shape = model.shape
    families: dict[str, Callable[[], Json]] = {
        "bert": lambda: {
            "type_vocab_size": shape.type_vocab_size,
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
        },
        "nomic": lambda: {
            "type_vocab_size": shape.type_vocab_size,
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
        },
        "xlmr": lambda: {
            "max_position_embeddings": shape.max_position_embeddings + 2,
            "type_vocab_size": shape.type_vocab_size,
            "layer_norm_eps": 1e-5,
            "bos_token_id": 0,
            "pad_token_id": 1,
            "eos_token_id": 2,
        },
        "modernbert": lambda: _modernbert(model),
        "qwen3": lambda: {
            "num_key_value_heads": shape.num_key_value_heads,
            "head_dim": shape.head_dim,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "tie_word_embeddings": True,
        },
    }
    return families[model.family]()


def _modernbert(model: TinyModel) -> Json:
    roles = {"pad": "[PAD]", "bos": "[CLS]", "cls": "[CLS]", "eos": "[SEP]", "sep": "[SEP]"}
    return {
        **{f"{role}_token_id": vocab.token_id(model.tokenizer, token) for role, token in roles.items()},
        "local_attention": 32,
        "global_attn_every_n_layers": 3,
        "classifier_pooling": model.classifier_pooling or "cls",
    }


def _tensors(model: TinyModel) -> dict[str, Any]:
    """Under the names of the class; a classifier's network has a prefix, its last layers have none."""
    prefix = PREFIXES.get(model.family, "") if model.is_reranker else ""
    return {
        name if name.startswith("classifier") else prefix + name: np.ascontiguousarray(array)
        for name, array in model.weights.items()
    }


def _tokenizer(model: TinyModel) -> Json:
    if model.tokenizer != "qwen3-embedding":
        return vocab.read(model.tokenizer)
    end = {"id": END_OF_TEXT, "ids": [vocab.token_id("qwen2", END_OF_TEXT)], "tokens": [END_OF_TEXT]}
    closed = {
        "type": "TemplateProcessing",
        "single": [
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {END_OF_TEXT: end},
    }
    return {**vocab.read("qwen2"), "post_processor": closed}


def _tokenizer_config(model: TinyModel) -> Json:
    tokenizers = {
        "unigram": {"cls": "<s>", "sep": "</s>", "bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>"},
        "qwen2": {"eos": "<|im_end|>" if model.is_reranker else END_OF_TEXT, "pad": END_OF_TEXT},
    }
    bert = {"cls": "[CLS]", "sep": "[SEP]", "pad": "[PAD]", "unk": "[UNK]", "mask": "[MASK]"}
    roles = tokenizers.get(model.tokenizer.replace("qwen3-embedding", "qwen2"), bert)
    types = ["token_type_ids"] if model.family in ("bert", "nomic") else []
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.shape.max_position_embeddings,
        "model_input_names": ["input_ids", *types, "attention_mask"],
        **{f"{role}_token": token for role, token in roles.items()},
    }
