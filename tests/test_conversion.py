"""`ggrank convert`: folders as transformers and sentence-transformers save them become GGUF files.

The folders are the tiny models' (`tiny.original_folder`), and their answers those of torch
(``tests/goldens/tiny``). `make parity` loads the same folders with transformers, and has more of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ggrank import (
    GgrankError,
    InputError,
    Llama,
    ModelFileError,
    ModelModeError,
    ModelNotFoundError,
    convert,
)
from hub_server import serve
from tiny import goldens, original_folder

NEAR_TORCH = 1e-3


@pytest.fixture
def reranker(tmp_path: Path) -> Path:
    return original_folder.write("bert-reranker-segments", tmp_path / "my-reranker")


def change(folder: Path, name: str, **facts: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | facts), "utf-8")


@pytest.mark.parametrize("kind", ["bert-reranker-segments", "xlmr-reranker", "qwen3-reranker"])
def test_a_reranker_gives_the_original_s_logits(kind: str, tmp_path: Path) -> None:
    path = convert(original_folder.write(kind, tmp_path / kind), tmp_path / "m.gguf", quantize="f32")
    with Llama.load(path) as llama:
        logits = llama.score_pairs(goldens.pairs())
    assert np.abs(logits - goldens.load(kind).outputs[:, 0]).max() < NEAR_TORCH


@pytest.mark.parametrize("kind", ["bert-mean", "nomic-mean"])
def test_an_embedder_gives_the_original_s_vectors(kind: str, tmp_path: Path) -> None:
    path = convert(original_folder.write(kind, tmp_path / kind), tmp_path / "m.gguf", quantize="f32")
    expected = goldens.load(kind).outputs
    with Llama.load(path) as llama:
        vectors = llama.embed_many(goldens.texts())
    assert (vectors * expected / np.linalg.norm(expected, axis=1, keepdims=True)).sum(axis=1).min() > 0.99999


def test_the_file_is_named_after_the_folder_and_lies_in_the_current_one(
    reranker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert convert(reranker) == Path("my-reranker-q8_0.gguf")
    with Llama.load("my-reranker-q8_0.gguf") as llama:
        assert (llama.mode, llama.quantization) == ("rerank", "q8_0")


def test_the_same_folder_gives_the_same_bytes(reranker: Path, tmp_path: Path) -> None:
    first, second = (convert(reranker, tmp_path / f"{i}.gguf") for i in range(2))
    assert first.read_bytes() == second.read_bytes()


def test_prefixes_and_length_travel_in_the_file(tmp_path: Path) -> None:
    folder = original_folder.write("bert-mean", tmp_path / "e")
    settings = {"prompts": {"query": "query: ", "document": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64}))
    with Llama.load(convert(folder, tmp_path / "m.gguf")) as llama:
        assert (llama.query_prefix, llama.document_prefix, llama.n_ctx) == ("query: ", "passage: ", 64)
    with Llama.load(tmp_path / "m.gguf", query_prefix="", n_ctx=32) as llama:
        assert (llama.query_prefix, llama.n_ctx) == ("", 32)


def convert_from_hub(repo: str, files: dict[str, bytes], folder: Path) -> subprocess.CompletedProcess[str]:
    with serve() as hub:
        hub.add(repo, files)
        own = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "0"}
        options = ["--output", "m.gguf", "--quantize", "f32"]
        command = [sys.executable, "-m", "ggrank", "convert", repo, *options]
        return subprocess.run(command, env=os.environ | own, cwd=folder, capture_output=True, text=True)


def test_a_repo_is_converted_from_the_hub_without_its_pickles(reranker: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in reranker.iterdir()} | {"pytorch_model.bin": b"no"}
    done = convert_from_hub("org/model", files, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == "m.gguf"
    assert not list((tmp_path / "home").rglob("*.bin"))
    with Llama.load(tmp_path / "m.gguf") as llama:
        assert llama.mode == "rerank"


def test_a_repo_whose_transformer_lies_in_a_folder_is_converted(tmp_path: Path) -> None:
    folder = original_folder.write("bert-mean", tmp_path / "e")
    files = {f"0_Transformer/{path.name}": path.read_bytes() for path in folder.glob("*.*")}
    files["1_Pooling/config.json"] = (folder / "1_Pooling/config.json").read_bytes()
    modules = files.pop("0_Transformer/modules.json").decode()
    files["modules.json"] = modules.replace('"path": ""', '"path": "0_Transformer"').encode()
    done = convert_from_hub("org/old", files, tmp_path)
    assert done.returncode == 0, done.stderr
    with Llama.load(tmp_path / "m.gguf") as new, Llama.load(convert(folder, tmp_path / "f.gguf")) as same:
        assert float(new.embed("a text") @ same.embed("a text")) > 0.999


def test_a_repo_without_an_original_says_what_it_holds(tmp_path: Path) -> None:
    done = convert_from_hub("org/gguf", {"m-q8_0.gguf": b"GGUF", "README.md": b"hello"}, tmp_path)
    assert done.returncode == 1
    assert "org/gguf has no config.json" in done.stderr
    assert "holds GGUF files" in done.stderr


def test_any_name_may_be_given_to_the_file(reranker: Path, tmp_path: Path) -> None:
    with Llama.load(convert(reranker, tmp_path / "f32.gguf", quantize="q8_0")) as llama:
        assert llama.quantization == "q8_0"


def test_an_unreadable_original_is_not_taken_for_an_unwritable_file(reranker: Path, tmp_path: Path) -> None:
    os.truncate(reranker / "tokenizer.json", 0)
    (reranker / "tokenizer.json").unlink()
    (reranker / "tokenizer.json").mkdir()
    with pytest.raises((GgrankError, OSError)) as caught:
        convert(reranker, tmp_path / "m.gguf")
    assert "cannot be written" not in str(caught.value)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def of_another_kind(folder: Path) -> None:
    change(folder, "config.json", architectures=["DebertaV2Model"], model_type="deberta-v2")


def of_three_labels(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["classifier.weight"] = np.repeat(tensors["classifier.weight"], 3, axis=0)
    tensors["classifier.bias"] = np.repeat(tensors["classifier.bias"], 3)
    save_file(tensors, folder / "model.safetensors")


def with_a_strange_tensor(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    tensors["bert.encoder.layer.0.extra.weight"] = np.zeros((2, 2), np.float32)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "kind", "words"),
    [
        (pickled, ModelFileError, "pickles.*save_pretrained"),
        (cut_off, ModelFileError, "cut off"),
        (without_tokenizer, ModelFileError, "has no tokenizer"),
        (of_another_kind, ModelFileError, "DebertaV2Model.*it writes BertModel.*Qwen3ForCausalLM"),
        (of_three_labels, ModelModeError, "classifier with 3 outputs"),
        (with_a_strange_tensor, ModelFileError, "no place"),
    ],
)
def test_what_cannot_be_converted_says_so_and_leaves_nothing(
    damage: Any, kind: type[GgrankError], words: str, reranker: Path, tmp_path: Path
) -> None:
    damage(reranker)
    with pytest.raises(kind, match=rf"(?s){words}"):
        convert(reranker, tmp_path / "m.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["my-reranker"]


def test_a_file_is_replaced_only_by_force(reranker: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"mine")
    with pytest.raises(InputError, match="exists already"):
        convert(reranker, path)
    assert path.read_bytes() == b"mine"
    convert(reranker, path, force=True)
    assert path.read_bytes()[:4] == b"GGUF"


def test_options_that_cannot_be_used_are_refused(reranker: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quantize must be one of f32, f16, q8_0, q4_k_m"):
        convert(reranker, tmp_path / "m.gguf", quantize="q5")
    with pytest.raises(InputError, match="revision"):
        convert(reranker, tmp_path / "m.gguf", revision="main")
    with pytest.raises(ModelNotFoundError, match="folder with a model"):
        convert(tmp_path / "nothing")
