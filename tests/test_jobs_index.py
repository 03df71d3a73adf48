"""The Parquet of ``ggrank job embed`` feeds an index: its vectors are taken, and those of others refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_models
from ggrank import Index, Llama, LlamaParams
from ggrank.jobs import EmbedStep, Job, find_sources, run
from job_rows import write_jsonl

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = [
    {"id": "bees", "title": "Bees", "text": "They hum and dance."},
    {"id": "cars", "title": "Cars", "text": "They rust in the rain."},
    {"id": "long", "title": "Tides", "text": " ".join(f"The sea rises {i} times." for i in range(100))},
]


@pytest.fixture(scope="module")
def embedder() -> Iterator[Llama]:
    with Llama.load("all-minilm-l6-v2") as llama:
        yield llama


def embedded(folder: Path, model: str | Path = "all-minilm-l6-v2", **options: Any) -> Path:
    source = write_jsonl(folder / "rows.jsonl", ROWS)
    step = EmbedStep(LlamaParams(model), **options)
    run(Job(step, find_sources([str(source)]), folder / "rows.parquet"))
    return folder / "rows.parquet"


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_vectors_that_came_along_are_not_computed_again(dtype: Any, tmp_path: Path, embedder: Llama) -> None:
    path = embedded(tmp_path, dtype=dtype)
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        progress = index.update([path]).progress
        found = index.search("what rusts?")[0]
    # The long text has several passages, and the vector is only that of its beginning.
    assert progress.n_passages - progress.n_embedded == 2
    assert (found.id, found.text) == ("cars", "They rust in the rain.")
    with Index.open(tmp_path / "other", embedder=embedder) as index:
        index.update([tmp_path / "rows.jsonl"])
        expected = index.search("what rusts?")[0]
    assert (expected.id, expected.text) == (found.id, found.text)
    assert found.cosine == pytest.approx(expected.cosine, abs=3e-3 if dtype == "int8" else 1e-4)


def test_vectors_of_another_model_or_prefix_are_refused(tmp_path: Path, embedder: Llama) -> None:
    other = tiny_models.write("bert-mean", tmp_path)
    for name, options, reason in (
        ("model", {"model": other}, "made with bert-mean-f32.gguf, the index with all-minilm"),
        ("prefix", {"prefix": "query: "}, "prefix 'query: '"),
    ):
        folder = tmp_path / name
        folder.mkdir()
        path = embedded(folder, **options)  # type: ignore[arg-type]
        with Index.open(folder / "index", embedder=embedder) as index:
            skipped = index.update([path]).skipped
        assert len(skipped) == 1
        assert reason in skipped[0].reason


def test_anybody_s_parquet_is_embedded(tmp_path: Path, embedder: Llama) -> None:
    table = pa.table({"_id": [1, 2, 3], "text": ["Bees hum.", None, "Cars rust."], "x": [[1.0]] * 3})
    pq.write_table(table, tmp_path / "rows.parquet")
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "other.parquet")
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        changes = index.update([tmp_path])
        assert index.search("what rusts?")[0].id == 3
    assert changes.progress.n_embedded == 2
    reasons = {Path(skipped.path).name: skipped.reason for skipped in changes.skipped}
    assert reasons["other.parquet"] == "no column 'text'; the columns are: body"
    assert "row 2" in reasons["rows.parquet"]


def test_a_folder_of_parts_is_indexed_without_a_warning(tmp_path: Path, embedder: Llama) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [*ROWS, b"bad"])
    run(Job(EmbedStep(LlamaParams("all-minilm-l6-v2")), find_sources([str(source)]), tmp_path / "out"))
    with Index.open(tmp_path / "index", embedder=embedder) as index:
        changes = index.update([tmp_path / "out"])
    assert (changes.added, changes.skipped) == (1, ())
