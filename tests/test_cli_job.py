"""``ggrank job embed`` and ``ggrank job score``: from files and pipes, to files and pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from click import Option

import tiny_models
from command_line import ENVIRONMENT, ggrank, json_lines, on_terminal, plain
from ggrank import Llama
from ggrank.cli.job import job
from job_rows import piped, read_jsonl, text, write_jsonl

PAIRS = [
    {"query": "who hums?", "document": "Bees hum.", "label": 1},
    {"query": "who hums?", "document": "Cars rust.", "label": 0},
    {"query": "what rusts?", "document": "Cars rust.", "label": 1},
]


@pytest.fixture(scope="module")
def expected() -> list[float]:
    with Llama.load("ggrank-reranker-mini") as llama:
        return llama.score_pairs((str(pair["query"]), str(pair["document"])) for pair in PAIRS).tolist()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-mean", tmp_path_factory.mktemp("models"))


def test_each_job_has_at_most_14_options() -> None:
    for command in job.commands.values():
        assert sum(isinstance(param, Option) for param in command.params) <= 14


def test_scores_go_to_stdout_as_json_lines(tmp_path: Path, expected: list[float]) -> None:
    source = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    for result in (ggrank("job", "score", source), ggrank("job", "score", stdin=source.read_bytes())):
        lines = json_lines(result)
        assert [{**pair, "score_truncated": False} for pair in PAIRS] == [
            {name: value for name, value in line.items() if name != "score"} for line in lines
        ]
        np.testing.assert_allclose([line["score"] for line in lines], expected, atol=1e-5)


def test_a_job_of_which_no_row_could_be_used_ends_with_an_error(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "pairs.jsonl", [b"bad", b'{"query": "q", "document": 5}'])
    (tmp_path / "empty.jsonl").touch()
    for name, message, n_bad in (
        ("pairs.jsonl", "no row could be used of", 2),
        ("empty.jsonl", "there are no rows in", 0),
    ):
        for output in ([], ["--output", tmp_path / "out.jsonl"]):
            result = ggrank("job", "score", tmp_path / name, *output)
            summary = json.loads(result.stdout if output else result.stderr.splitlines()[-2])
            assert (result.exit_code, summary["bad_rows"]) == (1, n_bad)
            assert result.stderr.splitlines()[-1] == f"Error: {message} {tmp_path / name}"
    assert not (tmp_path / "out.jsonl").exists()
    write_jsonl(source, PAIRS)
    assert ggrank("job", "score", source, "--output", tmp_path / "out.jsonl").exit_code == 0


def test_a_csv_s_columns_can_be_named(tmp_path: Path, expected: list[float]) -> None:
    lines = ["question,passage", *(f"{pair['query']},{pair['document']}" for pair in PAIRS)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    command = ["job", "score", tmp_path / "pairs.csv", "--output", tmp_path / "out.jsonl"]
    result = ggrank(*command)
    assert result.exit_code == 1
    assert "no column 'query'; the columns are: question, passage." in result.stderr
    assert "--query-column and --document-column" in result.stderr
    command += ["--query-column", "question", "--document-column", "passage", "--column", "logit"]
    summary = json_lines(ggrank(*command))[-1]
    assert (summary["rows"], summary["bad_rows"], summary["output"]) == (3, 0, str(tmp_path / "out.jsonl"))
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert list(rows[0]) == ["question", "passage", "logit", "logit_truncated"]
    np.testing.assert_allclose([row["logit"] for row in rows], expected, atol=1e-5)


def test_bad_rows_are_counted_and_named(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "pairs.jsonl", [PAIRS[0], b"bad", PAIRS[1]])
    result = ggrank("job", "score", source, "--output", tmp_path / "out.jsonl")
    assert result.exit_code == 0
    assert f"1 row left out; which and why: {tmp_path}/out.jsonl.bad.jsonl" in result.stderr
    assert json.loads(result.stdout)["bad_rows"] == 1
    streamed = ggrank("job", "score", source)
    assert len(streamed.stdout.splitlines()) == 2
    assert "pairs.jsonl:2: left out: not JSON" in streamed.stderr
    summary = json.loads(streamed.stderr.splitlines()[-1])
    assert (summary["rows"], summary["bad_rows"], summary["output"]) == (2, 1, "-")


def test_files_that_are_gone_are_named(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "corpus").mkdir()
    for name in "ab":
        write_jsonl(tmp_path / "corpus" / f"{name}.jsonl", [{"text": name}])
    command = ("job", "embed", tmp_path / "corpus", "-o", tmp_path / "out", "--model", tiny)
    assert ggrank(*command).exit_code == 0
    (tmp_path / "corpus" / "b.jsonl").unlink()
    result = ggrank(*command)
    assert "b.jsonl: gone since an earlier run; rows that were done stay" in result.stderr
    assert json.loads(result.stdout)["rows"] == 2


def test_the_summary_says_which_engine_computed(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    for engine in ("llama.cpp", "auto"):
        with Llama.load("ggrank-reranker-mini", engine=engine) as llama:
            expected = llama.engine
        command = ("job", "score", source, "--engine", engine)
        for _ in range(2):  # the second time it is done already
            written = ggrank(*command, "--output", tmp_path / f"{engine}.jsonl")
            assert json.loads(written.stdout)["engine"] == expected
        streamed = ggrank(*command, "--workers", "2")
        assert json.loads(streamed.stderr.splitlines()[-1])["engine"] == expected


def test_an_embedder_cannot_score(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    result = ggrank("job", "score", source, "--model", "all-minilm-l6-v2")
    assert result.exit_code == 1
    assert "has no logits" in result.stderr


def test_wrong_usage_exits_with_2(tmp_path: Path) -> None:
    pairs = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    for args in (
        ["--output", "out.txt"],
        ["--shard-rows", "0"],
        ["--output-format", "npy"],
        ["--ray", "auto"],
    ):
        result = ggrank("job", "score", pairs, *args)
        assert result.exit_code == 2
        assert "Usage:" in result.stderr


@pytest.mark.parametrize("stdin", ["bees hum\nwasps\n", '{"text": "bees hum"}\n{"text": "wasps"}\n'])
def test_a_job_takes_stdin_for_what_its_first_line_is(stdin: str, tmp_path: Path, tiny: Path) -> None:
    for output in (tmp_path / "out.jsonl", tmp_path / "out"):
        options = ("--model", tiny, "--output", output, "--output-format", "jsonl")
        code, stdout, stderr = piped(stdin, "job", "embed", *options)
        assert (code, "stdin is read as lines, a text each" in stderr) == (0, stdin.startswith("bees"))
        assert json.loads(stdout)["bad_rows"] == 0
    for written in (tmp_path / "out.jsonl", tmp_path / "out" / "part-00000-00000.jsonl"):
        assert [row["text"] for row in read_jsonl(written)] == ["bees hum", "wasps"]


def test_score_asks_what_stdin_is_where_it_cannot_know(tmp_path: Path) -> None:
    pairs = "question,answer\nwho hums?,Bees hum.\n"
    code, stdout, stderr = piped(pairs, "job", "score", "--output", tmp_path / "out.jsonl")
    assert (code, stdout, len(stderr.splitlines())) == (1, "", 1)
    assert "the columns are: text" in stderr
    assert "--format says what the file is" in stderr
    assert not list(tmp_path.iterdir())
    columns = ("--query-column", "question", "--document-column", "answer")
    assert piped(pairs, "job", "score", "--format", "csv", *columns)[0] == 0


@pytest.mark.parametrize("output", [(), ("--output", "-")])
def test_csv_on_stdin_is_known_by_the_name_of_a_column(output: tuple[str, ...]) -> None:
    code, stdout, _ = piped("\nquery,document\nwho hums?,Bees hum.\n", "job", "score", *output)
    assert (code, list(json.loads(stdout))) == (0, ["query", "document", "score", "score_truncated"])


def test_a_slash_makes_a_folder_and_a_folder_in_a_file_s_place_is_refused(tmp_path: Path, tiny: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "bees"}])
    command = ("job", "embed", source, "--model", tiny, "--output-format", "jsonl", "--output")
    for new_rows in (1, 0):
        assert json_lines(ggrank(*command, f"{tmp_path}/vectors.parquet/"))[-1]["new_rows"] == new_rows
    shard = tmp_path / "vectors.parquet" / "part-00000-00000.jsonl"
    assert [row["text"] for row in read_jsonl(shard)] == ["bees"]
    result = ggrank(*command, tmp_path / "vectors.parquet")
    assert result.exit_code == 1
    assert "is a folder, and a file should go there" in result.stderr


def test_a_terminal_shows_rows_speed_and_the_summary(tmp_path: Path, tiny: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ({"text": text(i)} for i in range(30)))
    args = ["job", "embed", source, "--model", tiny, "--output", tmp_path / "out.jsonl"]
    shown = plain(on_terminal(*map(str, args), "--shard-rows", "10", columns=120))
    assert any("30 rows" in line and "tokens/s" in line for line in shown)
    assert '"rows": 30' in shown[-1]


CHILD = """
    import json, resource, sys
    from pathlib import Path
    from ggrank import LlamaParams
    from ggrank.jobs import EmbedStep, Job, find_sources, run

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def job(n, name):
        rows = Path(name + ".jsonl")
        with rows.open("w") as file:
            for i in range(n):
                row = {"text": f"document {i // 50}", "ballast": f"{i + 100_000}" * 100}
                file.write(json.dumps(row) + chr(10))
        output = Path(name + "-out" + sys.argv[2])
        step = EmbedStep(LlamaParams(sys.argv[1], engine="llama.cpp", n_threads=1))
        summary = run(Job(step, find_sources([str(rows)]), output, shard_rows=4000))
        assert summary.rows == n

    job(8_000, "few")
    before = peak()
    job(100_000, "many")
    print(peak() - before)
"""


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_memory_stays_flat_over_100_000_rows(tmp_path: Path, tiny: Path, suffix: str) -> None:
    pytest.importorskip("resource")
    pytest.importorskip("pyarrow")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), tiny, suffix],
        env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 15_000_000  # the rows are 65 MB, read and written
