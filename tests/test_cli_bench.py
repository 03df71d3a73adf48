"""``ggrank bench``: the smallest run from end to end, and what it prints, writes and refuses."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tiny_models
from command_line import ENVIRONMENT, ggrank

# One thread: threads of small models wait for each other longer than they compute on a busy machine.
BENCH = ("bench", "--size", "smallest", "--n-threads", "1", "--engine", "llama.cpp")
CELLS = ["4 of 32 tokens", "2 of 128 tokens", "20 passages of 32 tokens", "6 mixed", "4 callers"]

SERVER = """\
#!{python}
# Answers as llama-server does, the best first; the score of a document is its length. Never answers where
# there are {hangs_at} documents.
import http.server, json, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer({{"status": "ok"}})

    def do_POST(self):
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["documents"]
        if len(texts) == {hangs_at}:
            threading.Event().wait()
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        self.answer({{"results": [{{"index": i, "relevance_score": len(texts[i])}} for i in order]}})

    def answer(self, data):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(data).encode())

    def log_message(self, *args):
        pass

if "--version" in sys.argv:
    sys.exit("version: 0 (a stand-in)")
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def stand_in(folder: Path, *, hangs_at: int = 0) -> Path:
    """A program that is asked as llama-server is."""
    server = folder / "llama-server"
    server.write_text(SERVER.format(python=sys.executable, hangs_at=hangs_at), "utf-8")
    server.chmod(server.stat().st_mode | stat.S_IXUSR)
    return server


class Finished(NamedTuple):
    markdown: str
    progress: str
    json: dict[str, Any]
    folder: Path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reranker, in float32 and q8_0."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    for dtype in ("f32", "q8_0"):
        tiny_models.write("xlmr-reranker-512", folder, dtype=dtype)
    return folder


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The smallest run with the bundled models."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("results")
    names = [folder / name for name in ("r.json", "r.md", "r.png")]
    result = ggrank(*BENCH, "--save-json", names[0], "--save-markdown", names[1], "--plot", names[2])
    assert result.exit_code == 0, result.output
    return Finished(result.stdout, result.stderr, json.loads(names[0].read_text("utf-8")), folder)


def test_the_smallest_run_measures_every_cell_of_both_bundled_models(bundled: Finished) -> None:
    assert [model["name"] for model in bundled.json["models"]] == ["all-minilm-l6-v2", "ggrank-reranker-mini"]
    for model in bundled.json["models"]:
        assert [cell["name"] for cell in model["cells"]] == CELLS
        own = model["subjects"][0]
        assert own["name"] == "ggrank llama.cpp q8_0"
        for cell in CELLS:
            assert len(own["cells"][cell]["seconds"]) == 2
            assert own["cells"][cell]["tokens_per_second"]["median"] > 0
        assert len(own["cells"]["first ranking"]["seconds"]) == 2
        assert own["agreement"]["value"] == pytest.approx(1)
        assert own["share_of_peak"] > 0


def test_what_it_was_made_with_is_written(bundled: Finished) -> None:
    made_with = bundled.json["made_with"]
    assert made_with["threads"] == 1
    assert made_with["flops"] > 0
    assert made_with["cores"] >= 1
    assert made_with["versions"]["llama-cpp-python"]


def test_the_table_is_printed_and_saved_the_same_and_the_plot_is_drawn(bundled: Finished) -> None:
    assert (bundled.folder / "r.md").read_text("utf-8") == bundled.markdown
    assert "| ggrank llama.cpp q8_0 |" in bundled.markdown
    assert "left out: llama-server" in bundled.markdown
    assert bundled.markdown.startswith("The smallest size only proves that the benchmark works")
    assert "| 20 passages of 32 tokens, ms |" in bundled.markdown
    assert "GFLOPS, measured" in bundled.markdown
    assert (bundled.folder / "r.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert sorted(path.name for path in bundled.folder.iterdir()) == ["r.json", "r.md", "r.png"]


def test_progress_goes_to_stderr(bundled: Finished) -> None:
    assert "all-minilm-l6-v2: 6 mixed done" in bundled.progress
    assert "done" not in bundled.markdown


@pytest.mark.skipif(sys.platform == "win32", reason="a script is no program there")
def test_llama_server_is_asked_over_http_and_its_scores_are_compared(tiny: Path, tmp_path: Path) -> None:
    server, saved = stand_in(tmp_path), tmp_path / "r.json"
    result = ggrank(*BENCH, tiny, "--llama-server", server, "--save-json", saved)
    assert result.exit_code == 0, result.output
    report = json.loads(saved.read_text("utf-8"))
    assert report["made_with"]["llama-server"] == "version: 0 (a stand-in)"
    own, peer = report["models"][0]["subjects"]
    assert (own["name"], peer["name"]) == ("ggrank llama.cpp q8_0", "llama-server q8_0")
    assert peer["compared_with"] == own["name"]
    assert peer["cells"]["4 callers"]["ggrank_times_as_fast"]["median"] > 0
    assert report["models"][0]["reference"] == "ggrank llama.cpp f32"
    assert own["agreement"]["value"] > 0.99
    assert peer["agreement"]["value"] < 0.9, "whoever is fast by being wrong is found out"
    assert "| llama-server q8_0 | ggrank llama.cpp q8_0 | **" in result.stdout


def test_growth_is_measured_by_passages_length_and_threads(tiny: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    saved, plot = tmp_path / "r.json", tmp_path / "r.svg"
    result = ggrank(*BENCH, tiny, "--growth", "--save-json", saved, "--plot", plot)
    assert result.exit_code == 0, result.output
    points = json.loads(saved.read_text("utf-8"))["models"][0]["growth"]
    xs = {
        axis: [one["x"] for one in points if one["axis"] == axis]
        for axis in ("passages", "length", "threads")
    }
    assert xs["passages"] == [2, 4, 8]
    assert xs["length"] == [16, 32, 64, 128, 256, 512]
    assert xs["threads"][0] == 1
    assert all(one["seconds"] > 0 for one in points)
    assert plot.read_bytes().startswith(b"<?xml")
    assert "| passages | 8 |" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot", "picture.bmp"], "ends in .png, .svg, .pdf"),
        (["--save-json", "no/such/folder/r.json"], "does not exist"),
        (["--llama-server", "no/such/program"], "no/such/program is no program"),
        (["--llama-server", __file__], "test_cli_bench.py is no program"),
        (["--size", "huge"], "'huge' is not one of"),
        (
            ["--only", "ggrank", "--only", "nothing-like-it"],
            "'nothing-like-it' in its name: fastembed-style fp32,",
        ),
        (["--quantization", "q5_k_m"], "no file is q5_k_m; there are: q8_0"),
        ([str(Path(__file__).parent / "data")], "expected .gguf files"),
    ],
)
def test_wrong_usage_is_told_before_the_work(arguments: list[str], message: str) -> None:
    result = ggrank("bench", *arguments)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())
    assert result.stdout == ""


def test_where_all_that_was_asked_for_is_missing_the_reasons_are_told_and_nothing_is_done() -> None:
    result = ggrank(*BENCH, "--only", "fastembed")
    assert "left out: fastembed-style fp32: " in result.stdout
    assert result.stderr == ""


def test_a_model_that_fails_costs_nothing_of_what_was_measured(tiny: Path, tmp_path: Path) -> None:
    saved, bad = tmp_path / "r.json", tmp_path / "bad" / "bad.gguf"
    bad.parent.mkdir()
    data = bytearray(tiny_models.write("bert-reranker", tmp_path, dtype="q8_0").read_bytes())
    name = data.index(b"blk.0.ffn_up.weight")
    data[-4096:] = b"\xff" * 4096  # scales that are no numbers
    assert name
    bad.write_bytes(data)
    result = ggrank(*BENCH, "--quantization", "q8_0", tiny, bad.parent, "--save-json", saved)
    assert result.exit_code == 1
    assert "bad.gguf" in result.stderr
    assert "| ggrank llama.cpp q8_0 |" in result.stdout
    assert [model["name"] for model in json.loads(saved.read_text("utf-8"))["models"]] == ["tiny"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_prints_and_keeps_what_was_measured(tiny: Path, tmp_path: Path) -> None:
    """In the second cell, which does not end."""
    server, saved = stand_in(tmp_path, hangs_at=2), tmp_path / "r.json"
    child = subprocess.Popen(
        [sys.executable, "-m", "ggrank", *BENCH, tiny, "--llama-server", server, "--save-json", saved],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # A test run in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stderr is not None
    for line in child.stderr:
        if "4 of 32 tokens done" in line:
            break
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=600)
    assert (child.returncode, error) == (130, "")
    assert "| ggrank llama.cpp q8_0 |" in out
    model = json.loads(saved.read_text("utf-8"))["models"][0]
    assert model["cells"][0]["name"] == "4 of 32 tokens"
    assert len(model["subjects"][0]["cells"]["4 of 32 tokens"]["seconds"]) == 2
