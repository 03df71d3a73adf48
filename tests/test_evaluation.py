"""Test sets are read as their files say, metrics are trec_eval's, and lifts compare the same queries."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import tiny_models
from ggrank import InputError, Llama
from ggrank.evaluation import evaluate
from ggrank.evaluation.datasets import Query, TestSet, read_test_set, sample
from ggrank.evaluation.metrics import bootstrap, measure
from ggrank.evaluation.report import Report

DOCUMENTS = {
    "d1": ("Llamas", "They live in the Andes and carry loads."),
    "d2": ("", "Paris is the capital of France."),
    "d3": ("", "Bread is baked from flour, water and yeast."),
    "d4": ("", "Rust is a systems programming language."),
}
QUERIES = {"q1": "Where do llamas live?", "q2": "What is bread made of?", "q3": "Who wrote this?"}
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td3\t1\nq3\tnowhere\t1\n"


def write_beir(folder: Path, *, packed: bool = False, qrels: str = "qrels.tsv") -> Path:
    corpus = [{"_id": name, "title": title, "text": text} for name, (title, text) in DOCUMENTS.items()]
    queries = [{"_id": name, "text": text} for name, text in QUERIES.items()]
    write(folder / "corpus.jsonl", "\n".join(map(json.dumps, corpus)), packed=packed)
    write(folder / "queries.jsonl", "\n".join(map(json.dumps, queries)), packed=packed)
    write(folder / qrels, QRELS, packed=packed)
    return folder


def write(path: Path, text: str, *, packed: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if packed:
        path = path.with_name(f"{path.name}.gz")
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("qrels", ["qrels.tsv", "qrels/test.tsv"])
def test_a_beir_folder_is_read_plain_or_packed(tmp_path: Path, packed: bool, qrels: str) -> None:
    test = read_test_set(write_beir(tmp_path / "zoo", packed=packed, qrels=qrels))
    assert (test.name, test.documents[0]) == ("zoo", "Llamas They live in the Andes and carry loads.")
    assert test.queries == (Query("q1", QUERIES["q1"], {0: 2}), Query("q2", QUERIES["q2"], {2: 1}))


def test_a_query_without_a_relevant_document_is_left_out_and_counted(tmp_path: Path) -> None:
    test = read_test_set(write_beir(tmp_path))
    assert (test.n_skipped, len(test.queries)) == (1, 2)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.tsv", 'query\tpassage\nsize of a "cat"\tsmall\nanimal\tsmall\nanimal\ta llama\n'),
        ("pairs.csv", '"size of a ""cat""",small\nanimal,small\nanimal,a llama\n'),
        (
            "pairs.jsonl",
            '{"query": "size of a \\"cat\\"", "passage": "small"}\n{"query": "animal", "positive": "small"}\n'
            '{"query": "animal", "passage": "a llama"}\n',
        ),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_of_pairs_is_a_set_of_its_distinct_passages(
    tmp_path: Path, name: str, text: str, packed: bool
) -> None:
    test = read_test_set(write(tmp_path / name, text, packed=packed))
    assert (test.name, test.documents) == ("pairs", ("small", "a llama"))
    assert test.queries == (Query("0", 'size of a "cat"', {0: 1}), Query("1", "animal", {0: 1, 1: 1}))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "only one column\n", r"a\.tsv:1: expected two columns, query and passage, found 1"),
        ("a.tsv", "q\t \n", r"a\.tsv:1: the query or the passage is empty"),
        ("a.jsonl", '{"query": 3}\n', r"a\.jsonl:1: expected"),
        ("a.jsonl", "[\n", r"a\.jsonl:1: expected"),
        ("a.csv", "", r"no \(query, passage\) pair"),
        ("a.txt", "q\tp\n", r"expected a BEIR folder, or pairs"),
    ],
)
def test_a_file_of_another_form_is_refused_by_line(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_test_set(write(tmp_path / name, text))


def test_a_packed_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "query\tpassage\n" * 99, packed=True)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(InputError, match=r"a\.tsv\.gz"):
        read_test_set(path)


@pytest.mark.parametrize("missing", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_folder_without_one_of_its_files_is_refused_with_its_name(tmp_path: Path, missing: str) -> None:
    (write_beir(tmp_path) / missing).unlink()
    with pytest.raises(InputError, match=missing):
        read_test_set(tmp_path)


def test_qrels_of_other_ids_are_refused(tmp_path: Path) -> None:
    (write_beir(tmp_path) / "qrels.tsv").write_text("q9\td1\t1\n", "utf-8")
    with pytest.raises(InputError, match="the ids in qrels must be those of the files"):
        read_test_set(tmp_path)


def test_a_sample_is_always_the_same_and_in_order() -> None:
    queries = tuple(Query(str(i), "?", {0: 1}) for i in range(100))
    test = TestSet("a", ("text",), queries, n_queries_in_all=100)
    first, again = sample(test, 10), sample(test, 10)
    assert first == again
    assert [int(query.id) for query in first.queries] == sorted(int(query.id) for query in first.queries)
    assert (len(first.queries), first.n_queries_in_all) == (10, 100)


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


def test_the_interval_of_a_normal_sample_is_the_textbook_s() -> None:
    differences = np.random.default_rng(3).normal(0.1, 1.0, 4000)
    found = bootstrap(differences)
    half = 1.96 * differences.std() / np.sqrt(4000)
    assert found.mean == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - half, abs=0.002)
    assert found.high == pytest.approx(differences.mean() + half, abs=0.002)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("evaluation")
    test = read_test_set(write_beir(folder / "zoo"))
    reranker = tiny_models.write("bert-reranker", folder)
    with Llama.load("all-minilm-l6-v2") as embedder, Llama.load(reranker) as tiny:
        return Report(tuple(evaluate([test], embedder, {"tiny": tiny}, depths=(1, 3))), {"command": "x"})


def test_every_system_is_measured(report: Report) -> None:
    assert report.systems == ("embedder", "BM25", "fusion", "tiny@1", "tiny@3")
    assert report.sets[0].system("embedder").metrics["nDCG@10"] == 1.0  # both answers are plain
    assert report.sets[0].system("embedder").lift is None


def test_reranking_one_document_changes_nothing(report: Report) -> None:
    one = report.sets[0].system("tiny@1")
    assert one.lift is not None
    assert (one.lift.mean, one.better, one.worse) == (0.0, 0, 0)
    assert one.metrics == report.sets[0].system("embedder").metrics


def test_what_a_reranker_reads_is_ordered_by_its_logits(tmp_path: Path) -> None:
    from ggrank.evaluation.systems import embed_documents, run_systems

    test = read_test_set(write_beir(tmp_path / "zoo"))
    path = tiny_models.write("bert-reranker", tmp_path)
    with Llama.load("all-minilm-l6-v2") as embedder, Llama.load(path) as tiny:
        vectors = embed_documents(embedder, test.documents, advance=lambda done: None)
        runs = run_systems(
            test, vectors, embedder=embedder, rerankers={"t": tiny}, depths=(3,), advance=lambda done: None
        )
        first, reranked = runs[0].rankings[0], runs[-1].rankings[0]
        logits = tiny.rerank(test.queries[0].text, [test.documents[i] for i in reranked])
    assert sorted(reranked[:3]) == sorted(first[:3])
    assert reranked[3:] == first[3:]
    assert logits[0] >= logits[1] - 1e-4
    assert logits[1] >= logits[2] - 1e-4


def test_a_report_is_plain_json_and_a_markdown_table(report: Report) -> None:
    back = json.loads(json.dumps(report.to_json()))
    assert back["sets"][0]["systems"][0]["metrics"]["P@1"] == 1.0
    assert back["mean"]["BM25"]["nDCG@10"] == back["sets"][0]["systems"][1]["metrics"]["nDCG@10"]
    lines = report.to_markdown().splitlines()
    assert lines[0] == "| nDCG@10 | embedder | BM25 | fusion | tiny@1 | tiny@3 |"
    assert lines[2].startswith("| zoo (2 queries) | **1.000** |")


@pytest.mark.parametrize("depth", [0, 101, True])
def test_a_depth_out_of_range_is_refused(depth: int) -> None:
    with pytest.raises(InputError, match="from 1 to 100"):
        next(evaluate([], None, depths=(depth,)))  # type: ignore[arg-type]  # never touched
