"""scripts/download_models.sh, as people run it, against a hub on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ggrank.hub.presets import presets
from hub_server import Hub, serve

Script = Callable[..., "subprocess.CompletedProcess[str]"]

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "download_models.sh"
DATA = b"GGUF, says the file, and goes on " * 999
RERANKER, NOMIC, SMALL = (
    presets()[name] for name in ("bge-reranker-base", "nomic-embed-text-v1.5", "bge-small-en-v1.5")
)
NAMES = {
    "bge": "bge-small-en-v1.5",
    "nomic": "nomic-embed-text-v1.5",
    "multilingual": "multilingual-e5-small",
    "bge-reranker": "bge-reranker-base",
    "bge-reranker-v2-m3": "bge-reranker-v2-m3",
}
# dash knows nothing that is newer than macOS's bash 3.2, and stands in for it on other systems.
SHELLS = [shell for shell in ("bash", "dash") if shutil.which(shell)]

pytestmark = pytest.mark.skipif(not SHELLS, reason="there is no shell here")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as server:
        for preset in (RERANKER, NOMIC, SMALL):
            server.add(preset.repo, {preset.file: DATA}, commit=preset.revision)
        yield server


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ggrank with another catalogue: it pins nomic and the reranker to what the hub of this test has."""
    folder = tmp_path_factory.mktemp("package")
    source = ROOT / "src" / "ggrank"
    shutil.copytree(source, folder / "ggrank", ignore=shutil.ignore_patterns("models", "__pycache__"))
    (folder / "ggrank" / "models").symlink_to(source / "models", target_is_directory=True)
    catalogue = folder / "ggrank" / "hub" / "presets.toml"
    text = catalogue.read_text("utf-8")
    for preset in (RERANKER, NOMIC):
        text = text.replace(str(preset.sha256), hashlib.sha256(DATA).hexdigest())
        text = text.replace(f"size = {preset.size}", f"size = {len(DATA)}")
    catalogue.write_text(text, "utf-8")
    return folder


@pytest.fixture(params=SHELLS)
def script(request: pytest.FixtureRequest, tmp_path: Path, package: Path) -> Script:
    """The script in each shell of this machine, with ``tmp_path`` for its caches and to run in."""

    def run(*arguments: str, hub: Hub | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        own = {"HF_HOME": str(tmp_path / "hf"), "GGRANK_CACHE_DIR": str(tmp_path / "records")}
        own |= {"PYTHON": sys.executable, "NO_PROXY": "127.0.0.1,localhost"}
        own |= {"PYTHONPATH": str(package)}
        if hub is not None:
            own |= {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
        command, env = [request.param, str(SCRIPT), *arguments], {**os.environ, **own, **more}
        return subprocess.run(
            command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
        )

    return run


def test_a_model_lands_under_its_own_name_and_a_second_run_asks_nobody(
    script: Script, hub: Hub, tmp_path: Path
) -> None:
    models = tmp_path / "my models"
    first = script("bge-reranker", "--dir", str(models), hub=hub)
    assert first.returncode == 0, first.stderr
    assert (models / RERANKER.file).read_bytes() == DATA
    assert str(models / RERANKER.file) in first.stdout
    hub.seen.clear()
    assert script("bge-reranker", "--dir", str(models), hub=hub).returncode == 0
    assert hub.seen == []


def test_several_names_and_a_relative_directory(script: Script, hub: Hub, tmp_path: Path) -> None:
    assert script("--dir", "here", "nomic", "bge-reranker", hub=hub).returncode == 0
    assert {path.name for path in (tmp_path / "here").glob("*.gguf")} == {NOMIC.file, RERANKER.file}


def test_wrong_bytes_fail_with_both_sums_and_the_others_are_still_fetched(
    script: Script, hub: Hub, tmp_path: Path
) -> None:
    done = script("all", "--dir", "models", hub=hub)
    assert done.returncode == 1
    assert str(SMALL.sha256) in done.stderr
    assert "could not fetch bge multilingual bge-reranker-v2-m3" in done.stderr
    assert {path.name for path in (tmp_path / "models").glob("*.gguf")} == {NOMIC.file, RERANKER.file}


def test_a_dry_run_names_every_file_and_fetches_nothing(script: Script, hub: Hub, tmp_path: Path) -> None:
    token = "hf_" + "s3CrEt" * 6
    done = script("all", "--dry-run", "--dir", "models", hub=hub, HF_TOKEN=token)
    assert done.returncode == 0, done.stderr
    for name in NAMES.values():
        assert f"{hub.endpoint}/{presets()[name].repo}" in done.stdout
    assert "438,376,864 bytes" in done.stdout
    assert token not in done.stdout + done.stderr
    assert hub.seen == []
    assert not (tmp_path / "models").exists()


def test_the_list_says_what_the_names_stand_for(script: Script) -> None:
    lines = script("--list").stdout.split("\n")
    assert [line.split() for line in lines if line] == [[name, preset] for name, preset in NAMES.items()]


@pytest.mark.parametrize("arguments", [[], ["--dir"], ["gpt-4"], ["--dry-run"]])
def test_wrong_usage_is_told_and_ends_with_2(script: Script, arguments: list[str]) -> None:
    done = script(*arguments)
    assert done.returncode == 2
    assert "usage: scripts/download_models.sh" in done.stderr


def test_a_python_without_ggrank_is_told_what_to_do(script: Script, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    done = script("bge", PYTHON=str(python))
    assert done.returncode == 1
    assert "has no ggrank: run 'make demo' once" in done.stderr
