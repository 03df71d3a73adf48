"""Settings and tokenizers that llama.cpp would end the process over; and GGUFs that are no model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gguf_bytes
import tiny_models
from ggrank.errors import GgrankError, ModelFileError, ModelModeError
from ggrank.gguf import open_gguf
from ggrank.gguf.checks import CHARSMAP, TOKENS, trie_is_closed
from gguf_bytes import N_EMBD, WORDS, Gguf, Type, small

Change = Callable[[Gguf], Gguf]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.gguf"


def refusal(path: Path, file: Gguf, kind: type[GgrankError] = ModelFileError) -> str:
    path.write_bytes(file.to_bytes())
    with pytest.raises(kind) as caught:
        open_gguf(path)
    assert type(caught.value) is kind
    assert str(path) in str(caught.value)
    return str(caught.value)


def changed(name: str, value: object, **types: Type) -> Change:
    return lambda file: file.with_key(f"bert.{name}", value, **types)


def tokenizer(name: str, value: object, **types: Type) -> Change:
    return lambda file: file.with_key(f"tokenizer.ggml.{name}", value, **types)


def without(name: str) -> Change:
    return lambda file: file.without_key(f"tokenizer.ggml.{name}")


def tensor(name: str, **changes: object) -> Change:
    return lambda file: file.with_tensor(name, **changes)


DAMAGES: dict[str, tuple[Change, str]] = {
    "no context": (changed("context_length", 0), "bert.context_length"),
    "a context in words": (changed("context_length", "16", type=Type.STRING), "found '16'"),
    "a context for each layer": (changed("context_length", [1], type=Type.ARRAY, items=Type.INT32), "a list"),
    "no width": (changed("embedding_length", 0), "bert.embedding_length"),
    "no layers": (changed("block_count", 0), "from 1 to 512"),
    "absurdly many layers": (changed("block_count", 4_294_967_295), "found 4294967295"),
    "an unknown pooling": (changed("pooling_type", 9), "from 0 to 4"),
    "an output of another width": (changed("embedding_length_out", 64), "embedding_length_out"),
    "positions that are missing": (changed("context_length", 512), "'position_embd.weight' to have 512 rows"),
    "words without vectors": (
        tensor("token_embd.weight", shape=(N_EMBD, 11), data=bytes(N_EMBD * 11 * 4)),
        "12 rows, words in the vocabulary",
    ),
    "no tokenizer": (without("model"), "tokenizer.ggml.model"),
    "a tokenizer that is none": (tokenizer("model", "no_vocab"), "no_vocab"),
    "a tokenizer that dies of two spaces": (
        tokenizer("pre", "whitespace", type=Type.STRING),
        "two spaces",
    ),
    "no words": (without("tokens"), TOKENS),
    "an empty list of words": (tokenizer("tokens", []), TOKENS),
    "millions of words": (lambda file: file.with_key(TOKENS, [""] * ((1 << 22) + 1)), "at most 4,194,304"),
    "words that are numbers": (
        tokenizer("tokens", [1] * 12, items=Type.INT32),
        "a list of words",
    ),
    "a word twice": (tokenizer("tokens", [*WORDS[:-1], "▁a"]), "'▁a' twice"),
    "a word that C reads twice": (tokenizer("tokens", [*WORDS[:-1], "d\0x"]), "'d' twice"),
    "too few kinds of words": (tokenizer("token_type", [1] * 11), "expected 12 numbers"),
    "a byte among word pieces": (tokenizer("token_type", [6] * 12), "no byte tokens"),
    "too few scores": (
        tokenizer("scores", [1.0], type=Type.ARRAY, items=Type.FLOAT32),
        "found 1",
    ),
    "a special token outside": (tokenizer("bos_token_id", 12), "from 0 to 11, found 12"),
    "a special token that is not named": (without("unknown_token_id"), "found 100"),
    "a byte that cannot be spelled": (tokenizer("model", "llama"), "<0x00>"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_settings_that_llama_cpp_would_die_of_are_refused(path: Path, name: str) -> None:
    damage, part = DAMAGES[name]
    message = refusal(path, damage(small()))
    assert part in message
    assert "expected" in message


def kind(value: str) -> Change:
    return lambda file: file.with_key("general.type", value, type=Type.STRING)


KINDS: dict[str, tuple[Change, type[GgrankError], str]] = {
    "an mmproj": (
        lambda file: file.with_key("general.architecture", "clip"),
        ModelModeError,
        "multimodal projector (mmproj)",
    ),
    "an mmproj by its type": (kind("mmproj"), ModelModeError, "multimodal projector (mmproj)"),
    "a LoRA adapter": (kind("adapter"), ModelModeError, "a LoRA adapter"),
    "an importance matrix": (kind("imatrix"), ModelModeError, "an importance matrix"),
    "a piece of a model": (
        lambda file: file.with_key("split.count", 3, type=Type.UINT16),
        ModelFileError,
        "one of 3 pieces of a model (split.no 0)",
    ),
    "a vocabulary": (lambda file: Gguf(file.keys, ()), ModelFileError, "no weights"),
    "no architecture": (
        lambda file: file.without_key("general.architecture"),
        ModelFileError,
        "general.architecture",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_gguf_that_is_no_whole_model_is_named(path: Path, name: str) -> None:
    change, error, part = KINDS[name]
    message = refusal(path, change(small()), error)
    assert part in message
    assert "xpected" in message


def test_the_only_piece_of_a_model_is_whole(path: Path) -> None:
    path.write_bytes(small().with_key("split.count", 1, type=Type.UINT16).to_bytes())
    assert open_gguf(path).has_head


# -- tokenizers


def test_a_sentencepiece_vocabulary_that_spells_every_byte_is_read(path: Path) -> None:
    words = [*WORDS, *(f"<0x{byte:02X}>" for byte in range(256))]
    file = small().with_key(TOKENS, words).with_key("tokenizer.ggml.model", "llama")
    file = file.with_key("tokenizer.ggml.token_type", [1] * len(words))
    data = bytes(N_EMBD * len(words) * 4)
    file = file.with_tensor("token_embd.weight", shape=(N_EMBD, len(words)), data=data)
    path.write_bytes(file.to_bytes())
    assert open_gguf(path).tokenizer_model == "llama"


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Gguf:
    return gguf_bytes.read(tiny_models.write("xlmr-cls", tmp_path_factory.getbasetemp() / "tiny"))


def test_a_word_that_is_longer_than_a_stack_is_deep_is_refused(path: Path, unigram: Gguf) -> None:
    words = [*unigram.value(TOKENS)[:-1], "q" * 70_000]
    assert "at most 1,024 bytes, found one of 70,000" in refusal(path, unigram.with_key(TOKENS, words))


@pytest.mark.parametrize("size", [0, 3, 4, 1000])
def test_a_charsmap_that_is_cut_off_is_refused(path: Path, unigram: Gguf, size: int) -> None:
    assert CHARSMAP in refusal(path, unigram.with_key(CHARSMAP, unigram.value(CHARSMAP)[:size]))


def test_a_charsmap_without_the_end_of_its_last_text_is_refused(path: Path, unigram: Gguf) -> None:
    table = bytes(unigram.value(CHARSMAP))
    size = int.from_bytes(table[:4], "little") + 4
    unending = list(table[:size] + table[size:].replace(b"\0", b"x"))
    assert "a broken one" in refusal(path, unigram.with_key(CHARSMAP, unending))


def leads_outside(trie: list[int], text: bytes, last_value: int) -> bool:
    """llama.cpp's own walk, from ``normalize_prefix`` in its llama-vocab.cpp."""

    def base(unit: int) -> int:
        return (unit >> 10) << ((unit & 0x200) >> 6) & 0xFFFFFFFF

    node = base(trie[0])
    for byte in text:
        node ^= byte
        if node >= len(trie):
            return True
        unit = trie[node]
        if unit & 0x800000FF != byte:
            return False
        node ^= base(unit)
        if unit >> 8 & 1 and (node >= len(trie) or trie[node] & 0x7FFFFFFF > last_value):
            return True
    return False


@given(seed=st.integers(0, 10_000), n_broken=st.sampled_from([0, 1, 300, 30_000]), root=st.booleans())
def test_no_text_leads_outside_a_charsmap_that_passes(
    unigram: Gguf, seed: int, n_broken: int, root: bool
) -> None:
    random = np.random.default_rng(seed)
    table = bytes(unigram.value(CHARSMAP))
    size = int.from_bytes(table[:4], "little")
    last_value = table[4 + size :].rfind(b"\0")
    trie = np.frombuffer(table[4 : 4 + size], "<u4").copy()
    broken = random.integers(0 if root else 1, len(trie), size=n_broken)
    trie[broken] ^= np.uint32(1) << random.integers(32, size=n_broken, dtype=np.uint32)
    units = trie.tolist()
    codes = random.integers(1, 0xD800, size=(200, 3))
    texts = ["".join(map(chr, row)).encode() for row in codes.tolist()]
    if any(leads_outside(units, text, last_value) for text in texts):
        assert not trie_is_closed(trie, last_value=last_value)
    assert n_broken > 0 or trie_is_closed(trie, last_value=last_value)
