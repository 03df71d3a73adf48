"""Settings that llama.cpp asserts, and would end the process over; and GGUFs that are no model."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
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


HEADS, EPSILON = "attention.head_count", "attention.layer_norm_epsilon"
DAMAGES: dict[str, tuple[Change, str]] = {
    "no context": (changed("context_length", 0), "bert.context_length"),
    "a context in words": (changed("context_length", "16", type=Type.STRING), "found '16'"),
    "a context for each layer": (changed("context_length", [1], type=Type.ARRAY, items=Type.INT32), "a list"),
    "no width": (changed("embedding_length", 0), "bert.embedding_length"),
    "no layers": (changed("block_count", 0), "from 1 to 512"),
    "absurdly many layers": (changed("block_count", 4_294_967_295), "found 4294967295"),
    "no layers but predicted ones": (changed("nextn_predict_layers", 1), "less than the 1 layers"),
    "no heads": (changed(HEADS, 0), "a whole number from 1"),
    "no heads in one layer": (changed(HEADS, [0], type=Type.ARRAY, items=Type.UINT32), "from 1"),
    "heads that do not divide": (changed(HEADS, 5), "a divisor of the embedding"),
    "more heads than width": (changed(HEADS, 64), "a divisor of the embedding"),
    "shared heads that do not divide": (changed("attention.head_count_kv", 3), "a divisor of the 4 heads"),
    "keys unlike values": (changed("attention.key_length", 4), "value_length"),
    "a negative epsilon": (changed(EPSILON, -1.0), "small positive"),
    "an epsilon that is no number": (changed(EPSILON, float("nan")), "found nan"),
    "an unknown pooling": (changed("pooling_type", 9), "from 0 to 4"),
    "an unknown rope scaling": (changed("rope.scaling.type", "x", type=Type.STRING), "yarn"),
    "experts of nobody": (changed("expert_used_count", 2), "expert_used_count"),
    "too many experts": (changed("expert_count", 5000), "1024 at most"),
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


def with_architecture(name: str, **facts: int) -> Gguf:
    keys = {key.name.replace("bert.", f"{name}.", 1): key for key in small().keys}
    file = Gguf((), small().tensors)
    for new, key in keys.items():
        value = name if key.name == "general.architecture" else key.value
        file = file.with_key(new, value, type=key.type, items=key.items)
    for fact, value in facts.items():
        file = file.with_key(f"{name}.{fact.replace('__', '.')}", value)
    return file


@pytest.mark.parametrize("n_rotated", [7, 16])
def test_a_rotation_that_does_not_fit_a_head_is_refused(path: Path, n_rotated: int) -> None:
    file = with_architecture("nomic-bert", rope__dimension_count=n_rotated)
    assert "an even number up to 8" in refusal(path, file)


def test_an_architecture_that_rotates_whole_heads_must_say_so(path: Path) -> None:
    assert "8, the width of a head" in refusal(path, with_architecture("qwen3", rope__dimension_count=4))


def test_heads_of_an_architecture_without_attention_are_left_alone(path: Path) -> None:
    path.write_bytes(with_architecture("mamba", attention__head_count=0).to_bytes())
    assert open_gguf(path).architecture == "mamba"


@pytest.mark.parametrize("pattern", [0, 1])
def test_windows_in_all_layers_or_in_none_are_refused(path: Path, pattern: int) -> None:
    facts = {"block_count": 4, "attention__sliding_window": 8, "attention__sliding_window_pattern": pattern}
    message = refusal(path, with_architecture("modern-bert", **facts))
    assert "layers with a window and layers without" in message


@pytest.mark.parametrize(("windows", "fits"), [([0, 1, 1, 1], True), ([1], True), ([1] * 4, False)])
def test_a_list_of_windows_needs_both_kinds(path: Path, windows: list[int], fits: bool) -> None:
    file = with_architecture("modern-bert", block_count=4, attention__sliding_window=8)
    name = "modern-bert.attention.sliding_window_pattern"
    path.write_bytes(file.with_key(name, windows, type=Type.ARRAY, items=Type.BOOL).to_bytes())
    with nullcontext() if fits else pytest.raises(ModelFileError, match="layers without"):
        open_gguf(path)


def test_experts_that_fit_are_left_alone(path: Path) -> None:
    path.write_bytes(with_architecture("nomic-bert-moe", expert_count=8, expert_used_count=2).to_bytes())
    assert open_gguf(path).architecture == "nomic-bert-moe"


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
