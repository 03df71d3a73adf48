"""From pairs to both students, in small; their GGUFs beside transformers."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggrank import Llama, PoolingType
from make_goldens_bundled import original_folder

pytestmark = pytest.mark.parity

ROOT = Path(__file__).resolve().parent.parent.parent
TEXTS = ROOT / "tests" / "data" / "texts.jsonl"
SOURCES = ("sections", "medquad", "tldr", "msrd", "nq", "covidqa", "scifact_train")
TEACHERS = ("snowflake-arctic-embed-xs", "bge-small-en-v1.5")


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
    """Data in the form of the real ones, trained on for a few steps in two runs, and exported."""
    data, work = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("work")
    (data / "train").mkdir()
    pairs = [{"query": text[:40], "positive": text[40:], "negatives": []} for text in texts]
    for number, source in enumerate(SOURCES):
        write_rows(data / "train" / f"{source}.jsonl.gz", pairs[number :: len(SOURCES)])
    passages = [" ".join(f"{text.rstrip('.')}." for text in texts[start : start + 4]) for start in range(99)]
    write_rows(data / "train" / "passages.jsonl.gz", [{"text": passage} for passage in passages])
    for name in TEACHERS:  # stand-ins, of the right width
        shutil.copytree(original_folder(), data / name)
    run("prepare.py", data, work / "lists.npz")
    small = ("--lists-per-step", 4, "--width", 4)
    for student, options in (
        ("embedder", ()),
        ("reranker", ("--lists", work / "lists.npz", "--calibrate", 24)),
    ):
        for steps in (2, 3):
            run("train.py", student, work / "lists.npz", work / f"{student}.pt", "--steps", steps, *small)
        run("export.py", work / f"{student}.pt", work / student, "--quantize", "f32", *options)
    return work


def test_the_reranker_s_file_gives_transformers_logits(work: Path, texts: list[str]) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    pairs = [(texts[i][:50], texts[(i + step) % len(texts)]) for i in range(40) for step in (0, 1)]
    model = AutoModelForSequenceClassification.from_pretrained(work / "reranker").eval()
    tokenizer = AutoTokenizer.from_pretrained(work / "reranker")
    with Llama.load(work / "reranker-f32.gguf", engine="llama.cpp", flash_attn=False) as reranker:
        assert reranker.pooling_type is PoolingType.RANK
        logits = reranker.score_pairs(pairs)
    with torch.inference_mode():
        expected = [float(model(**tokenizer(*pair, return_tensors="pt")).logits) for pair in pairs]
    np.testing.assert_allclose(logits, expected, atol=1e-3, rtol=0)


def test_the_embedder_s_file_gives_sentence_transformers_vectors(work: Path, texts: list[str]) -> None:
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(work / "embedder"), device="cpu").encode(texts[:40])
    with Llama.load(work / "embedder-f32.gguf", engine="llama.cpp", flash_attn=False) as embedder:
        assert (embedder.n_ctx, embedder.query_prefix) == (512, "")
        vectors = embedder.embed_many(texts[:40])
    assert (vectors * expected).sum(axis=1).min() > 0.99999


@pytest.mark.parametrize("student", ["embedder", "reranker"])
def test_a_second_run_goes_on_where_the_first_ended(work: Path, student: str) -> None:
    log = [json.loads(line) for line in (work / f"{student}.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in log if "options" in line] == [0, 2]
    assert log[-1]["step"] == 3
    assert 0 < log[-1]["loss"] < 20
