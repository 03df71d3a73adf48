"""``ggrank eval``: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("ir_measures")

import tiny_models
from command_line import ENVIRONMENT, ggrank, json_lines, on_terminal, plain, process

# One thread: threads of small models wait for each other longer than they compute on a busy machine.
EVAL = ("eval", "--n-threads", "1")

SMALL_SET = Path(__file__).parent / "data" / "small_set"
FIRST_BYTES = {".png": b"\x89PNG\r\n\x1a\n", ".svg": b"<?xml", ".pdf": b"%PDF-"}


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "pairs.tsv"
    path.write_text("capital of France\tParis\nanimal of the Andes\ta llama\n", "utf-8")
    return path


def test_a_pipe_gets_one_json_line_for_each_set(pairs: Path) -> None:
    lines = json_lines(ggrank(*EVAL, SMALL_SET, pairs))
    assert [line["name"] for line in lines] == ["small_set", "pairs"]
    assert [one["system"] for one in lines[1]["systems"]] == ["embedder", "BM25", "RRF", "fusion"]
    assert lines[1]["systems"][0]["metrics"]["nDCG@10"] == 1.0
    assert len(lines[0]["made_with"]["embedder"]["sha256"]) == 64


def test_a_terminal_gets_tables_that_fit(pairs: Path, reranker: Path) -> None:
    lines = plain(
        on_terminal(
            *EVAL, str(SMALL_SET), str(pairs), "-r", str(reranker), "--top-k", "9", "--explain", columns=80
        )
    )
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "documents: 30 · queries: 12 · left out without a relevant document: 1" in text
    assert "reranker bert-reranker-f32: bert-reranker-f32.gguf, f32" in text
    assert "embedder: all-minilm-l6-v2-q8_0.gguf, q8_0" in text
    assert "most harmed by bert-reranker-f32@9" in text
    assert "all sets: nDCG@10" in text


def test_with_a_cache_the_rankings_are_the_same_and_a_note_says_that_times_mean_nothing(
    pairs: Path, reranker: Path, tmp_path: Path
) -> None:
    evaluate = (*EVAL, pairs, "-r", reranker, "--engine", "llama.cpp")
    (without,) = json_lines(ggrank(*evaluate))
    for _ in range(2):
        result = ggrank(*evaluate, "--cache", tmp_path / "cache")
        (line,) = json_lines(result)
        assert "milliseconds are not those of the models" in result.stderr
        assert [one["metrics"] for one in line["systems"]] == [one["metrics"] for one in without["systems"]]
    assert line["made_with"]["settings"]["cache"] is True
    assert line["made_with"]["embedder"]["engine"] == "llama.cpp"


def test_without_a_reranker_the_queries_that_fusion_changed_are_listed() -> None:
    assert "most harmed by fusion" in ggrank(*EVAL, SMALL_SET, "--table", "--explain").stdout
    assert "most harmed by" not in ggrank(*EVAL, SMALL_SET, "--table").stdout


def test_json_markdown_and_plot_are_written_and_nothing_else(
    pairs: Path, reranker: Path, tmp_path: Path
) -> None:
    names = [tmp_path / name for name in ("r.json", "r.md", "r.png")]
    options = [part for name in names for part in ("--save", name)]
    result = ggrank(*EVAL, SMALL_SET, pairs, "-r", reranker, "--top-k", "10", *options)
    assert result.exit_code == 0, result.output
    report = json.loads(names[0].read_text("utf-8"))
    assert [one["name"] for one in report["sets"]] == ["small_set", "pairs"]
    assert report["made_with"]["rerankers"]["bert-reranker-f32"]["file"] == reranker.name
    assert report["made_with"]["settings"]["top_k"] == [10]
    assert "| bert-reranker-f32@10 |" in names[1].read_text("utf-8")
    assert sorted(tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize("suffix", FIRST_BYTES)
def test_a_plot_is_of_the_form_that_its_name_says(pairs: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot{suffix}"
    odd_name = tmp_path / "_costs $5 or $6_.tsv"  # no formula, and not hidden
    odd_name.write_bytes(pairs.read_bytes())
    assert ggrank(*EVAL, odd_name, "--save", path).exit_code == 0
    assert path.read_bytes().startswith(FIRST_BYTES[suffix])


def test_a_sample_is_the_same_every_time_and_is_told() -> None:
    def sampled() -> list[str]:
        result = ggrank(*EVAL, SMALL_SET, "--limit", "3", "--table")
        return [line for line in result.stdout.splitlines() if "BM25" in line or "sampled" in line]

    first, again = sampled(), sampled()
    assert "queries: 3 · sampled with seed 20261121 from: 12" in first[0]
    assert [line.split()[:6] for line in first] == [line.split()[:6] for line in again]


def test_a_run_of_another_system_is_compared_and_reranked(reranker: Path, tmp_path: Path) -> None:
    run = tmp_path / "perfect.trec"
    lines = (SMALL_SET / "qrels.tsv").read_text("utf-8").splitlines()[1:]
    judged = [line.split() for line in lines]
    run.write_text("".join(f"{fields[0]} Q0 {fields[-2]} 1 {fields[-1]} x\n" for fields in judged), "utf-8")
    (line,) = json_lines(ggrank(*EVAL, SMALL_SET, "--run", run, "-r", reranker, "--top-k", "1"))
    found = {one["system"]: one["metrics"]["nDCG@10"] for one in line["systems"]}
    assert found["perfect"] == 1.0
    assert found["perfect + bert-reranker-f32@1"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--save", "picture.bmp"], "must end in .json, .md, .png, .svg, .pdf"),
        (["--save", "no/such/folder/r.json"], "does not exist"),
        (["--save", "same.md", "--save", "./same.md"], "same file name"),
        (["--top-k", "101"], "1<=x<=100"),
        (["--reranker", "no/such.gguf"], "no/such.gguf"),
        (["--reranker", "one/name.gguf", "--reranker", "another/name.gguf"], "same name"),
        ([str(SMALL_SET)], "same name"),
        (["--run", str(SMALL_SET / "corpus.jsonl")], "corpus.jsonl:1: expected query id, Q0, document id"),
        ([str(SMALL_SET.parent), "--run", str(SMALL_SET / "qrels.tsv")], "--run is a ranking of one SET"),
    ],
)
def test_wrong_usage_is_told_before_the_work(arguments: list[str], message: str) -> None:
    result = ggrank(*EVAL, SMALL_SET, *arguments)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())
    assert result.stdout == ""


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="this system has no /dev/null")
def test_a_device_is_not_replaced_by_a_file() -> None:
    result = ggrank(*EVAL, SMALL_SET, "--save", "/dev/null")
    assert (result.exit_code, Path("/dev/null").is_char_device()) == (1, True)


def test_without_the_extra_the_command_to_install_it_is_named(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "ir_measures.py").write_text("raise ImportError('as if it were not there')\n", "utf-8")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    done = process(*EVAL, pairs, PYTHONPATH=path)
    assert done.returncode == 1
    assert done.stderr == "Error: Metrics need ir-measures: pip install 'ggrank[eval]'\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_keeps_the_sets_that_are_done(pairs: Path, tmp_path: Path) -> None:
    saved, large = tmp_path / "r.json", tmp_path / "large.tsv"
    large.write_text("".join(f"query {i}\tpassage {i} {'word ' * 200}\n" for i in range(20_000)), "utf-8")
    child = subprocess.Popen(
        [sys.executable, "-m", "ggrank", *EVAL, pairs, large, "--save", saved],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        # A test run in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not saved.exists() and child.poll() is None:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=600)
    assert (child.returncode, error) == (130, b"")
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["pairs"]
    assert [one["name"] for one in json.loads(saved.read_text("utf-8"))["sets"]] == ["pairs"]
    assert sorted(tmp_path.iterdir()) == [large, saved]
