"""Every code block of README.md runs as it stands.

`make demo` and `make test` are what CI runs; here they must be the Makefile's targets.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tiny import original_folder

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
PYTHON = [code for language, code in BLOCKS if language == "python"]
SHELL = [code for language, code in BLOCKS if language == "sh"]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with what the README's commands expect to find."""
    original_folder.write("bert-reranker", tmp_path / "my-reranker")
    (tmp_path / "handbook.txt").write_text("Travel is paid by the office.\nLunch is at noon.\n", "utf-8")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "travel.md").write_text("# Travel\n\nIt is paid by the office.\n", "utf-8")
    return tmp_path


def run(command: list[str], directory: Path) -> str:
    scripts = sysconfig.get_path("scripts")
    environment = {**os.environ, "PATH": os.pathsep.join([scripts, os.environ["PATH"]])}
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_is_two_screens() -> None:
    assert len(README.splitlines()) <= 120


def test_the_readme_has_blocks_of_both_kinds_and_no_other() -> None:
    assert len(PYTHON) >= 2
    assert len(SHELL) >= 2
    assert len(PYTHON) + len(SHELL) == len(BLOCKS)


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_a_python_block_runs(code: str, workplace: Path) -> None:
    assert "Traceback" not in run([sys.executable, "-c", code], workplace)


def test_the_embedding_block_prints_the_right_answer(workplace: Path) -> None:
    assert "Llamas live in the Andes." in run([sys.executable, "-c", PYTHON[0]], workplace)


@pytest.mark.skipif(sys.platform == "win32", reason="the blocks are for a POSIX shell")
@pytest.mark.parametrize("code", SHELL, ids=range(len(SHELL)))
def test_a_shell_block_runs(code: str, workplace: Path) -> None:
    if code.startswith("make "):
        targets = [line.split()[1] for line in code.splitlines()]
        run(["make", "-n", *targets], ROOT)
    else:
        run(["sh", "-ec", code], workplace)
