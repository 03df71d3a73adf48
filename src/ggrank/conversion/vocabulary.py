"""The model's tokenizer, and the keys from which llama.cpp reads it.

tokenizer.json, vocab.txt and sentencepiece.bpe.model all become a tokenizer of the package ``tokenizers``, as
transformers makes it; its JSON is then written as one of llama.cpp's three layouts:

    WordPiece    "bert"    without "##"; a word's first piece begins with U+2581
    Unigram      "t5"      pieces with scores, and sentencepiece's map of characters
    BPE          "gpt2"    pieces and merges

Source of the layouts: ``src/llama-vocab.cpp`` in llama.cpp.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ggrank.conversion.original import Json, Original
from ggrank.errors import InputError, ModelFileError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(1, 7)
"""``enum llama_token_type``, llama.h."""

_ROLES = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "sep": "seperator",
    "pad": "padding",
    "mask": "mask",
}
"""Special tokens in transformers' words and in llama.cpp's, which spells "seperator" so."""

_BERT = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
_XLMR = {"cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
_UNUSED_SCORE = -10_000.0


def vocabulary_keys(original: Original, tokenizer: Tokenizer, *, n_rows: int) -> Json:
    """The GGUF's keys for a tokenizer; unused tokens fill the vocabulary up to the matrix's ``n_rows``."""
    data = json.loads(tokenizer.to_str())
    tokens, types = _tokens(tokenizer, data, n_rows)
    algorithm = data["model"]["type"]
    layouts = {"WordPiece": _wordpiece, "Unigram": _unigram, "BPE": _bpe}
    if algorithm not in layouts:
        raise ModelFileError(
            f"{original.folder} has a tokenizer of type {algorithm}; expected one of {', '.join(layouts)}, "
            "which are all that llama.cpp's embedders and rerankers read."
        )
    special = _special_keys(original, tokenizer, data["model"])
    keys = {**layouts[algorithm](data, tokens, types), **special}
    keys["tokenizer.ggml.add_sep_token"] = algorithm == "Unigram"  # RoBERTa's pairs have two separators
    return keys


# -- reading


def read_tokenizer(original: Original) -> Tokenizer:
    """The model's tokenizer, as transformers makes it."""
    from tokenizers import Tokenizer

    folder = original.folder
    if (folder / "tokenizer.json").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the package raises Exception itself
            raise ModelFileError(
                f"{folder / 'tokenizer.json'} cannot be read: {error}. Save it again."
            ) from None
    elif (folder / "vocab.txt").is_file():
        tokenizer = _from_vocab_txt(folder / "vocab.txt", original)
    elif (folder / "sentencepiece.bpe.model").is_file():
        tokenizer = _from_sentencepiece(folder / "sentencepiece.bpe.model")
    else:
        raise ModelFileError(
            f"{folder} has no tokenizer: expected tokenizer.json, vocab.txt or sentencepiece.bpe.model "
            "beside config.json. Save it there: AutoTokenizer.from_pretrained(...).save_pretrained(folder)."
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return _with_overrides(tokenizer, original)


def _from_vocab_txt(path: Path, original: Original) -> Tokenizer:
    from tokenizers import Tokenizer
    from tokenizers.implementations import BertWordPieceTokenizer

    vocabulary = {word: i for i, word in enumerate(path.read_text("utf-8").rstrip("\n").split("\n"))}
    names = {role: _named(original, role) or name for role, name in _BERT.items()}
    if missing := [name for name in names.values() if name not in vocabulary]:
        raise ModelFileError(f"{path} lacks {', '.join(missing)}, which every BERT vocabulary has.")
    special = {f"{role}_token": name for role, name in names.items()}
    return Tokenizer.from_str(BertWordPieceTokenizer(vocabulary, **special).to_str())


def _from_sentencepiece(path: Path) -> Tokenizer:
    """XLM-R's tokenizer: fairseq's four special tokens first, the mask last."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError as error:
        raise InputError(
            f"{path.name} needs sentencepiece and protobuf: pip install 'ggrank[convert]'"
        ) from error
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:  # an error class of protobuf's, which sentencepiece may bring a copy of
        raise ModelFileError(f"{path} is not a sentencepiece model: {error}. Download it again.") from None
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*((name, 0.0) for name in special), *((one.piece, one.score) for one in proto.pieces[3:])]
    pieces.append(("<mask>", 0.0))
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    if proto.normalizer_spec.precompiled_charsmap:
        tokenizer.normalizer = normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)
    metaspace = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace])
    tokenizer.add_special_tokens([*special, AddedToken("<mask>", lstrip=True, special=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _with_overrides(tokenizer: Tokenizer, original: Original) -> Tokenizer:
    """``BertTokenizer`` of transformers takes its normalizer's flags from tokenizer_config.json; other
    classes take them from tokenizer.json.
    """
    from tokenizers import normalizers

    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return tokenizer
    settings = original.json("tokenizer_config.json")
    if str(settings.get("tokenizer_class") or "Bert").startswith("Bert"):
        normalizer.lowercase = settings.get("do_lower_case", True)
        normalizer.strip_accents = settings.get("strip_accents")
        normalizer.handle_chinese_chars = settings.get("tokenize_chinese_chars", True)
    if original.json("sentence_bert_config.json").get("do_lower_case"):
        normalizer.lowercase = True
    tokenizer.normalizer = normalizer
    return tokenizer


def _named(original: Original, role: str) -> str | None:
    """The text of the special token with a role, as the settings name it."""
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        value = original.json(file).get(f"{role}_token")
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            return value
    return None


def gives_types(tokenizer: Tokenizer, original: Original) -> bool:
    """Whether it gives a pair's second text another token type than the first."""
    settings = original.json("tokenizer_config.json")
    # The general class of transformers 5 gives no types unless they are named; the classes of version 4 did.
    usual = [] if settings.get("tokenizer_class") == "TokenizersBackend" else ["token_type_ids"]
    if "token_type_ids" not in (settings.get("model_input_names") or usual):
        return False
    return 1 in tokenizer.encode("a", "b").type_ids


# -- llama.cpp's layouts


def _tokens(tokenizer: Tokenizer, data: Json, n_rows: int) -> tuple[list[str], list[int]]:
    """All tokens by id and their types; a row of the matrix without a token gets an unused one."""
    by_id = {token_id: token for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items()}
    if max(by_id) >= n_rows:
        raise ModelFileError(
            f"the tokenizer has tokens up to number {max(by_id):,}, but the model has {n_rows:,} rows of "
            "token embeddings: they belong to different models. Take both from the same place."
        )
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(n_rows)]
    types = [_NORMAL if i in by_id else _UNUSED for i in range(n_rows)]
    for token_id, added in tokenizer.get_added_tokens_decoder().items():
        types[token_id] = _CONTROL if added.special else _USER_DEFINED
    unk = data["model"].get("unk_id")
    if unk is not None:
        types[unk] = _UNKNOWN
    return tokens, types


def _wordpiece(data: Json, tokens: list[str], types: list[int]) -> Json:
    normalizer = data["normalizer"] or {}
    lowercase, strip = bool(normalizer.get("lowercase")), normalizer.get("strip_accents")
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "bert-bge",
        "tokenizer.ggml.tokens": [
            token if type_ != _NORMAL else token[2:] if token.startswith("##") else f"\u2581{token}"
            for token, type_ in zip(tokens, types, strict=True)
        ],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.normalizer.lowercase": lowercase,
        "tokenizer.ggml.normalizer.strip_accents": lowercase if strip is None else bool(strip),
    }


def _unigram(data: Json, tokens: list[str], types: list[int]) -> Json:
    scores = [float(score) for _, score in data["model"]["vocab"]]
    scores += [_UNUSED_SCORE if type_ == _UNUSED else 0.0 for type_ in types[len(scores) :]]
    if data["model"].get("byte_fallback"):
        is_byte = re.compile("<0x..>").fullmatch
        types = [_BYTE if is_byte(token) else type_ for token, type_ in zip(tokens, types, strict=True)]
    charsmap = _charsmap(data["normalizer"])
    return {
        "tokenizer.ggml.model": "t5",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.remove_extra_whitespaces": True,
        **({"tokenizer.ggml.precompiled_charsmap": charsmap} if charsmap else {}),
    }


def _charsmap(normalizer: Json | None) -> bytes:
    """The map of characters of a normalizer, or of the first one in its sequence that has one."""
    steps = [normalizer, *normalizer.get("normalizers", [])] if normalizer else []
    maps = (step["precompiled_charsmap"] for step in steps if step.get("type") == "Precompiled")
    return base64.b64decode(next(maps, None) or "")


def _bpe(data: Json, tokens: list[str], types: list[int]) -> Json:
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    # Qwen's rule splits digits one by one; ModernBERT has GPT-2's rule, which ByteLevel contains.
    is_qwen = r"\p{N}|" in json.dumps(data["pre_tokenizer"]).replace("\\\\", "\\")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2" if is_qwen else "modern-bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
    }


def _special_keys(original: Original, tokenizer: Tokenizer, model: Json) -> Json:
    """The special tokens as the settings name them, else as usual; the tokenizer adds those around a text."""
    usual = _XLMR if model["type"] == "Unigram" else _BERT
    ids: dict[str, int] = {}
    for role in _ROLES:
        found = (tokenizer.token_to_id(name) for name in (_named(original, role), usual.get(role)) if name)
        token_id = next((i for i in found if i is not None), None)
        if token_id is not None:
            ids[role] = token_id
    plain, framed = (tokenizer.encode("a", add_special_tokens=flag).ids for flag in (False, True))
    start = next((i for i in range(len(framed)) if framed[i : i + len(plain)] == plain), 0)
    head, tail = framed[:start], framed[start + len(plain) :]
    if max(len(head), len(tail)) > 1:
        raise ModelFileError(f"{original.folder}: llama.cpp sets one token before and after a text, not more")
    around = {"unk": model.get("unk_id"), "bos": next(iter(head), None), "eos": next(iter(tail), None)}
    ids |= {role: token_id for role, token_id in around.items() if token_id is not None}
    named = {f"tokenizer.ggml.{key}_token_id": ids[role] for role, key in _ROLES.items() if role in ids}
    return {
        **named,
        "tokenizer.ggml.add_bos_token": bool(head),
        "tokenizer.ggml.add_eos_token": bool(tail),
    }
