"""Metrics are trec_eval's, intervals the bootstrap's, and changed queries come with the texts that moved."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ir_measures")

from ggrank.evaluation.datasets import Query, TestSet
from ggrank.evaluation.results import METRICS, RESAMPLES, bootstrap, find_changes, measure


def test_ndcg_is_that_of_the_worked_example() -> None:
    # Grades 3 2 3 0 1 2 in the order of a ranking: DCG 6.861, ideal 7.141, nDCG 0.961.
    # https://en.wikipedia.org/wiki/Discounted_cumulative_gain
    values = measure([[0, 1, 2, 3, 4, 5]], [{0: 3, 1: 2, 2: 3, 4: 1, 5: 2}])
    assert values["nDCG@10"][0] == pytest.approx(0.961, abs=5e-4)


def test_reciprocal_rank_recall_and_precision_by_hand() -> None:
    rankings = [[9, 8, 7, 6, 5, 1], [1, 2, *range(10, 30)], []]
    values = measure(rankings, [{1: 1}, {2: 1, 3: 1, 29: 1, 28: 1}, {4: 1}])
    assert values["MRR@5"].tolist() == [0.0, 0.5, 0.0]
    assert values["MRR@10"].tolist() == pytest.approx([1 / 6, 0.5, 0.0])
    assert values["recall@5"].tolist() == [0.0, 0.25, 0.0]
    assert values["recall@20"].tolist() == [1.0, 0.25, 0.0]
    assert values["recall@100"].tolist() == [1.0, 0.75, 0.0]
    assert values["P@1"].tolist() == [0.0, 0.0, 0.0]


def test_order_counts_even_where_names_sort_otherwise() -> None:
    # trec_eval breaks ties by document name, "9" before "10"; ranks must win.
    values = measure([[10, 9, 8], [8, 9, 10]], [{10: 1}, {10: 1}])
    assert values["MRR@10"].tolist() == pytest.approx([1.0, 1 / 3])


def test_no_query_has_no_values() -> None:
    assert {name: len(values) for name, values in measure([], []).items()} == dict.fromkeys(METRICS, 0)


def test_the_interval_of_a_normal_sample_is_the_textbook_s() -> None:
    differences = np.random.default_rng(3).normal(0.1, 1.0, 4000)
    found = bootstrap(differences)
    half = 1.96 * differences.std() / np.sqrt(4000)
    assert found.mean == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - half, abs=0.002)
    assert found.high == pytest.approx(differences.mean() + half, abs=0.002)


def test_the_interval_of_a_skewed_sample_is_scipy_s() -> None:
    stats = pytest.importorskip("scipy.stats")
    differences = np.random.default_rng(5).exponential(0.2, 60) - 0.15
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    found = bootstrap(differences)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.003)


def test_the_interval_is_the_same_every_time() -> None:
    differences = np.random.default_rng(7).normal(size=50)
    assert bootstrap(differences) == bootstrap(differences)


DOCUMENTS = ("a", "b", "c", "d")


def test_changed_queries_come_with_the_document_that_moved_and_the_one_above_it() -> None:
    relevant = [{0: 1}, {2: 1}, {1: 1, 3: 2}, {3: 1}]
    test = TestSet("t", DOCUMENTS, tuple(Query(str(i), f"query {i}", g) for i, g in enumerate(relevant)))
    before = ([0, 1, 2], [1, 0, 2], [1, 3, 0], [0, 1, 2])
    after = ([0, 2, 1], [2, 1, 0], [1, 0, 3], [0, 3, 1])
    ndcg = [measure(rankings, relevant)["nDCG@10"] for rankings in (before, after)]
    # 0 to 1/log2(3), and 1/2 to 1
    (third, second), (worse,) = find_changes(test, before, after, *ndcg)
    assert (third.query, third.rank_before, third.rank_after, third.above) == ("query 3", None, 2, "a")
    assert (second.relevant, second.rank_before, second.rank_after, second.above) == ("c", 3, 1, "b")
    assert (worse.query, worse.relevant, worse.rank_before, worse.rank_after) == ("query 2", "d", 2, 3)
    assert worse.above == "a"  # not "b", which is relevant
    assert worse.after < worse.before
