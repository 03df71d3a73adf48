"""What was measured is used from then on, for the same file and builds only, and never against the caller."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

import tiny_models
from command_line import ggrank, json_lines
from ggrank import Llama, LlamaParams
from ggrank.cli.measuring import Measured, too_different, tune
from ggrank.engine.hardware import Processor, find_processor
from ggrank.errors import InputError, ModelModeError
from ggrank.gguf import open_gguf
from ggrank.loading.tuning import (
    Tuned,
    choose_engine,
    fastest_quantization,
    forget_tuned,
    openvino_hint,
    openvino_is_faster_here,
    recall_tuned,
    remember_tuned,
    remembered,
)
from ggrank.rows.records import recall
from ggrank.scoring import l2_normalize
from ggrank.types import Mode, PoolingType


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tuning.json"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tiny_models.write("bert-reranker", tmp_path, dtype="q8_0")


def keep(path: Path, tuned: Tuned) -> None:
    remember_tuned(open_gguf(path), PoolingType.RANK, tuned)


def settings_of(llama: Llama) -> tuple[str, bool, int, int]:
    settings = llama._model.settings
    return settings.engine, settings.flash_attn, settings.n_ubatch, settings.n_threads


def test_a_model_loads_with_what_was_measured(path: Path) -> None:
    keep(path, Tuned(engine="llama.cpp", flash_attn=False, n_ubatch=1024, n_threads=1))
    with Llama.load(path) as llama:
        assert settings_of(llama) == ("llama.cpp", False, 1024, 1)


def test_what_the_caller_says_comes_first(path: Path) -> None:
    keep(path, Tuned(engine="llama.cpp", flash_attn=False, n_ubatch=1024, n_threads=1))
    with Llama.load(path, flash_attn=True, n_ubatch=640, n_threads=2, engine="openvino") as llama:
        assert settings_of(llama) == ("openvino", True, 640, 2)


def test_another_file_or_pooling_is_not_what_was_measured(path: Path) -> None:
    keep(path, Tuned(n_ubatch=1024))
    assert recall_tuned(open_gguf(path), PoolingType.CLS) == Tuned()
    os.utime(path, ns=(1, 1))
    assert recall_tuned(open_gguf(path), PoolingType.RANK) == Tuned()


@pytest.mark.parametrize("facts", ["no JSON", '{"key": 3}', "replaced"])
def test_a_damaged_record_is_none(path: Path, records: Path, facts: str) -> None:
    keep(path, Tuned(n_ubatch=1024))
    if facts == "replaced":
        keys = json.loads(records.read_text())
        facts = json.dumps({key: {"n_ubatch": 1, "colour": "red"} for key in keys})
    records.write_text(facts)
    assert recall_tuned(open_gguf(path), PoolingType.RANK) == Tuned()
    assert remembered() == []
    forget_tuned()
    assert recall("tuning") == {}


@pytest.mark.parametrize(
    "changed",
    [{"engine": "onnx"}, {"n_ubatch": "big"}, {"n_threads": -3}, {"n_threads": 9999}, {"flash_attn": "no"}],
    ids=str,
)
def test_a_record_of_settings_that_nobody_measured_is_none(
    path: Path, records: Path, changed: dict[str, object]
) -> None:
    keep(path, Tuned(n_ubatch=1024))
    facts = json.loads(records.read_text())
    for fact in facts.values():
        fact["tuned"] |= changed
    records.write_text(json.dumps(facts))
    assert recall_tuned(open_gguf(path), PoolingType.RANK) == Tuned()


def test_what_was_tuned_on_the_cpu_does_not_keep_a_gpu_from_its_work(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is made up: what llama.cpp sees is patched, and nothing of ggrank's choice."""
    monkeypatch.setattr("ggrank.engine.library.gpu_names", lambda: ["CUDA (a GPU)"])
    tuned, file = Tuned(engine="openvino"), open_gguf(path)
    assert choose_engine("auto", tuned=tuned, file=file, n_gpu_layers=-1) == "llama.cpp"
    assert choose_engine("auto", tuned=tuned, file=file, n_gpu_layers=0) == "openvino"


def test_what_cannot_be_remembered_is_said(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    arguments = ["tune", "--model", path, "--engine", "llama.cpp", "--n-threads", "1"]
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "file"))
    result = ggrank(*arguments, "--table")
    assert "settings are not remembered" in result.stderr
    assert "Remembered: " not in result.stdout


def test_a_number_of_tokens_that_the_caller_gave_is_remembered_by_either_name(path: Path) -> None:
    report = tune(LlamaParams(path, engine="llama.cpp", n_threads=1, n_batch=2048, use_extra_bufts=False))
    with Llama.load(path) as llama:
        assert llama._model.settings == report.settings
        assert report.settings.n_ubatch == 2048


@pytest.mark.parametrize(
    ("mode", "noise", "is_kept"),
    [
        (Mode.RERANK, 0.02, True),
        (Mode.RERANK, 0.1, False),
        (Mode.EMBEDDING, 0.02, True),
        (Mode.EMBEDDING, 0.1, False),
    ],
)
def test_what_moves_results_by_more_than_quantization_is_refused(
    mode: Mode, noise: float, is_kept: bool
) -> None:
    """Unit vectors, or logits of deviation 1, and noise of a length or deviation that is known."""
    random = np.random.default_rng(1)
    shape = (20,) if mode is Mode.RERANK else (20, 384)
    values, other = (random.standard_normal(shape).astype(np.float32) for _ in range(2))
    if mode is Mode.EMBEDDING:
        values, other = l2_normalize(values), l2_normalize(other)
        moved = l2_normalize(values + np.float32(noise) * other)
    else:
        values = (values - values.mean()) / values.std()
        moved = values + np.float32(noise) * other / np.sqrt(np.mean(other**2))
    reason = too_different(moved, values, mode)
    assert reason is None if is_kept else "differ" in str(reason)


def test_tuning_tries_the_open_settings_and_remembers_what_it_reports(path: Path) -> None:
    told: list[Measured] = []
    report = tune(LlamaParams(path, engine="llama.cpp", n_ubatch=512), on_measured=told.append)
    assert told == [report.default, *report.tried]
    names = " ".join(measured.name for measured in report.tried)
    assert "use_extra_bufts" in names
    assert "flash_attn" in names
    assert "n_ubatch" not in names
    assert all(measured.tokens_per_second > 0 for measured in told)
    assert report.gain > 0
    with Llama.load(path, engine="llama.cpp", n_ubatch=512) as llama:
        assert llama._model.settings == report.settings


def test_what_moves_logits_is_not_offered(tmp_path: Path) -> None:
    path = tiny_models.write("bert-reranker", tmp_path, dtype="f32")
    report = tune(LlamaParams(path, engine="llama.cpp", n_ubatch=512, n_threads=1))
    assert "flash_attn" not in " ".join(measured.name for measured in report.tried)


def test_tuned_or_not_the_logits_are_the_same_up_to_quantization(path: Path) -> None:
    documents = ["a river in a valley", "towns between mountains", "stone"]
    with Llama.load(path) as llama:
        before = llama.rerank("which river?", documents)
    keep(path, Tuned(engine="llama.cpp", flash_attn=False, use_extra_bufts=True, n_threads=1))
    with Llama.load(path) as llama:
        np.testing.assert_allclose(llama.rerank("which river?", documents), before, atol=0.2)


def test_a_model_without_pooling_cannot_be_tuned(tmp_path: Path) -> None:
    path = tiny_models.write("bert-mean", tmp_path)
    with pytest.raises(ModelModeError, match="cannot be tuned"):
        tune(LlamaParams(path, pooling_type=PoolingType.NONE))


def test_an_unknown_engine_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'auto', 'llama.cpp' or 'openvino', found 'onnx'"):
        LlamaParams("all-minilm-l6-v2", engine="onnx")  # type: ignore[arg-type]


def test_the_command_prints_a_table_for_people_and_json_for_programs(path: Path) -> None:
    arguments = ["tune", "--model", str(path), "--engine", "llama.cpp", "--n-threads", "1"]
    table = ggrank(*arguments, "--table").output
    assert "n_threads 1: built-in" in " ".join(table.split())
    assert "Remembered: " in table
    assert "Fastest quantization here: " in table or not fastest_quantization()
    (report,) = json_lines(ggrank(*arguments, "--json"))
    assert report["settings"]["engine"] == "llama.cpp"
    assert report["default"]["tokens_per_second"] > 0


def test_what_is_remembered_can_be_shown_and_forgotten(path: Path, tmp_path: Path) -> None:
    other = tiny_models.write("bert-mean", tmp_path)
    remember_tuned(open_gguf(path), PoolingType.RANK, Tuned(n_ubatch=1024), gain=1.25)
    remember_tuned(open_gguf(other), PoolingType.MEAN, Tuned())
    shown = {line["model"]: line for line in json_lines(ggrank("tune", "--show"))}
    assert set(shown) == {str(path), str(other)}
    assert (shown[str(path)]["tuned"]["n_ubatch"], shown[str(path)]["gain"]) == (1024, 1.25)
    table = ggrank("tune", "--show", "--table").stdout
    assert f"{path}\n    n_ubatch 1024, 1.25 times as fast as built-in, measured 20" in table
    assert json_lines(ggrank("tune", "--forget", "--model", path)) == [{"forgotten": 1}]
    assert recall_tuned(open_gguf(path), PoolingType.RANK) == Tuned()
    assert [one.model for one in remembered()] == [other]
    assert ggrank("tune", "--forget", "--table").stdout == "Forgot the settings of 1 model.\n"
    assert "No settings are remembered" in ggrank("tune", "--show", "--table").stdout


def test_what_was_measured_with_another_file_of_that_name_is_shown_as_not_used(path: Path) -> None:
    keep(path, Tuned(n_ubatch=1024))
    os.utime(path, ns=(1, 1))
    assert [one.in_use for one in remembered()] == [False]
    path.unlink()
    assert "no longer used" in ggrank("tune", "--show", "--table").stdout
    assert json_lines(ggrank("tune", "--forget", "--model", path)) == [{"forgotten": 1}]


@pytest.mark.parametrize(
    ("features", "engine"),
    [
        (("avx", "avx2", "fma"), "openvino"),
        (("avx", "avx2", "avx512", "avx512_vnni"), "openvino"),
        (("avx", "avx2", "amx"), "openvino"),
        (("avx",), "llama.cpp"),
        (("neon", "dotprod"), "llama.cpp"),
    ],
)
def test_openvino_computes_where_the_processor_has_avx2(
    features: tuple[str, ...], engine: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The processor is made up."""
    monkeypatch.setattr("ggrank.loading.tuning.find_processor", lambda: Processor("a CPU", 2, features))
    assert choose_engine("auto", tuned=Tuned(), file=open_gguf(path), n_gpu_layers=0) == engine
    tuned = Tuned(engine="llama.cpp")
    assert choose_engine("auto", tuned=tuned, file=open_gguf(path), n_gpu_layers=0) == "llama.cpp"


def test_llama_cpp_is_asked_where_the_system_does_not_list_features(monkeypatch: pytest.MonkeyPatch) -> None:
    has_avx2 = "avx2" in find_processor().features
    monkeypatch.setattr("ggrank.loading.tuning.find_processor", lambda: Processor("a CPU of Windows", 2, ()))
    assert openvino_is_faster_here() == has_avx2


def test_openvino_is_recommended_where_it_is_missing_and_would_be_faster(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    avx2 = Processor("a CPU", 2, ("avx", "avx2"))
    monkeypatch.setattr("ggrank.loading.tuning.find_processor", lambda: avx2)
    assert openvino_hint(path, engine="llama.cpp") == ""  # it is installed: the caller did not want it
    monkeypatch.setattr("ggrank.loading.tuning._openvino_version", lambda: None)
    assert "1.6 times as fast here with: pip install 'ggrank[openvino]'" in openvino_hint(
        path, engine="llama.cpp"
    )
    assert openvino_hint(path, engine="llama.cpp", device="CUDA (a GPU)") == ""
    assert openvino_hint(tiny_models.write("nomic-mean", tmp_path), engine="llama.cpp") == ""


def test_a_gpu_is_compared_with_the_cpu(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is made up: layers that were sent to it are computed on the CPU."""
    device = property(lambda engine: "Metal (a GPU)" if engine._settings.n_gpu_layers else "CPU")
    monkeypatch.setattr("ggrank.engine.llama_cpp_engine.LlamaCppEngine.device", device)
    report = tune(LlamaParams(path, engine="llama.cpp", n_threads=1, n_ubatch=1024))
    assert "n_gpu_layers 0" in report.tried[0].name
    remember_tuned(open_gguf(path), PoolingType.RANK, Tuned(n_gpu_layers=0))
    with Llama.load(path, engine="llama.cpp") as tuned, Llama.load(path, n_gpu_layers=3) as asked:
        assert (tuned.device, asked._model.settings.n_gpu_layers) == ("CPU", 3)
