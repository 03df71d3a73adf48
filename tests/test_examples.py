"""Every example runs, on the bundled model and with a model argument, and shows what it says it shows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tiny_models

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))
RERANKING = ("reranker", "two_stage")


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))


def example(name: str, *args: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *args], capture_output=True, encoding="utf-8", timeout=600
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_there_is_a_test_for_every_example() -> None:
    assert NAMES == [
        "chroma_search",
        "compat",
        "embedding_search",
        "embeddings",
        "haystack_reranker",
        "job_embed",
        "langchain_reranker",
        "llama_index_reranker",
        "ray_embed",
        "remote",
        "reranker",
        "search_folder",
        "server_clients",
        "two_stage",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text("utf-8").splitlines()) <= 60


@pytest.mark.parametrize("name", ["embeddings", "embedding_search"])
def test_an_embedding_example_takes_a_model(name: str) -> None:
    assert example(name, "all-minilm-l6-v2") == example(name)


def test_embeddings_shows_that_the_cats_are_closer_than_the_rates() -> None:
    cats, kittens, _ = (line.split()[:3] for line in example("embeddings").splitlines()[2:])
    assert float(cats[1]) > 0.4 > float(cats[2])
    assert cats[1] == kittens[0]


def test_embedding_search_finds_each_answer() -> None:
    output = example("embedding_search")
    assert [word for word in ("router", "dough", "warranty") if word in output] == [
        "router",
        "dough",
        "warranty",
    ]


def test_search_folder_finds_where_the_docs_answer() -> None:
    output = example("search_folder")
    first, *_ = (line for line in output.splitlines() if ".md:" in line)
    assert "install.md:" in first
    assert "CPUs with AMX" in first


def test_search_folder_keeps_the_index_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("Bees dance.")
    assert "1 files added, 0 unchanged" in example("search_folder", tmp_path, "what do bees do?")
    assert "0 files added, 1 unchanged" in example("search_folder", tmp_path, "what do bees do?")


def test_reranker_shows_cosines_and_the_bundled_reranker_s_logits() -> None:
    cosines, logits = example("reranker").split("\n\n")[1:]
    for ranking in (cosines, logits):
        assert "Rust is" in ranking.splitlines()[1]
    assert "ggrank-reranker-mini (logit)" in logits
    first, second = (float(line.split()[0]) for line in logits.splitlines()[1:3])
    assert first > 0 > second


def test_remote_puts_the_answer_first_by_cosine_and_by_logit() -> None:
    cosines, logits = example("remote").split("\n\n")[1:]
    assert cosines.startswith("all-minilm-l6-v2 (cosine), dialect ggrank")
    assert logits.startswith("ggrank-reranker-mini (logit), dialect ggrank")
    for ranking in (cosines, logits):
        assert "Cooked rice keeps" in ranking.splitlines()[1]


def test_two_stage_puts_the_answer_first() -> None:
    retrieved, reranked = example("two_stage").split("\n\n")[1:]
    assert "4 of 8" in retrieved
    assert "Cooked rice keeps three" in reranked.splitlines()[1]


def test_server_clients_shows_one_ranking_in_two_dialects_and_vectors() -> None:
    lines = [line.split(maxsplit=2) for line in example("server_clients").splitlines()]
    assert [line[0] for line in lines] == ["plain", "plain", "cohere", "cohere", "openai"]
    assert [line[2] for line in lines[:2]] == [line[2] for line in lines[2:4]]
    assert lines[0][2] == "Berlin has 3.7 million inhabitants."
    assert lines[4][1:] == ["3", "vectors of 384 numbers"]


def test_job_embed_goes_on_with_a_job_and_scores_the_answer_best() -> None:
    job, table = example("job_embed").split("\n\n")
    assert job.splitlines() == ["embedded 3 rows into 2 shards", "again: 0 rows were computed"]
    scored = {line.split(maxsplit=1)[1]: float(line.split()[0]) for line in table.splitlines()[1:]}
    assert max(scored, key=lambda text: scored[text]).startswith("Bees dance")


@pytest.mark.parametrize("name", RERANKING)
def test_a_reranking_example_takes_a_reranker(name: str, reranker: Path) -> None:
    output = example(name, reranker)
    assert reranker.name in output
    assert "(logit" in output


@pytest.mark.skipif(shutil.which("bash") is None, reason="run.sh is a bash script")
def test_run_sh_runs_an_example_by_name(tmp_path: Path) -> None:
    # A checkout with an environment of its own: run.sh takes that Python.
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', "utf-8")
    python.chmod(0o755)
    done = subprocess.run(
        ["bash", tmp_path / "examples" / "run.sh", "embeddings"], capture_output=True, encoding="utf-8"
    )
    assert (done.returncode, done.stdout) == (0, example("embeddings"))


@pytest.mark.skipif(shutil.which("bash") is None, reason="run.sh is a bash script")
@pytest.mark.parametrize("args", [[], ["no-such-example"]])
def test_run_sh_lists_the_examples_when_it_does_not_know_the_name(args: list[str]) -> None:
    done = subprocess.run(["bash", EXAMPLES / "run.sh", *args], capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert all(name in done.stderr for name in NAMES)
