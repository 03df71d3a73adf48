"""Checks of a GGUF's tokenizer, for everything over which llama.cpp ends the process or computes other
tokens.

Its tokenizers throw C++ exceptions through the C API, which no caller can catch, and have assertions. Each
check names what would happen without it.

Source: llama.cpp's ``src/llama-vocab.cpp`` (``llama_vocab::impl::load`` and the tokenizers).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import ModelFileError
from ggrank.gguf.format import Bytes, GgufArray, Header, numbers, raw_strings, repeated_string

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
