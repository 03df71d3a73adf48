"""Checks of a GGUF's metadata, shapes and tokenizer, for which llama.cpp ends the process or goes on wrongly.

llama.cpp refuses many damaged files itself. What it asserts for every text, such as heads that divide a
vector, is left to `ggrank.loading.preflight`, whose child process meets the same assertion. What is here
depends on the text: llama.cpp's tokenizers throw C++ exceptions through the C API, which no caller can catch,
and a table that is too short is read past its end.

Source: llama.cpp's ``src/llama-model.cpp`` (``load_hparams``), ``src/llama-graph.cpp``, ``src/models/*.cpp``,
``src/llama-vocab.cpp`` and ``ggml/src/ggml-cpu/ops.cpp``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import ModelFileError, ModelModeError
from ggrank.gguf.format import Bytes, GgufArray, Header, numbers, raw_strings, repeated_string

ENCODERS = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3"}
    | {"modern-bert", "neo-bert", "eurobert"}
)
"""Architectures that read a whole text at once: embedders and rerankers, never chat models."""

_WIDE_AS_EMBEDDINGS = ENCODERS | {"llama", "llama-embed", "mistral3", "gemma-embedding"}
_WIDE_AS_EMBEDDINGS |= {"qwen2", "qwen3", "qwen3vl"}
"""Architectures whose vectors are as wide as their embeddings."""

_MOST = (1 << 31) - 1
_MOST_LAYERS = 512
_UNSPECIFIED = 0xFFFFFFFF
"""``LLAMA_POOLING_TYPE_UNSPECIFIED``, llama.h, without a sign."""

TOKENS = "tokenizer.ggml.tokens"
CHARSMAP = "tokenizer.ggml.precompiled_charsmap"
BYTE_TOKEN = 6
"""``LLAMA_TOKEN_TYPE_BYTE``, llama.h."""

_NOT_FOR_TEXT = ("no_vocab", "none", "test", "rwkv")
"""llama_tokenize aborts with the first two; "rwkv" never returns if its vocabulary lacks a byte."""

_SPECIAL = ("bos", "eos", "unknown", "seperator", "cls")
"""Those that a sequence may need. "seperator" is llama.cpp's spelling."""

NEEDED = {"bert": {"bos": 101, "unknown": 100, "seperator": 102}, "t5": {"eos": 1, "unknown": 2}}
"""The special tokens that these tokenizers require, and llama.cpp's ids if a file names none."""

_MOST_TOKENS = 1 << 22
"""Words of a vocabulary; the largest ones have 300,000."""

_LONGEST_WORD = 1024
"""Bytes of a word of a unigram tokenizer; XLM-R's longest has 48. llama.cpp's naive_trie calls itself for
each byte, until the stack is full."""

_LONGEST_PREFIX = 256
"""Bytes of text that one entry of a charsmap may replace; real ones stay below 20."""


def check_kind(header: Header) -> None:
    """Checks that a valid GGUF is a complete model, and not a part of one or an addition to one."""
    metadata, path = header.metadata, header.path
    architecture, file_type = metadata.get("general.architecture"), metadata.get("general.type")
    if architecture == "clip" or file_type == "mmproj":
        raise ModelModeError(
            f"{path} is a multimodal projector (mmproj): it turns images into input for another model. "
            "Expected an embedding or reranker model: load the .gguf without 'mmproj' in its name."
        )
    if file_type in ("adapter", "imatrix"):
        name = "a LoRA adapter" if file_type == "adapter" else "an importance matrix"
        raise ModelModeError(
            f"{path} is {name}, which is not a model by itself. Expected an embedding or reranker model: "
            "load the model that it was made for, or one that it was merged into."
        )
    n_pieces, piece = metadata.get("split.count", 0), metadata.get("split.no", 0)
    if isinstance(n_pieces, int) and n_pieces > 1:
        raise ModelFileError(
            f"{path} is one of {n_pieces} pieces of a model (split.no {piece}). Expected a whole model: join "
            "the pieces with llama.cpp's 'llama-gguf-split --merge', or download a file that is whole."
        )
    if not isinstance(architecture, str) or not architecture:
        raise header.damaged(f"expected it to name a general.architecture, found {architecture!r}")
    if not header.tensors:
        raise ModelFileError(
            f"{path} holds a vocabulary or settings, but no weights. Expected a model: download the whole "
            "one (files named 'vocab' hold words only)."
        )


def check_model(header: Header) -> None:
    """Checks the sizes by which llama.cpp would read past the end of an array, or for a very long time."""
    architecture = header.metadata["general.architecture"]

    def whole(name: str, least: int, most: int, *, usual: int | None = None) -> int:
        key = f"{architecture}.{name}"
        value = header.metadata.get(key, usual)
        if type(value) is not int or not least <= value <= most:
            expected = f"a whole number from {least:,} to {most:,}" if least < most else f"{least:,}"
            found = "a list" if isinstance(value, GgufArray) else repr(value)
            raise header.damaged(f"expected {key} to be {expected}, found {found}")
        return value

    n_ctx, n_embd = (whole(name, 1, _MOST) for name in ("context_length", "embedding_length"))
    whole("block_count", 1, _MOST_LAYERS)
    if header.metadata.get(f"{architecture}.pooling_type") != _UNSPECIFIED:
        whole("pooling_type", 0, 4, usual=0)
    if architecture in _WIDE_AS_EMBEDDINGS:
        whole("embedding_length_out", n_embd, n_embd, usual=n_embd)
    n_words = header.metadata[TOKENS].count
    rows = {
        "token_embd.weight": (n_words, "words in the vocabulary"),
        "position_embd.weight": (n_ctx, f"as {architecture}.context_length"),
    }
    for name, (n_rows, of) in rows.items():
        shape = header.tensors[name].shape if name in header.tensors else (0, n_rows)
        if shape[1:] != (n_rows,):
            raise header.damaged(f"expected {name!r} to have {n_rows:,} rows, {of}, found {shape}")


# -- the tokenizer


def check_vocabulary(header: Header, data: Bytes) -> None:
    """Checks the tokenizer."""
    model = header.metadata.get("tokenizer.ggml.model")
    tokens = header.metadata.get(TOKENS)
    if not isinstance(model, str) or model in _NOT_FOR_TEXT:
        raise header.damaged(f"expected a tokenizer for text (tokenizer.ggml.model), found {model!r}")
    if not isinstance(tokens, GgufArray) or tokens.type != "string" or tokens.count == 0:
        raise header.damaged(f"expected a list of words in {TOKENS}, found none")
    if tokens.count > _MOST_TOKENS:
        raise header.damaged(f"expected at most {_MOST_TOKENS:,} words in {TOKENS}, found {tokens.count:,}")
    if header.metadata.get("tokenizer.ggml.pre") == "whitespace":
        # GGML_ASSERT in llama_vocab::find_bpe_rank, still so in llama-cpp-python 0.3.36.
        raise ModelFileError(
            f"{header.path} has a tokenizer (tokenizer.ggml.pre = 'whitespace') with which llama.cpp ends "
            "the process at the first two spaces in a row; expected another. Use another model."
        )
    _check_lists(header, data, tokens.count)
    _check_special_ids(header, tokens.count, model)
    offsets = header.string_offsets[TOKENS]
    # GGML_ASSERT(id_to_token.size() == token_to_id.size())
    if (repeated := repeated_string(data, offsets)) is not None:
        raise header.damaged(f"expected every word of the vocabulary once, found {repeated!r} twice")
    if model == "llama":
        _check_byte_tokens(header, data, offsets)
    if model == "t5":
        longest = int(np.diff(offsets).max()) - 8
        if longest > _LONGEST_WORD:
            most = f"{_LONGEST_WORD:,} bytes"
            raise header.damaged(f"expected words of at most {most}, found one of {longest:,}")
        _check_charsmap(header, data)


def _check_lists(header: Header, data: Bytes, n_tokens: int) -> None:
    for key in ("tokenizer.ggml.scores", "tokenizer.ggml.token_type"):
        array = header.metadata.get(key)
        if array is None:
            continue
        if not isinstance(array, GgufArray) or array.type == "string" or array.count < n_tokens:
            found = f"{array.count:,}" if isinstance(array, GgufArray) else "no list"
            raise header.damaged(f"expected {n_tokens:,} numbers in {key}, found {found}")
    types = header.metadata.get("tokenizer.ggml.token_type")
    is_wordpiece = header.metadata["tokenizer.ggml.model"] == "bert"
    if is_wordpiece and types is not None and (numbers(data, types) == BYTE_TOKEN).any():
        # llama_vocab::impl::token_to_byte: GGML_ABORT.
        raise header.damaged("expected no byte tokens in a WordPiece vocabulary, found some")


def _check_special_ids(header: Header, n_tokens: int, model: str) -> None:
    needed = NEEDED.get(model, {})
    for name in _SPECIAL:
        key = f"tokenizer.ggml.{name}_token_id"
        found = header.metadata.get(key, needed.get(name))
        if found is not None and not (isinstance(found, int) and 0 <= found < n_tokens):
            # llama.cpp would use another token, or none.
            raise header.damaged(f"expected {key} to be from 0 to {n_tokens - 1:,}, found {found!r}")


def _check_byte_tokens(header: Header, data: Bytes, offsets: NDArray[np.int64]) -> None:
    """A SentencePiece vocabulary must spell every byte, as ``<0x41>`` or as the byte itself.

    llm_tokenizer_spm throws std::out_of_range at the first text with a character that is not in it.
    """
    spelled = {string for string in raw_strings(data, offsets) if len(string) in (1, len("<0x41>"))}
    for byte in range(256):
        if b"<0x%02X>" % byte not in spelled and bytes([byte]) not in spelled:
            raise header.damaged(f"expected a token for every byte, found none for <0x{byte:02X}>")


def _check_charsmap(header: Header, data: Bytes) -> None:
    """The table that normalises text for a unigram tokenizer: a trie of prefixes and their replacements.

    llm_tokenizer_ugm_session::normalize_prefix throws when a text leads it outside the table.
    """
    array = header.metadata.get(CHARSMAP)
    if array is None:
        return
    if not isinstance(array, GgufArray) or array.type not in ("i1", "u1"):
        raise header.damaged(f"expected a list of bytes in {CHARSMAP}, found something else")
    table = numbers(data, array).tobytes()
    n_trie = int.from_bytes(table[:4], "little")
    if len(table) < 4 or n_trie + 4 >= len(table):
        raise header.damaged(f"expected {CHARSMAP} to have over {n_trie + 4:,} bytes, found {len(table):,}")
    trie = np.frombuffer(table, "<u4", n_trie // 4, 4)
    if len(trie) and not trie_is_closed(trie, last_value=table[4 + n_trie :].rfind(b"\0")):
        raise header.damaged(f"expected {CHARSMAP} to lead every text to a replacement, found a broken one")


def trie_is_closed(trie: NDArray[np.uint32], *, last_value: int) -> bool:
    """Whether no text can lead a walk through a charsmap's trie to an index or a value outside.

    The trie is an XOR-compressed double array: from the base b of a node, the byte c leads to the
    unit b ^ c if that unit's label is c. All nodes of one depth are followed at once. ``last_value`` is the
    largest offset of a replacement that ends before the table does.

    Source: Shunsuke Kanda, Space- and Time-Efficient String Dictionaries (2018); ``xcda_array_view``
    in llama.cpp.
    """
    units = np.arange(len(trie), dtype=np.uint32)
    bases = (trie >> 10) << ((trie & 0x200) >> 6)
    labels = trie & 0x800000FF
    is_leaf = (trie >> 8) & 1 == 1
    is_child = (labels > 0) & (labels < 256) & (units ^ labels < len(trie))
    parents = np.where(is_child, units ^ labels, 0)
    reached = np.zeros(len(trie), dtype=bool)
    found = bases[:1]
    for _ in range(_LONGEST_PREFIX):
        # A byte changes the lowest eight bits of a base.
        if (found | 255).max(initial=0) >= len(trie):
            return False
        here = np.zeros(len(trie), dtype=bool)
        here[found] = True
        children = np.flatnonzero(is_child & (here & ~reached)[parents])
        if not len(children):
            return True
        reached |= here
        found = units[children] ^ bases[children]
        ends = found[is_leaf[children]]
        if (ends >= len(trie)).any() or ((trie[ends] & 0x7FFFFFFF).astype(np.int64) > last_value).any():
            return False
    return False
