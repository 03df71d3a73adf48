"""``ggrank doctor``: what it proves, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import make_goldens_reranker
import tiny_models
from command_line import (
    ggrank,
    json_lines,
    process,
)
from ggrank.cli.doctor import PUBLISHED


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))


def test_doctor_proves_the_bundled_model_and_names_the_machine() -> None:
    result = ggrank("doctor")
    checks = {line["check"]: line for line in json_lines(result)}
    assert set(checks) >= {"processor", "llama.cpp build", "device", "preflight", "bundled model"}
    assert checks["bundled model"]["state"] == "ok"
    assert "cosine with the original's vectors 0.999" in checks["bundled model"]["found"]
    assert checks["bundled reranker"]["state"] == "ok"


def test_doctor_holds_the_bundled_reranker_against_what_transformers_gives() -> None:
    published = PUBLISHED["ggrank-reranker-mini"]
    np.testing.assert_allclose(published, np.load(make_goldens_reranker.GOLDENS)[:2], atol=1e-3)


def test_doctor_ends_with_a_sentence_for_people() -> None:
    result = ggrank("doctor", "--table")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "All is well.")


def test_doctor_fails_for_a_model_that_is_not_here_and_says_how_to_get_it() -> None:
    result = ggrank("doctor", "--model", "bge-reranker-base")
    check = json.loads(result.stdout.splitlines()[-1])
    assert (result.exit_code, check["state"]) == (1, "fail")
    assert "ggrank models download bge-reranker-base" in check["found"] + check["fix"]


def test_doctor_compares_logits_with_the_original_s_published_ones(reranker: Path, tmp_path: Path) -> None:
    impostor = tmp_path / "bge-reranker-base-f32.gguf"
    impostor.write_bytes(reranker.read_bytes())
    result = ggrank("doctor", "--model", impostor)
    check = json.loads(result.stdout.splitlines()[-1])
    assert (result.exit_code, check["state"]) == (1, "fail")
    assert "6.157 and -3.659" in check["found"]


def test_doctor_says_how_to_mend_a_python_without_llama_cpp(tmp_path: Path) -> None:
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text("raise ImportError('no llama_cpp here')\n", "utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = process("doctor", PYTHONPATH=path, GGRANK_CACHE_DIR=str(tmp_path / "cache"))
    checks = {check["check"]: check for check in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert checks["llama.cpp build"]["state"] == "fail"
    assert "pip install" in checks["llama.cpp build"]["fix"]
    assert checks["processor"]["state"] == "ok"
