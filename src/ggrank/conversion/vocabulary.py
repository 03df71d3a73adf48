"""The original's tokenizer, and the keys that llama.cpp reads it from.

tokenizer.json, vocab.txt and sentencepiece.bpe.model all become a tokenizer of the package ``tokenizers``,
the one that transformers would make of them; its JSON is then written as one of llama.cpp's three layouts:

    WordPiece    "bert"    "##" goes, and a word's first piece begins with U+2581
    Unigram      "t5"      pieces with scores, and sentencepiece's map of characters
    BPE          "gpt2"    pieces and merges

Source of the layouts: ``src/llama-vocab.cpp`` in llama.cpp.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggrank.conversion.original import Json, Original
from ggrank.errors import InputError, ModelFileError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""``enum llama_token_type``, llama.h."""

ROLES = ("bos", "eos", "unk", "sep", "pad", "mask")
_KEYS = {"unk": "unknown", "sep": "seperator", "pad": "padding"}
"""llama.cpp's names of the roles, where they are others; "seperator" is its spelling."""

_BERT = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
_XLMR = {"cls": "<s>", "sep": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>"}
_UNUSED_SCORE = -10_000.0


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer on both sides.

    Attributes:
        keys: what the GGUF says of it.
        tokenizer: the original.
        special: its special tokens' ids by role: "cls", "sep", "eos" ...
        gives_types: whether it gives a pair's second text another token type than the first.
    """

    keys: Json
    tokenizer: Tokenizer
    special: dict[str, int]
    gives_types: bool

    @property
    def model(self) -> str:
        """llama.cpp's name of the layout: "bert", "t5" or "gpt2"."""
        return str(self.keys["tokenizer.ggml.model"])


def read_vocabulary(original: Original, *, n_rows: int) -> Vocabulary:
    """The original's tokenizer.

    Args:
        n_rows: of the embedding's matrix; unused tokens fill the vocabulary up to as many.

    Raises:
        ModelFileError: there is no tokenizer, or one that llama.cpp has no layout for.
        InputError: a package is missing.
    """
    tokenizer = _tokenizer(original)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    data = json.loads(tokenizer.to_str())
    special = _special(original, tokenizer, data["model"])
    tokens, types = _tokens(tokenizer, data, n_rows)
    kind = data["model"]["type"]
    layouts: dict[str, Callable[[Json, list[str], list[int]], Json]] = {
        "WordPiece": _wordpiece,
        "Unigram": _unigram,
        "BPE": _bpe,
    }
    if kind not in layouts:
        raise ModelFileError(
            f"{original.folder} has a tokenizer of type {kind}; expected one of {', '.join(layouts)}, which "
            "are all that llama.cpp's embedders and rerankers read."
        )
    keys = {**layouts[kind](data, tokens, types), **_frame(tokenizer, special, original)}
    keys["tokenizer.ggml.add_sep_token"] = kind == "Unigram"  # RoBERTa's pairs have two separators
    return Vocabulary(keys, tokenizer, special, _gives_types(tokenizer, original))


# -- reading


def _tokenizer(original: Original) -> Tokenizer:
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
    return _with_overrides(tokenizer, original)


def _from_vocab_txt(path: Path, original: Original) -> Tokenizer:
    """BERT's, as transformers makes it of a list of words."""
    from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(path.read_text("utf-8").rstrip("\n").split("\n"))}
    names = {role: _named(original, role) or name for role, name in _BERT.items()}
    if missing := [name for name in names.values() if name not in vocabulary]:
        raise ModelFileError(f"{path} lacks {', '.join(missing)}, which every BERT vocabulary has.")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk"]))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in names.values()])
    cls, sep = names["cls"], names["sep"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, vocabulary[cls]), (sep, vocabulary[sep])],
    )
    return tokenizer


def _from_sentencepiece(path: Path) -> Tokenizer:
    """XLM-R's, as transformers makes it: fairseq's four special tokens first, the mask last."""
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
    except Exception as error:  # protobuf's own kind, of a package that may not be imported under this name
        raise ModelFileError(f"{path} is no sentencepiece model: {error}. Download it again.") from None
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
    """BERT's normalizer as transformers makes it: ``BertTokenizer`` has its flags from tokenizer_config.json
    and not from tokenizer.json; for other classes it is the other way round.
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


def _special(original: Original, tokenizer: Tokenizer, model: Json) -> dict[str, int]:
    """The ids of the special tokens by role: as the settings name them, else as usual."""
    usual = _XLMR if model["type"] == "Unigram" else _BERT
    ids: dict[str, int] = {}
    for role in ("cls", *ROLES):
        for name in (_named(original, role), usual.get(role)):
            token_id = None if name is None else tokenizer.token_to_id(name)
            if token_id is not None:
                ids.setdefault(role, token_id)
    return ids | ({"unk": model["unk_id"]} if model.get("unk_id") is not None else {})


def _gives_types(tokenizer: Tokenizer, original: Original) -> bool:
    settings = original.json("tokenizer_config.json")
    # transformers 5 names its general class so, and gives no types unless they are named; 4 gave them.
    usual = [] if settings.get("tokenizer_class") == "TokenizersBackend" else ["token_type_ids"]
    if "token_type_ids" not in (settings.get("model_input_names") or usual):
        return False
    return 1 in tokenizer.encode("a", "b").type_ids


# -- llama.cpp's layouts


def _tokens(tokenizer: Tokenizer, data: Json, n_rows: int) -> tuple[list[str], list[int]]:
    """All tokens by id and their types; a row of the matrix that no token has gets an unused one."""
    by_id = {token_id: token for token, token_id in tokenizer.get_vocab(with_added_tokens=True).items()}
    if max(by_id) >= n_rows:
        raise ModelFileError(
            f"the tokenizer has tokens up to number {max(by_id):,}, but the model has {n_rows:,} rows of "
            "token embeddings: they belong to different models. Take both from the same place."
        )
    tokens = [by_id.get(i, f"[PAD{i}]") for i in range(n_rows)]
    types = [NORMAL if i in by_id else UNUSED for i in range(n_rows)]
    for token_id, added in tokenizer.get_added_tokens_decoder().items():
        types[token_id] = CONTROL if added.special else USER_DEFINED
    unk = data["model"].get("unk_id")
    if unk is not None:
        types[unk] = UNKNOWN
    return tokens, types


def _wordpiece(data: Json, tokens: list[str], types: list[int]) -> Json:
    normalizer = data["normalizer"] or {}
    usual = normalizer.get("type") == "BertNormalizer" and normalizer.get("handle_chinese_chars", True)
    if not usual or data["model"].get("continuing_subword_prefix") != "##":
        raise ModelFileError(
            "the tokenizer splits words in a way that llama.cpp does not know: expected BERT's "
            "(BertNormalizer that parts Chinese characters, pieces marked with ##), found "
            f"{json.dumps(normalizer)}"
        )
    lowercase = bool(normalizer["lowercase"])
    strip = normalizer.get("strip_accents")
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.pre": "bert-bge",
        "tokenizer.ggml.tokens": [
            _with_phantom_space(token) if kind == NORMAL else token
            for token, kind in zip(tokens, types, strict=True)
        ],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.normalizer.lowercase": lowercase,
        "tokenizer.ggml.normalizer.strip_accents": lowercase if strip is None else bool(strip),
    }


def _with_phantom_space(token: str) -> str:
    return token[2:] if token.startswith("##") else "\u2581" + token


def _unigram(data: Json, tokens: list[str], types: list[int]) -> Json:
    scores = [float(score) for _, score in data["model"]["vocab"]]
    scores += [_UNUSED_SCORE if kind == UNUSED else 0.0 for kind in types[len(scores) :]]
    if data["model"].get("byte_fallback"):
        types = [BYTE if _is_byte(token) else kind for token, kind in zip(tokens, types, strict=True)]
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


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _charsmap(normalizer: Json | None) -> bytes:
    """The map of characters of a normalizer, or of the one in its sequence that has one."""
    parts = [normalizer, *normalizer.get("normalizers", [])] if normalizer else []
    for part in parts:
        if part.get("type") == "Precompiled":
            return base64.b64decode(part["precompiled_charsmap"] or "")
    return b""


def _bpe(data: Json, tokens: list[str], types: list[int]) -> Json:
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in data["model"]["merges"]]
    # Qwen's rule splits digits one by one; ModernBERT's is GPT-2's, which is inside ByteLevel.
    is_qwen = r"\p{N}|" in json.dumps(data["pre_tokenizer"]).replace("\\\\", "\\")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2" if is_qwen else "modern-bert",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
    }


def _frame(tokenizer: Tokenizer, special: dict[str, int], original: Original) -> Json:
    """Which special tokens stand around a text, found by letting the original tokenizer do it."""
    plain, framed = (tokenizer.encode("a", add_special_tokens=flag).ids for flag in (False, True))
    start = next((i for i in range(len(framed)) if framed[i : i + len(plain)] == plain), 0)
    head, tail = framed[:start], framed[start + len(plain) :]
    if max(len(head), len(tail)) > 1:
        raise ModelFileError(f"{original.folder}: llama.cpp sets one token before and after a text, not more")
    ids = dict(special)
    ids.update(
        bos=head[0] if head else special.get("bos", -1), eos=tail[0] if tail else special.get("eos", -1)
    )
    named = {f"tokenizer.ggml.{_KEYS.get(role, role)}_token_id": ids.get(role, -1) for role in ROLES}
    return {
        **{key: token_id for key, token_id in named.items() if token_id >= 0},
        "tokenizer.ggml.add_bos_token": bool(head),
        "tokenizer.ggml.add_eos_token": bool(tail),
    }
