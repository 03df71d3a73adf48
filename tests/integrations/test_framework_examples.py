"""The frameworks' examples, and the code in docs/integrations.md, run without any network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parent.parent.parent
FRAMEWORKS = {"langchain": "langchain_classic", "llama_index": "llama_index.core", "haystack": "haystack"}

# Every Python that finds it on its path imports it: looking up a name or connecting is an error, and shown.
NO_NETWORK = """\
import os, socket
def refuse(*args, **options):
    os.write(2, f"network: {args}".encode())
    raise OSError("no network in this test")
socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refuse
"""


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(FRAMEWORKS[request.param])
    name: str = request.param
    return name


def run_without_network(arguments: list[str | Path], home: Path) -> list[str]:
    """The lines that Python prints, with a home of its own: no other one's settings make a difference."""
    (home / "sitecustomize.py").write_text(NO_NETWORK, "utf-8")
    paths = os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH")]))
    variables = {"PYTHONPATH": paths, "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, **variables},
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_an_example_puts_the_answer_first(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HAYSTACK_TELEMETRY_ENABLED", raising=False)  # the example sees to it itself
    example = ROOT / "examples" / f"{framework}_reranker.py"
    best, second = run_without_network([example, "ggrank-reranker-mini"], tmp_path)[2:]
    assert "Cooked rice keeps three to four days" in best
    assert float(best.split()[0]) > float(second.split()[0])


def test_the_code_in_the_docs_puts_the_answer_first(
    framework: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    page = (ROOT / "docs" / "integrations.md").read_text("utf-8")
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    title = {"langchain": "LangChain", "llama_index": "LlamaIndex", "haystack": "Haystack"}[framework]
    code = sections[title].split("```python\n")[1].split("```")[0]
    lines = run_without_network(["-c", code], tmp_path)
    assert lines[0].endswith("Llamas live in the Andes.")
    assert len(lines) == 2
