"""Reads the committed tokenizers (``tests/tiny/*.json``) and writes the fields that a GGUF file has for them.

The same fields as llama.cpp's ``convert_hf_to_gguf.py`` writes (``conversion/base.py`` and ``bert.py``,
``gguf-py/gguf/vocab.py`` there).
"""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import gguf

Json = dict[str, Any]
Writer = gguf.GGUFWriter


@cache
def read(name: str) -> Json:
    """The parsed ``tokenizer.json`` of "wordpiece", "unigram", "modernbert", "roberta" or "qwen2"."""
    data: Json = json.loads((Path(__file__).parent / f"{name}.json").read_text("utf-8"))
    return data


@cache
def tokens(name: str) -> tuple[str, ...]:
    """All tokens by id, the added ones included."""
    data = read(name)
    vocab = data["model"]["vocab"]
    base = [piece for piece, _ in vocab] if isinstance(vocab, list) else sorted(vocab, key=vocab.__getitem__)
    known = set(base)
    return (*base, *(added["content"] for added in data["added_tokens"] if added["content"] not in known))


def size(name: str) -> int:
    return len(tokens(name))


def token_id(name: str, token: str) -> int:
    return tokens(name).index(token)


def add(writer: Writer, name: str, *, n_token_types: int) -> None:
    """Writes all tokenizer fields of ``name``; "qwen3-embedding" is "qwen2" with a closing token."""
    if name == "wordpiece":
        _add_wordpiece(writer, n_token_types)
    elif name == "unigram":
        _add_unigram(writer, n_token_types)
    elif name == "modernbert":
        _add_bpe(writer, name, pre="modern-bert")
        _add_special(
            writer, name, bos="[CLS]", eos="[SEP]", unk="[UNK]", sep="[SEP]", pad="[PAD]", mask="[MASK]"
        )
        _add_flags(writer, bos=True, eos=True, sep=False)
    elif name == "roberta":
        writer.add_token_type_count(n_token_types)
        _add_bpe(writer, name, pre="jina-v1-en")
        _add_special(writer, name, bos="<s>", eos="</s>", unk="<unk>", sep="</s>", pad="<pad>", mask="<mask>")
        _add_flags(writer, bos=True, eos=True, sep=True)
    else:
        _add_bpe(writer, "qwen2", pre="qwen2")
        eos = "<|endoftext|>" if name == "qwen3-embedding" else "<|im_end|>"
        _add_special(writer, "qwen2", eos=eos, pad="<|endoftext|>")
        writer.add_add_bos_token(False)
        writer.add_add_eos_token(name == "qwen3-embedding")


def _add_wordpiece(writer: Writer, n_token_types: int) -> None:
    """BERT: a word's first piece starts with U+2581, and "##" is dropped ("phantom space")."""
    special = _special_tokens("wordpiece")
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_type_count(n_token_types)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("bert-bge")
    writer.add_token_list([token if token in special else _phantom(token) for token in tokens("wordpiece")])
    writer.add_token_types([control if token in special else normal for token in tokens("wordpiece")])
    names = {"bos": "[CLS]", "eos": "[SEP]", "unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "mask": "[MASK]"}
    _add_special(writer, "wordpiece", **names)
    _add_flags(writer, bos=True, eos=True, sep=False)
    # gguf 0.19 has no method for this field, which newer converters write.
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", True)


def _add_unigram(writer: Writer, n_token_types: int) -> None:
    """XLM-RoBERTa: unigram pieces with scores, and the precompiled nmt_nfkc character map."""
    data = read("unigram")
    control, normal, unknown = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL, gguf.TokenType.UNKNOWN
    types = dict.fromkeys(_special_tokens("unigram"), control) | {"<unk>": unknown}
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(tokens("unigram")))
    writer.add_token_scores([score for _, score in data["model"]["vocab"]])
    writer.add_token_types([types.get(token, normal) for token in tokens("unigram")])
    writer.add_add_space_prefix(True)
    writer.add_token_type_count(n_token_types)
    writer.add_remove_extra_whitespaces(True)
    writer.add_precompiled_charsmap(base64.b64decode(data["normalizer"]["precompiled_charsmap"]))
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "mask": "<mask>"}
    _add_special(writer, "unigram", **names)
    _add_flags(writer, bos=True, eos=True, sep=True)


def _add_bpe(writer: Writer, name: str, *, pre: str) -> None:
    data = read(name)
    kinds = {True: gguf.TokenType.CONTROL, False: gguf.TokenType.USER_DEFINED}
    types = {added["content"]: kinds[added["special"]] for added in data["added_tokens"]}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(list(tokens(name)))
    writer.add_token_types([types.get(token, gguf.TokenType.NORMAL) for token in tokens(name)])
    writer.add_token_merges(merges)


def _add_special(writer: Writer, name: str, **special: str) -> None:
    for role, token in special.items():
        getattr(writer, f"add_{role}_token_id")(token_id(name, token))


def _add_flags(writer: Writer, *, bos: bool, eos: bool, sep: bool) -> None:
    writer.add_add_bos_token(bos)
    writer.add_add_eos_token(eos)
    writer.add_add_sep_token(sep)


def _special_tokens(name: str) -> set[str]:
    return {added["content"] for added in read(name)["added_tokens"] if added["special"]}


def _phantom(token: str) -> str:
    return token[2:] if token.startswith("##") else "\u2581" + token
