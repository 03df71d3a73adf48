"""Preflight: verdicts come from a child process, are remembered, and are acted on.

That a build which really crashes is survived is proved by `make check-stock-build`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tiny_models
from ggrank.errors import EngineError, GgrankWarning, ModelFileError
from ggrank.loading.preflight import build_verdict, library_files, prove_file, safe_settings
from ggrank.types import EngineSettings, PoolingType

SETTINGS = EngineSettings(pooling_type=PoolingType.RANK, n_ctx=64, n_ubatch=128, n_seq_max=8, n_threads=2)


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "preflight.json"


def verdicts(records: Path) -> dict[str, str]:
    return dict(json.loads(records.read_text()))


def test_this_build_computes_the_original_models_vectors_and_that_is_remembered(records: Path) -> None:
    assert build_verdict(SETTINGS) == "ok"
    (key,) = verdicts(records)
    assert key.startswith("build|")
    assert verdicts(records)[key] == "ok"


def test_every_configuration_is_proved_on_its_own(records: Path) -> None:
    for settings in (SETTINGS, replace(SETTINGS, use_extra_bufts=False), replace(SETTINGS, flash_attn=False)):
        assert safe_settings(settings, open_engine=True, open_bufts=True) == settings
    assert len(verdicts(records)) == 3


def test_a_new_file_is_tried_once_and_again_when_it_changed(records: Path, tmp_path: Path) -> None:
    path = tiny_models.write("bert-reranker", tmp_path)
    prove_file(path, SETTINGS)
    prove_file(path, SETTINGS)
    assert len(verdicts(records)) == 1
    path.write_bytes(path.read_bytes() + b"\0" * 32)
    prove_file(path, SETTINGS)
    assert len(verdicts(records)) == 2


def test_a_file_that_llama_cpp_refuses_is_an_error_and_is_tried_again_next_time(
    records: Path, tmp_path: Path
) -> None:
    path = tmp_path / "not-a-model.gguf"
    path.write_bytes(b"GGUF" + b"\0" * 200)
    for _ in range(2):
        with pytest.raises(ModelFileError, match=r"a trial in a separate process failed"):
            prove_file(path, SETTINGS)
    assert not records.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="deaths have no signal names there")
def test_the_death_of_the_child_is_an_error_that_names_the_signal(records: Path, tmp_path: Path) -> None:
    # With mean pooling llama.cpp aborts when n_ubatch is no multiple of n_seq_max; `Llama.load` rounds it.
    deadly = replace(SETTINGS, pooling_type=PoolingType.MEAN, n_ubatch=600, n_seq_max=128)
    with pytest.raises(ModelFileError, match=r"crashed with SIGABRT"):
        prove_file(tiny_models.write("bert-mean", tmp_path), deadly)


def test_a_file_whose_weights_are_nan_is_an_error(records: Path, tmp_path: Path) -> None:
    path = tiny_models.write("bert-reranker", tmp_path)
    data = bytearray(path.read_bytes())
    data[-4096:] = b"\xff" * 4096  # f32 0xffffffff is NaN; the last tensor is read by every text
    path.write_bytes(data)
    with pytest.raises(EngineError, match=r"not finite"):
        prove_file(path, SETTINGS)


def remember_crash(records: Path, *settings: EngineSettings) -> None:
    for each in settings:
        build_verdict(each)
    records.write_text(json.dumps(dict.fromkeys(verdicts(records), "crashed with SIGSEGV")))


LOAD = """
import warnings
warnings.simplefilter("always", __import__("ggrank").GgrankWarning)
from ggrank import Llama
from ggrank.gguf import open_gguf
from ggrank.hub import find_model
from ggrank.loading.tuning import Tuned, remember_tuned
file = open_gguf(find_model("all-minilm-l6-v2").path)
remember_tuned(file, file.pooling_type, Tuned(engine="llama.cpp", use_extra_bufts=True))
for _ in range(2):
    with Llama.load("all-minilm-l6-v2") as llama:
        print(llama._model.settings.use_extra_bufts, llama.embed("a").shape)
"""


def run_load() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=300)


def test_where_repacked_weights_crash_plain_ones_are_used_and_said_once_with_the_flags(records: Path) -> None:
    first = run_load()
    assert first.stdout.split("\n")[0] == "True (384,)"
    assert not first.stderr
    records.write_text(json.dumps(dict.fromkeys(verdicts(records), "crashed with SIGSEGV")))
    second = run_load()
    assert second.stdout == "False (384,)\nFalse (384,)\n"
    assert second.stderr.count("GgrankWarning: this build") == 1
    assert "crashed with SIGSEGV" in second.stderr
    assert "-fno-tree-dse -fno-dse" in second.stderr


def test_where_nothing_works_the_error_says_what_to_do(records: Path) -> None:
    remember_crash(records, SETTINGS, replace(SETTINGS, use_extra_bufts=False))
    with pytest.raises(EngineError, match=r"crashed with SIGSEGV.*-fno-tree-dse"):
        safe_settings(SETTINGS, open_engine=True, open_bufts=True)


def test_where_openvino_does_not_compute_llama_cpp_takes_its_place_and_it_is_said(records: Path) -> None:
    openvino = replace(SETTINGS, engine="openvino")
    remember_crash(records, openvino)
    with pytest.warns(GgrankWarning, match=r"OpenVINO does not compute here .*SIGSEGV"):
        assert safe_settings(openvino, open_engine=True, open_bufts=True) == SETTINGS
    with pytest.raises(EngineError, match=r"the engine llama\.cpp"):
        safe_settings(openvino, open_engine=False, open_bufts=True)


def test_a_callers_own_choice_is_not_changed_behind_their_back(records: Path) -> None:
    remember_crash(records, SETTINGS)
    with pytest.raises(EngineError, match=r"does not compute here"):
        safe_settings(SETTINGS, open_engine=False, open_bufts=False)


KEY = "from ggrank.loading.preflight import library_key; print(library_key())"


def test_the_verdict_is_keyed_by_the_librarys_bytes(records: Path, tmp_path: Path) -> None:
    package = next(library_files()).parent.parent
    copy = tmp_path / "other" / "llama_cpp"
    shutil.copytree(package, copy)
    path = [str(copy.parent), *filter(None, sys.path)]

    def key() -> str:
        command = f"import sys; sys.path[:] = {path!r}\n{KEY}"
        return subprocess.run(
            [sys.executable, "-c", command], capture_output=True, text=True, check=True
        ).stdout

    before = key()
    assert before == key()
    library = next(path for path in (copy / "lib").iterdir() if "ggml-base" in path.name)
    library.write_bytes(library.read_bytes() + b"\0")
    assert key() != before
