"""The ``llm`` tool with ggrank's plugin, as a process of its own, with a folder of its own for its files."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llm")

import tiny_models
from ggrank import Llama
from ggrank.hub.presets import presets
from ggrank.integrations import llm
from hub_server import serve

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
MODEL = "ggrank/all-minilm-l6-v2"
TEXTS = {"andes": "Llamas live in the Andes.", "paris": "Paris is a city.", "rice": "Cooked rice keeps."}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """llm finds the plugin by the entry point in pyproject.toml, whether ggrank is installed here or not."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]["llm"]
    information = tmp_path / "site" / "ggrank_plugin-0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: ggrank-plugin\nVersion: 0\n")
    lines = "\n".join(f"{name} = {module}" for name, module in declared.items())
    (information / "entry_points.txt").write_text(f"[llm]\n{lines}\n")
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT / "src")])
    return {**os.environ, "PYTHONPATH": path, "LLM_USER_PATH": str(tmp_path / "llm")}


def run(environment: dict[str, str], *args: str | Path, text: str | None = None) -> str:
    command = [sys.executable, "-m", "llm", *args]
    done = subprocess.run(command, env=environment, input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_embed_gives_the_vector_of_ggrank(environment: dict[str, str]) -> None:
    vector = json.loads(run(environment, "embed", "-m", MODEL, "-c", TEXTS["andes"]))
    with Llama.load("all-minilm-l6-v2") as llama:
        np.testing.assert_allclose(vector, llama.embed(TEXTS["andes"]), atol=1e-5)


def test_what_embed_multi_keeps_similar_finds(environment: dict[str, str], tmp_path: Path) -> None:
    records = tmp_path / "texts.jsonl"
    lines = [json.dumps({"id": name, "content": text}) for name, text in TEXTS.items()]
    records.write_text("\n".join(lines), "utf-8")
    run(environment, "embed-multi", "notes", records, "--format", "nl", "-m", MODEL, "--store")
    lines = run(environment, "similar", "notes", "-c", "Where do llamas live?").splitlines()
    found = [json.loads(line) for line in lines]
    with Llama.load("all-minilm-l6-v2") as llama:
        ranking = llama.rank("Where do llamas live?", list(TEXTS.values()))
    assert [hit["id"] for hit in found] == [list(TEXTS)[hit.index] for hit in ranking]
    np.testing.assert_allclose([hit["score"] for hit in found], [hit.score for hit in ranking], atol=1e-4)
    assert found[0]["content"] == TEXTS["andes"]


def test_the_models_are_the_embedders_that_are_on_this_machine(
    environment: dict[str, str], tmp_path: Path
) -> None:
    names = run(environment, "embed-models")
    assert MODEL in names
    assert "reranker" not in names
    assert "bge-base-en-v1.5" not in names

    preset = presets()["bge-base-en-v1.5"]
    data = tiny_models.write("bert-cls", tmp_path).read_bytes().ljust(preset.size or 0, b"\0")
    with serve() as hub:
        hub.add(preset.repo or "", {preset.file or "": data}, commit=preset.revision)
        network = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1,localhost"}
        folders = {"HF_HOME": str(tmp_path / "hf"), "GGRANK_CACHE_DIR": str(tmp_path / "records")}
        environment |= folders
        command = [sys.executable, "-m", "ggrank", "models", "download", "bge-base-en-v1.5"]
        subprocess.run(command, env=environment | network, check=True, capture_output=True, timeout=300)
    assert "ggrank/bge-base-en-v1.5" in run(environment, "embed-models")
    vector = json.loads(run(environment, "embed", "-m", "ggrank/bge-base-en-v1.5", "-c", "a text"))
    assert len(vector) == 64


def test_llm_starts_with_the_plugin_and_loads_nothing_heavy_for_it(environment: dict[str, str]) -> None:
    code = "import sys, llm.cli, llm.plugins; llm.plugins.load_plugins(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    loaded = set(done.stdout.split())
    assert "ggrank.integrations.llm" in loaded
    assert loaded & {"llama_cpp", "openvino", "huggingface_hub", "ggrank.llama"} == set()


@pytest.mark.skipif(sys.platform == "win32", reason="the commands are for a POSIX shell")
def test_the_commands_in_the_docs_find_the_answer(environment: dict[str, str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "integrations.md").read_text("utf-8")
    commands = page.split("\n## llm\n")[1].split("```sh\n")[2].split("```")[0]
    (tmp_path / "notes").mkdir()
    for name, text in TEXTS.items():
        (tmp_path / "notes" / f"{name}.txt").write_text(text, "utf-8")
    environment |= {"PATH": os.pathsep.join([sysconfig.get_path("scripts"), environment["PATH"]])}
    done = subprocess.run(
        ["sh", "-ec", commands], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["id"] == "andes.txt"


def test_the_examples_in_the_docstrings_hold() -> None:
    results = doctest.testmod(llm)
    assert results.failed == 0 < results.attempted


def test_the_plugin_is_listed_with_its_hook(environment: dict[str, str]) -> None:
    hooks = [plugin["hooks"] for plugin in json.loads(run(environment, "plugins"))]
    assert ["register_embedding_models"] in hooks
