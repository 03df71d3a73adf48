"""Writes a tiny reranker as the folder that ``transformers`` and all that is built on it load by its path.

So the originals of `ggrank.compat` run as their users run them, on the weights that the GGUF file has. Needs
torch and transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from tiny import vocab
from tiny.models import TinyModel, build
from tiny.torch_reference import load_tokenizer

Network = Any


def write(kind: str, folder: Path) -> Path:
    """The folder of "bert-reranker", "xlmr-reranker" or "modernbert-reranker-mean", as float32."""
    model = build(kind)
    networks: dict[str, Callable[[TinyModel], Network]] = {
        "bert": _bert,
        "xlmr": _xlmr,
        "modernbert": _modernbert,
    }
    prefix = {"bert": "bert.", "xlmr": "roberta.", "modernbert": ""}[model.family]
    network = networks[model.family](model)
    named = {name if name.startswith("classifier") else prefix + name: a for name, a in model.weights.items()}
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in named.items()})
    network.save_pretrained(folder)
    _tokenizer(model).save_pretrained(folder)
    return folder


def _tokenizer(model: TinyModel) -> transformers.PreTrainedTokenizerFast:
    is_xlmr = model.family == "xlmr"
    first, last = ("<s>", "</s>") if is_xlmr else ("[CLS]", "[SEP]")
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=load_tokenizer(model.tokenizer, special_as_text=False),
        model_max_length=model.shape.max_position_embeddings,
        cls_token=first,
        sep_token=last,
        pad_token="<pad>" if is_xlmr else "[PAD]",
        unk_token="<unk>" if is_xlmr else "[UNK]",
        model_input_names=["input_ids", "attention_mask"]
        + (["token_type_ids"] if model.family == "bert" else []),
    )


def _bert(model: TinyModel) -> Network:
    config = transformers.BertConfig(**_sizes(model), layer_norm_eps=1e-12)
    return transformers.BertForSequenceClassification(config)


def _xlmr(model: TinyModel) -> Network:
    sizes = _sizes(model) | {"max_position_embeddings": model.shape.max_position_embeddings + 2}
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = transformers.XLMRobertaConfig(**sizes, **special, layer_norm_eps=1e-5)
    return transformers.XLMRobertaForSequenceClassification(config)


def _modernbert(model: TinyModel) -> Network:
    sizes = _sizes(model)
    del sizes["type_vocab_size"]
    roles = {"pad": "[PAD]", "bos": "[CLS]", "cls": "[CLS]", "eos": "[SEP]", "sep": "[SEP]"}
    special = {f"{role}_token_id": vocab.token_id(model.tokenizer, token) for role, token in roles.items()}
    config = transformers.ModernBertConfig(
        **sizes,
        **special,
        local_attention=32,
        global_attn_every_n_layers=3,
        classifier_pooling=model.classifier_pooling,
    )
    return transformers.ModernBertForSequenceClassification(config)


def _sizes(model: TinyModel) -> dict[str, Any]:
    shape = model.shape
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes: dict[str, Any] = {name: getattr(shape, name) for name in names}
    return sizes | {
        "max_position_embeddings": shape.max_position_embeddings,
        "type_vocab_size": shape.type_vocab_size,
        "num_labels": len(model.labels),
    }
