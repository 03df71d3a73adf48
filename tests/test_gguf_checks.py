"""Settings that llama.cpp asserts, and would end the process over; and GGUFs that are no model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ggrank.errors import GgrankError, ModelFileError, ModelModeError
from ggrank.gguf import open_gguf
from gguf_bytes import N_EMBD, N_FF, Gguf, Type, small

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


def tensor(name: str, **changes: object) -> Change:
    return lambda file: file.with_tensor(name, **changes)


EPSILON = "attention.layer_norm_epsilon"
DAMAGES: dict[str, tuple[Change, str]] = {
    "no context": (changed("context_length", 0), "bert.context_length"),
    "a context in words": (changed("context_length", "16", type=Type.STRING), "found '16'"),
    "a context for each layer": (changed("context_length", [1], type=Type.ARRAY, items=Type.INT32), "a list"),
    "no width": (changed("embedding_length", 0), "bert.embedding_length"),
    "no layers": (changed("block_count", 0), "from 1 to 512"),
    "absurdly many layers": (changed("block_count", 4_294_967_295), "found 4294967295"),
    "no layers but predicted ones": (changed("nextn_predict_layers", 1), "less than the 1 layers"),
    "a negative epsilon": (changed(EPSILON, -1.0), "small positive"),
    "an epsilon that is no number": (changed(EPSILON, float("nan")), "found nan"),
    "an unknown pooling": (changed("pooling_type", 9), "from 0 to 4"),
    "an unknown rope scaling": (changed("rope.scaling.type", "x", type=Type.STRING), "yarn"),
    "an output of another width": (changed("embedding_length_out", 64), "embedding_length_out"),
    "another width between": (changed("feed_forward_length", 48), "feed_forward_length"),
    "a dense layer of another width": (changed("dense_2_feat_in", 7), "dense_2_feat_in"),
    "positions that are missing": (changed("context_length", 512), "'position_embd.weight' to have 512 rows"),
    "words without vectors": (
        tensor("token_embd.weight", shape=(N_EMBD, 11), data=bytes(N_EMBD * 11 * 4)),
        "12 rows, words in the vocabulary",
    ),
    "a bias in halves": (
        tensor("blk.0.ffn_up.bias", type=1, data=bytes(N_FF * 2)),
        "stored as f32, found f16",
    ),
    "weights that cannot be multiplied": (tensor("blk.0.ffn_up.weight", type=26), "found i32"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_settings_that_llama_cpp_would_die_of_are_refused(path: Path, name: str) -> None:
    damage, part = DAMAGES[name]
    message = refusal(path, damage(small()))
    assert part in message
    assert "is damaged: expected" in message
    assert "Download it again" in message


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
