"""From pairs to the reranker's GGUF, in small; its logits beside PyTorch's from the same weights."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggrank import Llama, PoolingType

pytestmark = pytest.mark.parity

ROOT = Path(__file__).resolve().parent.parent.parent
TEXTS = ROOT / "tests" / "data" / "texts.jsonl"
SOURCES = ("sections", "medquad", "tldr", "msrd", "nq", "covidqa", "scifact_train")


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / "training" / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    found = [json.loads(line)["text"] for line in TEXTS.read_text("utf-8").split("\n") if line]
    return [text for text in found if len(text) > 60]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """Data in the form of the real ones, trained on for three steps, and exported."""
    data, work = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("work")
    pairs = [{"query": text[:40], "positive": text[40:], "negatives": []} for text in texts]
    for number, source in enumerate(SOURCES):
        write_rows(data / f"{source}.jsonl.gz", pairs[number :: len(SOURCES)])
    passages = [" ".join(f"{text.rstrip('.')}." for text in texts[start : start + 4]) for start in range(99)]
    write_rows(data / "passages.jsonl.gz", [{"text": passage} for passage in passages])
    run("prepare.py", data, work / "lists.npz")
    run("train.py", work / "lists.npz", work / "model.pt", "--steps", 3, "--lists-per-step", 8)
    files = (work / "model.pt", work / "lists.npz", work / "f32.gguf", work / "q8_0.gguf")
    run("export.py", *files, "--calibrate", 24)
    return work


@pytest.fixture(scope="module")
def pairs(texts: list[str]) -> list[tuple[str, str]]:
    return [(texts[i][:50], texts[(i + step) % len(texts)]) for i in range(60) for step in (0, 1)]


@pytest.fixture(scope="module")
def torch_logits(work: Path, pairs: list[tuple[str, str]]) -> Iterator[np.ndarray]:
    sys.path.insert(0, str(ROOT / "training"))
    import backbone
    import torch

    model = backbone.CrossEncoder().eval()
    model.load_state_dict(torch.load(work / "f32.pt"))
    tokenizer = backbone.load_tokenizer()
    queries, documents = (backbone.tokenize(tokenizer, list(side)) for side in zip(*pairs, strict=True))
    sequences = [backbone.pair(q, d, limit=512) for q, d in zip(queries, documents, strict=True)]
    yield backbone.score(model, sequences, bf16=False)
    sys.path.remove(str(ROOT / "training"))


def test_the_f32_file_gives_the_trained_model_s_logits(
    work: Path, pairs: list[tuple[str, str]], torch_logits: np.ndarray
) -> None:
    with Llama.load(work / "f32.gguf", engine="llama.cpp") as reranker:
        assert reranker.pooling_type is PoolingType.RANK
        logits = reranker.score_pairs(pairs)
    np.testing.assert_allclose(logits, torch_logits, atol=1e-3, rtol=0)


def test_the_q8_0_file_gives_them_up_to_rounding(
    work: Path, pairs: list[tuple[str, str]], torch_logits: np.ndarray
) -> None:
    with Llama.load(work / "q8_0.gguf", engine="llama.cpp") as reranker:
        logits = reranker.score_pairs(pairs)
    assert np.corrcoef(logits, torch_logits)[0, 1] > 0.99
    assert (work / "q8_0.gguf").stat().st_size < 26_000_000


def test_the_average_of_the_steps_was_saved_and_the_log_tells_the_loss(work: Path) -> None:
    log = [json.loads(line) for line in (work / "model.jsonl").read_text("utf-8").splitlines()]
    assert log[-1]["step"] == 3
    assert 0 < log[-1]["loss"] < 10
