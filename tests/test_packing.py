"""Packing: every sequence once, budgets held, input order restorable."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggrank.packing import plan_micro_batches

lengths = st.lists(st.integers(min_value=1, max_value=64), max_size=300)


@given(lengths, st.integers(64, 512), st.integers(1, 256))
def test_every_sequence_is_computed_exactly_once(lengths: list[int], tokens: int, sequences: int) -> None:
    batches = plan_micro_batches(lengths, max_tokens=tokens, max_sequences=sequences)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(len(lengths)))


@given(lengths, st.integers(64, 512), st.integers(1, 256))
def test_no_micro_batch_is_over_a_budget_and_none_is_empty(
    lengths: list[int], tokens: int, sequences: int
) -> None:
    for batch in plan_micro_batches(lengths, max_tokens=tokens, max_sequences=sequences):
        assert batch.n_tokens == sum(lengths[i] for i in batch.indices) <= tokens
        assert 1 <= len(batch.indices) <= sequences


@given(lengths, st.integers(64, 512))
def test_nothing_is_wasted_two_neighbours_never_fit_into_one(lengths: list[int], tokens: int) -> None:
    batches = plan_micro_batches(lengths, max_tokens=tokens, max_sequences=1_000)
    for left, right in pairwise(batches):
        assert left.n_tokens + max(lengths[i] for i in right.indices) > tokens


def test_sequences_of_like_length_ride_together() -> None:
    batches = plan_micro_batches([50, 2, 50, 2, 2], max_tokens=100, max_sequences=8)
    assert [batch.indices for batch in batches] == [(0, 2), (1, 3, 4)]


def test_a_sequence_over_the_budget_is_refused_before_the_engine_sees_it() -> None:
    with pytest.raises(ValueError, match="sequence 1 has 11 tokens"):
        plan_micro_batches([3, 11], max_tokens=10, max_sequences=4)
