"""The benchmark's figures, texts and processes; no test looks at how long anything took."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from ggrank import Llama
from ggrank.benchmark import measured_peak
from ggrank.benchmark.cells import CALLERS, SIZES, CellMaker
from ggrank.benchmark.measuring import Begun, Failed, Sample, attempt, cell_maker
from ggrank.benchmark.models import BenchModel, models_in
from ggrank.benchmark.processes import Worker
from ggrank.benchmark.ratios import agreement, spread, times_as_fast
from ggrank.benchmark.report import Report
from ggrank.benchmark.subjects import Subject
from ggrank.benchmark.subjects.available import Wish, reference_for, subjects_for
from ggrank.benchmark.tables import to_markdown
from ggrank.benchmark.texts import Writer
from ggrank.errors import EngineError, InputError, ModelNotFoundError

seconds = st.floats(1e-4, 1e4)
rounds = st.lists(seconds, min_size=1, max_size=20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the folder of a reranker, in float32 and q8_0."""
    folder = tmp_path_factory.mktemp("models")
    for dtype in ("f32", "q8_0"):
        tiny_models.write("xlmr-reranker-512", folder / "tiny", dtype=dtype)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> BenchModel:
    return models_in(folder)[0]


# -- figures


@given(rounds)
def test_a_median_lies_between_its_quartiles_and_both_among_the_values(values: list[float]) -> None:
    found = spread(values)
    assert min(values) <= found.low <= found.median <= found.high <= max(values)


@given(rounds, st.floats(0.01, 100))
def test_a_spread_grows_with_its_values(values: list[float], factor: float) -> None:
    found, scaled = spread(values), spread([factor * value for value in values])
    assert (scaled.low, scaled.median, scaled.high) == pytest.approx(
        (factor * found.low, factor * found.median, factor * found.high)
    )


@given(rounds, st.floats(0.01, 100))
def test_a_peer_that_is_slower_by_a_factor_in_every_round_gives_that_factor(
    own: list[float], factor: float
) -> None:
    found = times_as_fast(own, [factor * one for one in own])
    assert (found.low, found.median, found.high) == pytest.approx((factor, factor, factor))


@given(st.lists(st.tuples(seconds, seconds, st.floats(0.1, 10)), min_size=1, max_size=20))
def test_a_machine_that_slows_down_for_some_rounds_changes_no_ratio(
    pairs: list[tuple[float, float, float]],
) -> None:
    own, theirs = [a for a, _, _ in pairs], [b for _, b, _ in pairs]
    slow = times_as_fast([a * load for a, _, load in pairs], [b * load for _, b, load in pairs])
    assert slow.median == pytest.approx(times_as_fast(own, theirs).median)


@given(st.lists(st.tuples(seconds, seconds), min_size=1, max_size=9).filter(lambda pairs: len(pairs) % 2))
def test_the_other_way_round_the_ratio_is_the_reciprocal(pairs: list[tuple[float, float]]) -> None:
    own, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    assert times_as_fast(own, theirs).median == pytest.approx(1 / times_as_fast(theirs, own).median)


def test_no_rounds_have_no_spread() -> None:
    with pytest.raises(ValueError, match="found none"):
        spread([])


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=30), st.floats(0.1, 9), st.floats(-9, 9))
def test_logits_on_another_scale_correlate_fully_and_differ(
    logits: list[float], scale: float, shift: float
) -> None:
    own = np.array(logits)
    if np.ptp(own) < 1e-3:
        own = np.arange(len(logits), dtype=float)
    found = agreement([scale * own + shift], [own])
    assert (found.measure, found.value) == ("correlation", pytest.approx(1))
    assert found.largest_difference == pytest.approx(float(np.abs(scale * own + shift - own).max()))


def test_the_correlation_is_numpys() -> None:
    own, other = np.random.default_rng(0).standard_normal((2, 50))
    found = agreement([own[:20], own[20:]], [other[:20], other[20:]])
    assert found.value == pytest.approx(np.corrcoef(own, other)[0, 1])


def test_vectors_are_compared_by_cosine() -> None:
    vectors = np.eye(4)
    assert agreement([vectors], [vectors]).value == pytest.approx(1)
    found = agreement([vectors], [vectors[[1, 0, 2, 3]]])  # two of four are at right angles
    assert (found.measure, found.value, found.largest_difference) == ("cosine", pytest.approx(0.5), 1)


def test_scores_of_other_texts_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same shapes"):
        agreement([np.zeros(3)], [np.zeros(4)])


# -- texts and cells


@given(st.integers(1, 60))
def test_a_passage_has_the_tokens_that_were_asked_for(n_tokens: int) -> None:
    assert len(Writer(lambda text: len(text.split())).passage(n_tokens).split()) == n_tokens


def test_the_same_texts_come_every_time_and_none_comes_twice() -> None:
    def passages() -> list[str]:
        writer = Writer(lambda text: len(text.split()))
        return [writer.passage(1 + i % 3) for i in range(300)]

    assert passages() == passages()
    assert len(set(passages())) == 300


def test_mixed_lengths_are_many_short_and_few_long_ones() -> None:
    lengths = Writer(len).lengths(1000, least=20, most=450)
    assert min(lengths) >= 20
    assert max(lengths) <= 450
    assert np.median(lengths) < np.mean(lengths)


def test_a_cell_counts_the_tokens_that_the_model_reads(model: BenchModel) -> None:
    with cell_maker(model) as maker:
        cells = list(maker.cells(SIZES["smallest"]))
    with Llama.load(model.ggufs["f32"], n_ctx=model.n_ctx) as llama:
        for cell in cells:
            rankings = [llama.rank(one.query, one.documents) for one in cell.requests]
            assert sum(ranking.n_tokens for ranking in rankings) == cell.n_tokens
            assert not any(hit.truncated for ranking in rankings for hit in ranking)
    assert [len(cell.requests) for cell in cells] == [1, 1, 1, 1, CALLERS]


def test_an_embedders_texts_have_the_length_of_the_cell() -> None:
    with Llama.load("all-minilm-l6-v2") as llama:
        maker = CellMaker(
            lambda text: len(llama.tokenize(text)), n_special=2, n_ctx=llama.n_ctx, is_reranker=False
        )
        counts = [llama.count_tokens(text) for text in maker.uniform("", 20, 64).requests[0].documents]
    assert all(60 <= count <= 64 for count in counts)  # whole words


# -- models and subjects


def test_a_folder_of_models_and_the_folder_of_one_give_the_same(folder: Path, model: BenchModel) -> None:
    assert models_in(folder / "tiny") == [model]
    assert (model.name, model.job, sorted(model.ggufs)) == ("tiny", "rerank", ["f32", "q8_0"])
    layer = 4 * 64 * 64 + 2 * 64 * 128  # attention's four matrices and the two behind it
    assert model.n_layer_parameters == 2 * layer


def test_files_side_by_side_are_models_by_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "side by side"
    folder.mkdir()
    names = {"f32": "-F32.gguf", "q8_0": ".gguf"}
    for kind, model in (("xlmr-reranker-512", "a"), ("bert-mean", "b")):
        for dtype, ending in names.items():
            shutil.copy(tiny_models.write(kind, tmp_path, dtype=dtype), folder / f"{model}{ending}")
    found = [(model.name, model.job, sorted(model.ggufs)) for model in models_in(folder)]
    assert found == [("a", "rerank", ["f32", "q8_0"]), ("b", "embed", ["f32", "q8_0"])]


def test_two_files_of_one_model_and_quantization_are_refused(tmp_path: Path) -> None:
    path = tiny_models.write("bert-mean", tmp_path, dtype="q8_0")
    path.rename(tmp_path / "b-q8_0.gguf")
    shutil.copy(tmp_path / "b-q8_0.gguf", tmp_path / "b.gguf")
    with pytest.raises(InputError, match=r"b-q8_0.gguf \(q8_0\), b.gguf \(q8_0\)"):
        models_in(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"make_benchmark_models\.py"):
        models_in(tmp_path)


def test_what_cannot_be_measured_is_left_out_with_its_reason(model: BenchModel) -> None:
    found, missing = subjects_for(model, Wish(1, engines=("llama.cpp",)))
    assert [subject.name for subject in found] == ["ggrank llama.cpp q8_0"]
    reasons = {one.name: one.reason for one in missing}
    assert "--llama-server" in reasons["llama-server q8_0"]
    assert reasons["sentence-transformers fp32"]
    assert reasons["onnxruntime int8"]
    assert not any("q4_k_m" in name for name in reasons), "the model has no such file"


def test_only_what_is_named_is_measured(model: BenchModel) -> None:
    found, missing = subjects_for(model, Wish(1, server="llama-server", only=("server",)))
    assert [subject.name for subject in found] == ["llama-server q8_0"]
    assert missing == []


# -- processes


def test_a_process_gives_the_scores_that_this_one_gives(model: BenchModel) -> None:
    subject = reference_for(model, Wish(1))
    assert subject is not None
    with cell_maker(model) as maker:
        cell = maker.uniform("", 5, 40)
    with Worker(subject, n_threads=1) as worker:
        worker.load()
        run = worker.run(cell, scores=True)
    assert run.scores is not None
    assert run.seconds > 0
    if sys.platform == "linux":
        assert run.peak_bytes is not None
        assert run.peak_bytes > 10_000_000
    with Llama.load(subject.path, n_ctx=model.n_ctx, engine="llama.cpp", n_threads=1) as llama:
        expected = llama.rerank(cell.requests[0].query, cell.requests[0].documents)
    np.testing.assert_allclose(run.scores[0], expected, atol=1e-4)


def test_a_process_that_ends_is_told_by_its_last_words_and_asked_no_more(tmp_path: Path) -> None:
    lost = Subject("lost", "ggrank", "q8_0", str(tmp_path / "lost.gguf"), "rerank", 512, 1, "llama.cpp")
    with Worker(lost, n_threads=1) as worker:
        left = {"lost": worker}
        failed = attempt("tiny", left, "lost", Worker.load)
        with pytest.raises(EngineError):
            worker.load()
    assert isinstance(failed, Failed)
    assert "lost.gguf" in failed.reason
    assert left == {}


def test_the_matrix_product_is_measured() -> None:
    assert measured_peak(1) > 1e8


# -- report


def test_a_peer_is_compared_with_the_fastest_ggrank_and_llama_server_on_its_own_file(
    model: BenchModel,
) -> None:
    def subject(name: str) -> Subject:
        kind, _, variant = name.partition(" ")
        return Subject(name, kind, variant, "", "rerank", 512, 1)

    names = ["ggrank q4_k_m", "ggrank q8_0", "llama-server q4_k_m", "sentence-transformers fp32"]
    with cell_maker(model) as maker:
        cell = maker.uniform("a cell", 3, 30)
    begun = Begun(model, (cell,), tuple(map(subject, names)), ())
    taken = dict(zip(names, (2.0, 1.0, 3.0, 8.0), strict=True))
    samples = [Sample("tiny", name, cell.name, t) for _ in range(3) for name, t in taken.items()]
    report = Report.of([begun, *samples], {"flops": 1e9})
    subjects = {one["name"]: one for one in report.to_json()["models"][0]["subjects"]}
    ratios = {
        name: (one["compared_with"], one["cells"][cell.name]["ggrank_times_as_fast"])
        for name, one in subjects.items()
    }
    even = {"median": 1.5, "low": 1.5, "high": 1.5}
    assert ratios["llama-server q4_k_m"] == ("ggrank q4_k_m", even)
    assert ratios["sentence-transformers fp32"][0] == "ggrank q8_0"
    assert ratios["sentence-transformers fp32"][1]["median"] == 8
    assert ratios["ggrank q8_0"] == (None, None)
    speed = subjects["ggrank q8_0"]["cells"][cell.name]["tokens_per_second"]["median"]
    assert speed == cell.n_tokens
    assert subjects["ggrank q8_0"]["share_of_peak"] == 2 * model.n_layer_parameters * speed / 1e9
    assert "| llama-server q4_k_m | ggrank q4_k_m | **1.50** [1.50, 1.50] |" in to_markdown(report)


def test_what_was_measured_before_an_interruption_is_reported(model: BenchModel) -> None:
    assert Report.of([], {"flops": 0.0}).to_json()["models"] == []
    text = to_markdown(Report.of([Begun(model, (), (), ())], {"flops": 0.0}))
    assert text.startswith("## tiny")
