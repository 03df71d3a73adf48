"""The Parquet of a job loads into DuckDB and LanceDB by the lines that docs/jobs.md shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggrank import Llama, LlamaParams
from ggrank.jobs import EmbedStep, Job, find_sources, run
from job_rows import text, write_jsonl

pytestmark = pytest.mark.integration
pytest.importorskip("pyarrow")

DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "jobs.md"


@pytest.fixture(scope="module")
def embedder() -> Iterator[Llama]:
    with Llama.load("all-minilm-l6-v2") as llama:
        yield llama


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with ``vectors/`` in it, of 300 texts in three shards."""
    embed(tmp_path, "float32")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def embed(folder: Path, dtype: Any) -> None:
    rows = write_jsonl(folder / "rows.jsonl", ({"id": i, "text": text(i)} for i in range(300)))
    step = EmbedStep(LlamaParams("all-minilm-l6-v2"), dtype=dtype)
    run(Job(step, find_sources([str(rows)]), folder / "vectors", shard_rows=100))


def shown(name: str) -> str:
    """The Python block of the docs that imports a library."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    return next(block for block in blocks if f"import {name}" in block)


def nearest(embedder: Llama, query: str, k: int) -> list[int]:
    """By the API, and by nothing else."""
    vectors = embedder.embed_many(text(i) for i in range(300))
    return [int(i) for i in np.argsort(-(vectors @ embedder.embed(query)), kind="stable")[:k]]


@pytest.mark.parametrize("name", ["duckdb", "lancedb"])
def test_the_shown_lines_find_what_the_api_finds(name: str, folder: Path, embedder: Llama) -> None:
    pytest.importorskip(name)
    names: dict[str, Any] = {}
    exec(shown(name), names)  # the docs' own lines
    assert [int(row["id"]) for row in names["found"]] == nearest(embedder, names["QUERY"], 5)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_every_dtype_is_read_by_both(dtype: str, tmp_path: Path) -> None:
    duckdb, lancedb = pytest.importorskip("duckdb"), pytest.importorskip("lancedb")
    embed(tmp_path, dtype)
    where = f"{tmp_path}/vectors/*.parquet"
    lengths = duckdb.sql(f"SELECT DISTINCT len(embedding) FROM read_parquet('{where}')").fetchall()
    assert lengths == [(384,)]
    import pyarrow.parquet as pq

    table = lancedb.connect(tmp_path / "lance").create_table("t", pq.read_table(tmp_path / "vectors"))
    assert len(table.head(1).to_pylist()[0]["embedding"]) == 384
