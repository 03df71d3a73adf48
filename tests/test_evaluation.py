"""Every system answers every query, and what it gave stands in the report."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ir_measures")

import tiny_models
from ggrank import Llama
from ggrank.evaluation import evaluate
from ggrank.evaluation.datasets import GivenRun, Query, TestSet, read_test_set
from ggrank.evaluation.report import Report, figure, set_facts, set_sections
from ggrank.evaluation.results import SetResult
from ggrank.evaluation.systems import Run, embed_documents, run_systems

SMALL_SET = Path(__file__).parent / "data" / "small_set"
TEST = read_test_set(SMALL_SET)
GIVEN = ([7, 2, 9, 4, 1, 8, 3], [], *([i, 29, 0] for i in range(10)))
"""Of another system: more documents than are reranked, none, and few."""


def load(model: str | Path) -> Llama:
    """One thread: threads of small models wait for each other longer than they compute on a busy machine."""
    return Llama.load(model, n_threads=1)


def nothing(_done: int) -> None:
    pass


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def runs(tiny: Path) -> dict[str, Run]:
    with load("all-minilm-l6-v2") as embedder, load(tiny) as reranker:
        vectors = embed_documents(embedder, TEST.documents, advance=nothing)
        found = run_systems(
            TEST,
            vectors,
            embedder=embedder,
            rerankers={"tiny": reranker},
            depths=(20, 1, 5, 100),
            given=[GivenRun("given", GIVEN)],
            advance=nothing,
        )
    return {run.system: run for run in found}


def test_systems_stand_in_order_first_stages_then_depths(runs: dict[str, Run]) -> None:
    depths = (1, 5, 20, 30)
    assert list(runs) == [
        *("embedder", "BM25", "RRF", "fusion", "given"),
        *(f"tiny@{depth}" for depth in depths),
        *(f"given + tiny@{depth}" for depth in depths),
    ]


def test_the_embedder_s_ranking_is_that_of_rank(runs: dict[str, Run]) -> None:
    with load("all-minilm-l6-v2") as embedder:
        for query, ranking in zip(TEST.queries[:3], runs["embedder"].rankings, strict=False):
            expected = [found.index for found in embedder.rank(query.text, TEST.documents)]
            assert ranking[:5] == expected[:5]


def test_fusion_is_the_sum_of_reciprocal_ranks(runs: dict[str, Run]) -> None:
    lists = zip(runs["embedder"].rankings, runs["BM25"].rankings, runs["RRF"].rankings, strict=True)
    for by_cosine, by_words, fused in lists:
        scores = [
            sum(1 / (61 + ranking.index(i)) for ranking in (by_cosine, by_words) if i in ranking)
            for i in range(len(TEST.documents))
        ]
        assert list(fused) == sorted(range(len(scores)), key=lambda i: (-scores[i], i))


def test_a_given_ranking_is_measured_and_reranked_as_the_embedder_s_is(
    runs: dict[str, Run], tiny: Path
) -> None:
    assert runs["given"].rankings == list(GIVEN)
    with load(tiny) as reranker:
        for query, given, reranked in zip(TEST.queries, GIVEN, runs["given + tiny@5"].rankings, strict=True):
            if not given:
                assert reranked == []
                continue
            logits = reranker.rerank(query.text, [TEST.documents[i] for i in given[:5]])
            order = [given[i] for i in sorted(range(len(logits)), key=lambda i: -logits[i])]
            assert reranked == [*order, *given[5:]]


def test_a_query_s_own_document_is_in_no_ranking() -> None:
    asked = Query("2", TEST.documents[2], {3: 1}, own=2)
    with load("all-minilm-l6-v2") as embedder:
        found = next(
            evaluate([replace(TEST, queries=(asked,))], embedder, given=[GivenRun("given", ([2, 3],))])
        )
        others = replace(TEST, documents=tuple(text for i, text in enumerate(TEST.documents) if i != 2))
        without = next(
            evaluate([replace(others, queries=(replace(asked, own=None, relevant={2: 1}),))], embedder)
        )
    for system in without.systems:
        assert found.system(system.system).metrics == system.metrics
    assert found.system("given").metrics["P@1"] == 1
    assert "queries whose own document is left out: 1" in set_facts(found)


@pytest.mark.parametrize("depth", [5, 20])
def test_a_reranker_orders_the_first_k_by_its_logits_and_leaves_the_rest(
    runs: dict[str, Run], tiny: Path, depth: int
) -> None:
    with load(tiny) as reranker:
        for query, first, reranked in zip(
            TEST.queries, runs["embedder"].rankings, runs[f"tiny@{depth}"].rankings, strict=True
        ):
            assert sorted(reranked[:depth]) == sorted(first[:depth])
            assert reranked[depth:] == first[depth:]
            logits = reranker.rerank(query.text, [TEST.documents[i] for i in reranked[:depth]]).tolist()
            assert logits == pytest.approx(sorted(logits, reverse=True), abs=1e-4)


def test_more_documents_than_there_are_is_all_of_them(runs: dict[str, Run]) -> None:
    assert all(sorted(ranking) == list(range(30)) for ranking in runs["tiny@30"].rankings)


def test_a_deeper_reranking_costs_what_the_shallower_one_did_and_more(runs: dict[str, Run]) -> None:
    given, five, twenty = (runs[f"given{name}"].ms for name in ("", " + tiny@5", " + tiny@20"))
    assert not any(given)
    assert all(a <= b for a, b in zip(five, twenty, strict=True))


class Counted:
    """A model, and how often each of its functions was called."""

    def __init__(self, model: Llama) -> None:
        self.model, self.calls = model, Counter[str]()

    def __getattr__(self, name: str) -> Any:
        self.calls[name] += 1
        return getattr(self.model, name)


def test_each_model_answers_once_before_the_first_query_is_timed(tiny: Path) -> None:
    with load("all-minilm-l6-v2") as embedder, load(tiny) as reranker:
        counted: Any = (Counted(embedder), Counted(reranker))
        vectors = embed_documents(embedder, TEST.documents, advance=nothing)
        rerankers = {"tiny": counted[1]}
        run_systems(TEST, vectors, embedder=counted[0], rerankers=rerankers, depths=(1,), advance=nothing)
    assert [counted[0].calls["embed"], counted[1].calls["rerank"]] == [1 + len(TEST.queries)] * 2


@pytest.fixture(scope="module")
def result(tiny: Path) -> SetResult:
    with load("all-minilm-l6-v2") as embedder, load(tiny) as reranker:
        return next(evaluate([TEST], embedder, {"tiny": reranker}, depths=(1, 20)))


def test_a_set_s_size_and_what_was_left_out_are_told(result: SetResult) -> None:
    assert [result.counts[name] for name in ("documents", "queries", "queries_in_all", "skipped")] == [
        30,
        12,
        12,
        1,
    ]


def test_reranking_one_document_changes_nothing(result: SetResult) -> None:
    one = result.system("tiny@1")
    assert one.lift is not None
    assert (one.lift.mean, one.lift.low, one.lift.high) == (0.0, 0.0, 0.0)
    assert (one.n_better, one.n_worse) == (0, 0)
    assert one.metrics == result.system("embedder").metrics


def test_a_lift_is_the_difference_of_the_means(result: SetResult) -> None:
    base = result.system("embedder")
    assert base.lift is None
    for system in result.systems[1:]:
        assert system.lift is not None
        assert system.lift.mean == pytest.approx(system.metrics["nDCG@10"] - base.metrics["nDCG@10"])
        assert system.lift.low <= system.lift.mean <= system.lift.high


def test_an_untrained_reranker_is_found_out(result: SetResult) -> None:
    lift = result.system("tiny@20").lift
    assert lift is not None
    assert lift.high < 0


def test_a_report_is_plain_json(result: SetResult) -> None:
    back = json.loads(json.dumps(Report((result,), {"command": "x"}).to_json()))
    assert back["sets"][0]["systems"][1]["metrics"] == result.system("BM25").metrics
    assert back["mean"]["BM25"]["nDCG@10"] == result.system("BM25").metrics["nDCG@10"]
    assert len(back["sets"][0]["systems"][-1]["most_worse"]) == 5


def test_every_markdown_table_has_as_many_cells_in_each_row(result: SetResult) -> None:
    text = Report((result, result), {"command": "a | b"}).to_markdown(explain=True)
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert tables[0][0] == "| system | mean | lift | small_set | small_set | ms |"


def test_markdown_tells_what_was_left_out_and_what_it_was_made_with(result: SetResult) -> None:
    models = {
        "embedder": {"file": "a.gguf", "quantization": "q8_0"},
        "rerankers": {"tiny": {"file": "b.gguf", "quantization": "f32"}},
    }
    lines = Report((result,), {**models, "command": "x", "device": "CPU"}).to_markdown().splitlines()
    assert "documents: 30, queries: 12, left out without a relevant document: 1" in lines
    listed = ["- embedder: a.gguf, q8_0", "- reranker tiny: b.gguf, f32", "- command: x", "- device: CPU"]
    assert lines[-4:] == listed


@pytest.fixture(scope="module")
def mixed(tiny: Path) -> Report:
    """A set of two documents before one of thirty."""
    few = TestSet("few", TEST.documents[:2], (Query("q", "high tide", {1: 1}),), 1)
    with load("all-minilm-l6-v2") as embedder, load(tiny) as reranker:
        return Report(tuple(evaluate([few, TEST], embedder, {"tiny": reranker})), {})


def test_depths_beyond_a_set_s_documents_are_run_once_and_told(mixed: Report) -> None:
    few, many = mixed.sets
    assert [one.system for one in few.systems if one.depth] == ["tiny@2"]
    assert [one.system for one in many.systems if one.depth] == ["tiny@10", "tiny@20", "tiny@30"]
    assert "@2 is all documents and stands for larger depths" in set_facts(few)


def test_a_mean_takes_the_largest_depth_of_a_set_that_is_smaller(mixed: Report) -> None:
    few, many = (one.systems[-1].metrics["nDCG@10"] for one in mixed.sets)
    assert mixed.to_json()["mean"]["tiny@30"]["nDCG@10"] == pytest.approx((few + many) / 2)


@pytest.mark.parametrize("n_sets", [1, 4])
def test_no_text_of_a_plot_lies_on_another(mixed: Report, n_sets: int) -> None:
    text_of = pytest.importorskip("matplotlib.text").Text
    close = tuple(
        replace(
            one,
            metrics={**one.metrics, "nDCG@10": 0.5},
            ms=90 + one.depth if one.depth else 1,
        )
        for one in mixed.sets[1].systems
    )
    sets = [replace(mixed.sets[1], name=f"a set with a long name {i}", systems=close) for i in range(n_sets)]
    picture = figure(Report(tuple(sets), {}))
    picture.draw_without_rendering()
    every_axis = [axis for axes in picture.axes for axis in (axes.xaxis, axes.yaxis)]
    not_drawn = {
        tick.label1
        for axis in every_axis
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
    }
    texts = [text for text in picture.findobj(text_of) if text.get_text() and text.get_visible()]
    boxes = {text: text.get_window_extent() for text in texts if text not in not_drawn}
    assert "tiny @ 10, 20, 30" in {text.get_text() for text in boxes}
    touching = [(a, b) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]
    assert touching == []


def test_no_two_of_eight_systems_look_alike_in_a_plot(mixed: Report) -> None:
    pytest.importorskip("matplotlib")
    first = mixed.sets[1].systems[0]
    names = [f"system {i}" for i in range(8)]
    systems = tuple(replace(first, system=name, family=name) for name in ("embedder", *names[1:]))
    lines = figure(Report((replace(mixed.sets[1], systems=systems),), {})).axes[0].get_lines()
    assert (
        len({(line.get_color(), line.get_marker()) for line in lines})
        == len({line.get_color() for line in lines})
        == 8
    )


def test_changed_queries_are_shown_with_their_texts_when_that_is_asked_for(result: SetResult) -> None:
    assert len(list(set_sections(result, explain=False))) == 1
    *_, harmed = set_sections(result, explain=True)
    assert harmed.title == "small_set: most harmed by tiny@20"
    worst = result.systems[-1].most_worse[0]
    assert [f"query, {worst.before:.2f} to {worst.after:.2f}", worst.query] in harmed.rows
    assert ["above it", worst.above] in harmed.rows
