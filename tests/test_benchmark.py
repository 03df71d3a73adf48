"""``make bench``: runs on tiny models, and its figures; no test looks at how long anything took."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import peers
import report
import run
import tiny_models
import workload
from command_line import ENVIRONMENT
from ggrank import GgrankError, Llama

RUN = Path(run.__file__)
CELLS = ["4 of 32 tokens", "2 of 128 tokens", "20 passages of 32 tokens", "6 mixed", "4 callers"]
seconds = st.floats(1e-4, 1e4)

SERVER = """\
#!{python}
# Answers as llama-server does; the score of a document is its length. Never answers {hangs_at} documents.
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

needs_scripts = pytest.mark.skipif(sys.platform == "win32", reason="a script is no program on Windows")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reranker, in float32 and q8_0."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    for dtype in ("f32", "q8_0"):
        tiny_models.write("xlmr-reranker-512", folder, dtype=dtype)
    return folder


def command(folder: Path, output: Path, *options: str) -> list[str]:
    """One thread: threads of small models wait for each other longer than they compute on a busy machine."""
    quick = ["--quick", "--rounds", "2", "--threads", "1", "--output", str(output)]
    return [sys.executable, str(RUN), str(folder), *quick, *options]


def stand_in(folder: Path, *, hangs_at: int = 0) -> Path:
    """A program that is asked as llama-server is."""
    server = folder / "llama-server"
    server.write_text(SERVER.format(python=sys.executable, hangs_at=hangs_at), "utf-8")
    server.chmod(server.stat().st_mode | stat.S_IXUSR)
    return server


def results(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text("utf-8"))


# -- a run


@needs_scripts
def test_a_run_measures_every_cell_and_finds_the_peer_whose_scores_are_wrong(
    tiny: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    options = ("--only", "llama", "--llama-server", str(stand_in(tmp_path)))
    done = subprocess.run(
        command(tiny, tmp_path / "out", *options), capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    (model,) = results(tmp_path / "out")["models"]
    assert list(model["cells"]) == CELLS
    assert model["reference"] == "ggrank llama.cpp f32"
    own, peer = (model["peers"][name] for name in ("ggrank llama.cpp q8_0", "llama-server q8_0"))
    for one in (own, peer):
        assert {name: len(taken) for name, taken in one["seconds"].items()} == dict.fromkeys(CELLS, 2)
    assert own["agreement"] > 0.99
    assert peer["agreement"] < 0.9
    assert "| llama-server q8_0 | ggrank llama.cpp q8_0 | **" in done.stdout
    assert "- llama-server: version: 0 (a stand-in)" in done.stdout
    assert (tmp_path / "out" / "result.md").read_text("utf-8") == done.stdout
    assert (tmp_path / "out" / "result.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_measured_is_left_out_with_its_reason(tiny: Path, tmp_path: Path) -> None:
    options = ("--only", "server", "--llama-server", str(tmp_path / "nothing"))
    done = subprocess.run(command(tiny, tmp_path, *options), capture_output=True, text=True, env=ENVIRONMENT)
    assert "- left out: llama-server q8_0: it is not on PATH; name it with --llama-server" in done.stdout


@needs_scripts
def test_ctrl_c_reports_what_was_measured(tiny: Path, tmp_path: Path) -> None:
    """In the second cell, which does not end."""
    server = stand_in(tmp_path, hangs_at=2)
    child = subprocess.Popen(
        command(tiny, tmp_path, "--only", "llama", "--llama-server", str(server)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,  # Ctrl-C reaches every process of a terminal's group
        # A test run in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert child.stderr is not None
    while "4 of 32 tokens done" not in child.stderr.readline():
        assert child.poll() is None
    os.killpg(child.pid, signal.SIGINT)
    out, error = child.communicate(timeout=600)
    assert (child.returncode, error) == (1, "interrupted; what was measured is reported\n")
    assert "| ggrank llama.cpp q8_0 |" in out
    (model,) = results(tmp_path)["models"]
    assert len(model["peers"]["ggrank llama.cpp q8_0"]["seconds"]["4 of 32 tokens"]) == 2


# -- peers and models


def test_a_process_gives_the_scores_that_this_one_gives(tiny: Path) -> None:
    (model,) = run.models_in(tiny)
    peer = peers.Peer("ggrank llama.cpp", "f32", model.ggufs["f32"], True, model.n_ctx, 1)
    request = ("a query", ["one text", "another text", "a third one"])
    with peers.Resident(peer) as resident:
        resident.wait()
        answer = resident.run([request])
    with Llama.load(model.ggufs["f32"], n_ctx=model.n_ctx, engine="llama.cpp", n_threads=1) as llama:
        np.testing.assert_allclose(answer.scores[0], llama.rerank(*request), atol=1e-4)


def test_a_peer_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    lost = peers.Peer("ggrank llama.cpp", "q8_0", tmp_path / "lost.gguf", True, 512, 1)
    with peers.Resident(lost) as resident, pytest.raises(GgrankError, match=r"lost\.gguf"):
        resident.wait()


def test_a_model_is_the_folder_of_its_files(tiny: Path) -> None:
    (model,) = run.models_in(tiny.parent)
    assert (model.name, model.is_reranker, sorted(model.ggufs)) == ("tiny", True, ["f32", "q8_0"])


@pytest.mark.parametrize("n_files", [0, 2])
def test_a_folder_without_a_model_or_with_two_is_refused(tmp_path: Path, n_files: int) -> None:
    for number in range(n_files):
        tiny_models.write("bert-mean", tmp_path, dtype="q8_0").rename(tmp_path / f"{number}.gguf")
    with pytest.raises(SystemExit, match=r"expected \.gguf files|two files of one quantization"):
        run.models_in(tmp_path)


# -- texts


def test_a_cell_counts_the_tokens_that_the_model_reads(tiny: Path) -> None:
    (model,) = run.models_in(tiny)
    with Llama.load(model.ggufs["f32"], n_ctx=model.n_ctx, n_threads=1) as llama:
        for cell in workload.make_cells(llama, workload.QUICK):
            rankings = [llama.rank(query, documents) for query, documents in cell.requests]
            assert sum(ranking.n_tokens for ranking in rankings) == cell.n_tokens
            assert not any(hit.truncated for ranking in rankings for hit in ranking)


def test_the_same_passages_of_the_asked_length_come_every_time() -> None:
    def passages() -> list[str]:
        source = workload.Passages(lambda text: len(text.split()))
        return [source.draw(n) for n in range(1, 60)]

    assert passages() == passages()
    assert [len(text.split()) for text in passages()] == list(range(1, 60))


def test_mixed_lengths_are_many_short_and_few_long_ones() -> None:
    lengths = workload.Passages(len).mixed_lengths(1000, 450)
    assert min(lengths) >= 20
    assert max(lengths) <= 450
    assert np.median(lengths) < np.mean(lengths)


# -- figures


@given(st.lists(st.tuples(seconds, seconds, st.floats(0.1, 10)), min_size=1, max_size=20))
def test_a_machine_that_slows_down_for_some_rounds_changes_no_ratio(
    rounds: list[tuple[float, float, float]],
) -> None:
    own, theirs = [a for a, _, _ in rounds], [b for _, b, _ in rounds]
    slow = report.times_as_fast([a * load for a, _, load in rounds], [b * load for _, b, load in rounds])
    assert slow == pytest.approx(report.times_as_fast(own, theirs))


@given(st.lists(seconds, min_size=1, max_size=20), st.floats(0.01, 100))
def test_a_peer_that_is_slower_by_a_factor_in_every_round_gives_that_factor(
    own: list[float], factor: float
) -> None:
    assert report.times_as_fast(own, [factor * one for one in own]) == pytest.approx((factor,) * 3)


def test_llama_server_is_compared_on_its_own_file_and_other_peers_with_the_fastest() -> None:
    taken = {
        "ggrank llama.cpp q4_k_m": 2.0,
        "ggrank llama.cpp q8_0": 1.0,
        "llama-server q4_k_m": 3.0,
        "onnxruntime int8": 8.0,
    }
    found = {
        name: {
            "kind": name.rpartition(" ")[0],
            "variant": name.rpartition(" ")[2],
            "seconds": {"cell": [one]},
        }
        for name, one in taken.items()
    }
    model = {"peers": found}
    assert report.opponent(model, "llama-server q4_k_m") == "ggrank llama.cpp q4_k_m"
    assert report.opponent(model, "onnxruntime int8") == "ggrank llama.cpp q8_0"


def test_vectors_are_compared_by_cosine_and_logits_by_correlation() -> None:
    vectors, logits = np.eye(4), np.array([1.0, 2.0, 4.0])
    # Two of four are at right angles.
    assert run.agreement([vectors], [vectors[[1, 0, 2, 3]]]) == pytest.approx(0.5)
    assert run.agreement([3 * logits - 1], [logits]) == pytest.approx(1)
