"""Scores and their order."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggrank import InputError, ModelModeError
from ggrank.scoring import (
    best_first,
    choose_scale,
    cosine,
    l2_normalize,
    reciprocal_rank_fusion,
    sigmoid,
    top_k,
)

logits = st.floats(min_value=-500, max_value=500, width=32)


@given(logits)
def test_sigmoid_is_the_textbook_formula(x: float) -> None:
    assert sigmoid(np.float32([x]))[0] == pytest.approx(1 / (1 + math.exp(-x)), abs=1e-6)


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), max_size=50))
def test_best_comes_first_and_ties_keep_the_input_order(scores: list[float]) -> None:
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert best_first(np.array(scores, dtype=np.float32)).tolist() == expected


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), max_size=50), st.integers(1, 60))
def test_the_top_k_are_the_first_k_of_the_whole_order(scores: list[float], k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    assert top_k(np.array(scores, dtype=np.float32), k).tolist() == expected


def test_fused_ranks_are_the_paper_s_sum() -> None:
    # 7 is first in one; 8 second and first; 9 third; 5 second: worked by hand with k = 60.
    fused = reciprocal_rank_fusion([[7, 8, 9], [8, 5]])
    assert [one.position for one in fused] == [8, 7, 5, 9]
    assert [one.score for one in fused] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63])


def test_cosine_equals_the_angle_between_vectors() -> None:
    angle = np.float32([math.cos(0.3), math.sin(0.3)])
    assert cosine(np.float32([1, 0]), angle[None])[0] == pytest.approx(math.cos(0.3), abs=1e-6)


def test_a_zero_vector_stays_zero_instead_of_nan() -> None:
    assert l2_normalize(np.zeros((2, 3), dtype=np.float32)).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("score", "own", "expected"),
    [
        ("auto", "cosine", "cosine"),
        ("auto", "logit", "logit"),
        ("sigmoid", "logit", "sigmoid"),
        ("sigmoid", "probability", "probability"),
    ],
)
def test_a_probability_is_never_squashed_again(score: str, own: str, expected: str) -> None:
    assert choose_scale(score, own=own, model="m") == expected  # type: ignore[arg-type]


def test_a_scale_that_the_model_cannot_give_is_refused() -> None:
    with pytest.raises(ModelModeError, match="loaded to embed"):
        choose_scale("logit", own="cosine", model="m")
    with pytest.raises(ModelModeError, match="loaded to rerank"):
        choose_scale("cosine", own="logit", model="m")
    with pytest.raises(InputError, match="softmax"):
        choose_scale("softmax", own="logit", model="m")  # type: ignore[arg-type]
