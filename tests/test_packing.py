"""Packing: every sequence once, budgets held, input order restorable, nothing wasted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggrank.text.packing import ATTENTION_FACTOR, PADDING_COST, START_TOKENS, plan_micro_batches
from ggrank.types import Attention

KINDS: tuple[Attention, ...] = ("packed", "full", "padded")


@dataclass(frozen=True)
class Task:
    """What the planner is asked."""

    lengths: list[int]
    max_tokens: int
    max_sequences: int
    attention: Attention
    n_embd: int

    def plan(self) -> list[list[int]]:
        return plan_micro_batches(
            self.lengths,
            max_tokens=self.max_tokens,
            max_sequences=self.max_sequences,
            attention=self.attention,
            n_embd=self.n_embd,
        )

    def runs(self) -> list[list[int]]:
        """The lengths in each micro-batch."""
        return [[self.lengths[i] for i in batch] for batch in self.plan()]

    def waste(self, run: Sequence[int]) -> float:
        """Work for strangers or padding, token by token, in linear layers of one token."""
        if self.attention == "padded":
            return PADDING_COST * sum(max(run) - length for length in run)
        if self.attention == "full":
            n_strangers = sum(length * (sum(run) - length) for length in run)
            return n_strangers * ATTENTION_FACTOR * 2 * self.n_embd / (12 * self.n_embd**2)
        return 0.0

    def work(self, run: Sequence[int]) -> float:
        """All that a micro-batch costs."""
        own = 0.0
        if self.attention == "full":
            own = sum(length**2 for length in run) * ATTENTION_FACTOR * 2 / (12 * self.n_embd)
        return START_TOKENS + sum(run) + own + self.waste(run)

    def may_be_one(self, run: Sequence[int]) -> bool:
        """Whether these may share a micro-batch."""
        within = sum(run) <= self.max_tokens and len(run) <= self.max_sequences
        return within and self.waste(run) <= self.most_waste(run) + 1e-9

    def most_waste(self, run: Sequence[int]) -> float:
        """A tenth of the work for strangers; for padding what another micro-batch would cost."""
        return 0.1 * self.work(run) if self.attention == "full" else START_TOKENS


tasks = st.builds(
    Task,
    lengths=st.lists(st.integers(1, 64), max_size=300),
    max_tokens=st.integers(64, 1024),
    max_sequences=st.integers(1, 256),
    attention=st.sampled_from(KINDS),
    n_embd=st.sampled_from([32, 384, 768, 4096]),
)


@given(tasks)
def test_every_sequence_is_computed_exactly_once(task: Task) -> None:
    assert sorted(i for batch in task.plan() for i in batch) == list(range(len(task.lengths)))


@given(tasks)
def test_no_micro_batch_is_over_a_budget_and_none_is_empty(task: Task) -> None:
    for run in task.runs():
        assert 1 <= len(run) <= task.max_sequences
        assert sum(run) <= task.max_tokens


@given(tasks)
def test_results_written_to_a_micro_batchs_indices_are_in_input_order(task: Task) -> None:
    results: list[tuple[int, int] | None] = [None] * len(task.lengths)
    numbered = list(enumerate(task.lengths))
    for batch in task.plan():
        computed = [numbered[i] for i in batch]  # an engine's answers, one for each sequence
        for i, result in zip(batch, computed, strict=True):
            results[i] = result
    assert results == numbered


@given(tasks)
def test_strangers_get_a_tenth_of_the_work_at_most_and_padding_what_a_start_costs(task: Task) -> None:
    for run in task.runs():
        assert task.waste(run) <= task.most_waste(run) + 1e-9


@given(tasks)
def test_nothing_is_wasted_no_micro_batch_could_have_taken_the_next_sequence_too(task: Task) -> None:
    for run, following in pairwise(task.runs()):
        assert not task.may_be_one([*run, following[0]])


@given(tasks)
def test_the_longest_go_first_and_sequences_of_like_length_together(task: Task) -> None:
    assert [length for run in task.runs() for length in run] == sorted(task.lengths, reverse=True)


@given(tasks)
def test_packed_the_tokens_and_sequences_fill_their_budgets_at_least_by_half(task: Task) -> None:
    packed = Task(task.lengths, task.max_tokens, task.max_sequences, "packed", task.n_embd)
    by_tokens, by_sequences = sum(task.lengths) / task.max_tokens, len(task.lengths) / task.max_sequences
    assert len(packed.plan()) <= 2 * by_tokens + by_sequences + 1


@given(tasks)
def test_packed_no_cut_of_the_sorted_list_gives_fewer_micro_batches(task: Task) -> None:
    packed = Task(task.lengths[:40], task.max_tokens, 8, "packed", task.n_embd)
    falling = sorted(packed.lengths, reverse=True)
    fewest = [0] * (len(falling) + 1)  # of the sequences from each position to the end
    for start in reversed(range(len(falling))):
        stops = range(start + 1, min(start + 8, len(falling)) + 1)
        allowed = [stop for stop in stops if packed.may_be_one(falling[start:stop])]
        fewest[start] = 1 + min(fewest[stop] for stop in allowed)
    assert len(packed.plan()) == fewest[0]


@given(tasks)
def test_padded_padding_and_starts_cost_at_most_twice_those_of_the_best_cut(task: Task) -> None:
    padded = Task(task.lengths[:40], task.max_tokens, 8, "padded", task.n_embd)
    falling = sorted(padded.lengths, reverse=True)
    least = [0.0] * (len(falling) + 1)  # padding and starts, from each position to the end
    for start in reversed(range(len(falling))):
        stops = range(start + 1, min(start + 8, len(falling)) + 1)
        runs = ((falling[start:stop], stop) for stop in stops)
        allowed = [(run, stop) for run, stop in runs if sum(run) <= padded.max_tokens]
        least[start] = START_TOKENS + min(padded.waste(run) + least[stop] for run, stop in allowed)
    assert sum(START_TOKENS + padded.waste(run) for run in padded.runs()) <= 2 * least[0]


def test_packed_the_last_two_of_130_sequences_ride_alone_and_cost_no_more_for_it() -> None:
    even = Task([32] * 130, 8192, 128, "packed", 768)
    assert [len(run) for run in even.runs()] == [128, 2]
    assert sum(map(even.work, even.runs())) == 2 * even.work([32] * 65)


def test_strangers_keep_apart_where_attention_sees_the_whole_micro_batch() -> None:
    def n_together(length: int, n_embd: int) -> int:
        return len(Task([length] * 500, 8192, 256, "full", n_embd).runs()[0])

    assert [n_together(length, 384) for length in (8, 32, 128)] == [5, 2, 1]
    assert [n_together(length, 768) for length in (8, 32, 128)] == [8, 2, 1]
    assert n_together(32, 4096) > n_together(32, 768)


def test_a_short_sequence_is_not_padded_to_a_long_one() -> None:
    assert Task([400, 20, 20, 390, 20], 2048, 128, "padded", 768).runs() == [[400, 390], [20, 20, 20]]


def test_sequences_of_like_length_ride_together() -> None:
    batches = Task([50, 2, 50, 2, 2], 100, 8, "packed", 768).plan()
    assert batches == [[0, 2], [1, 3, 4]]


@pytest.mark.parametrize("attention", KINDS)
def test_nothing_gives_no_micro_batches(attention: Attention) -> None:
    assert Task([], 100, 8, attention, 768).plan() == []


def test_a_sequence_over_the_budget_is_refused_before_the_engine_sees_it() -> None:
    with pytest.raises(ValueError, match="sequence 1 has 11 tokens"):
        Task([3, 11], 10, 4, "packed", 768).plan()
