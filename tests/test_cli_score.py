"""``ggrank score`` and the jobs of ``ggrank embed``: from files and pipes, to files and pipes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import tiny_models
from command_line import ENVIRONMENT, ggrank, json_lines, on_terminal, plain
from corpus_jobs import piped, read_jsonl, text, write_jsonl
from ggrank import Llama

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


def test_scores_go_to_stdout_as_json_lines(tmp_path: Path, expected: list[float]) -> None:
    lines = json_lines(ggrank("score", write_jsonl(tmp_path / "pairs.jsonl", PAIRS)))
    assert [{**pair, "score_truncated": False} for pair in PAIRS] == [
        {name: value for name, value in line.items() if name != "score"} for line in lines
    ]
    np.testing.assert_allclose([line["score"] for line in lines], expected, atol=1e-5)


def test_stdin_is_json_lines(expected: list[float]) -> None:
    lines = json_lines(ggrank("score", stdin="".join(json.dumps(pair) + "\n" for pair in PAIRS)))
    np.testing.assert_allclose([line["score"] for line in lines], expected, atol=1e-5)


def test_a_job_of_which_no_row_could_be_used_ends_with_an_error(tmp_path: Path) -> None:
    source = tmp_path / "pairs.jsonl"
    for line, reason, is_other in (
        (b"who hums?,Bees hum.", "not JSON", True),
        (b'{"query": "who hums?", "document": 5}', "column 'document' holds no string: int", False),
    ):
        write_jsonl(source, [line, b"later"])
        written = ggrank("score", source, "--output", tmp_path / "out.jsonl")
        streamed = ggrank("score", source)
        for result, summary in ((written, written.stdout), (streamed, streamed.stderr.splitlines()[-2])):
            error = result.stderr.splitlines()[-1]
            assert result.exit_code == 1
            assert f"the first: {source}:1: {reason}" in error
            assert ("--format" in error) == is_other
            assert json.loads(summary)["bad_rows"] == 2
    assert not (tmp_path / "out.jsonl").exists()
    write_jsonl(source, PAIRS)
    assert ggrank("score", source, "--output", tmp_path / "out.jsonl").exit_code == 0


def test_an_input_without_rows_ends_with_an_error(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").touch()
    for args, name in ((["score"], "stdin"), (["score", tmp_path / "pairs.jsonl"], "pairs.jsonl")):
        for output in ([], ["--output", tmp_path / "out.jsonl"]):
            result = ggrank(*args, *output, stdin="")
            assert result.exit_code == 1
            assert "there are no rows in " in result.stderr.splitlines()[-1]
            assert result.stderr.splitlines()[-1].endswith(name)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]


def test_stdin_in_parts_is_the_same_job_when_the_same_rows_come_again(tmp_path: Path) -> None:
    pairs = "".join(json.dumps(pair) + "\n" for pair in PAIRS)
    command = ("score", "-", "--output", tmp_path / "out", "--output-format", "jsonl", "--part-rows", "2")
    first = json.loads(ggrank(*command, stdin=pairs).stdout)
    assert (first["rows"], first["parts"]) == (3, 2)
    assert json.loads(ggrank(*command, stdin=pairs).stdout)["resumed_rows"] == 3
    assert "input.stdin" in ggrank(*command, stdin=pairs.replace("Bees", "Wasps")).stderr


def test_a_csv_s_columns_can_be_named(tmp_path: Path, expected: list[float]) -> None:
    lines = ["question,passage", *(f"{pair['query']},{pair['document']}" for pair in PAIRS)]
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    command = ["score", tmp_path / "pairs.csv", "--output", tmp_path / "out.jsonl"]
    result = ggrank(*command)
    assert result.exit_code == 1
    assert "no column 'query'; the columns are: question, passage." in result.stderr
    assert "--query-column and --document-column" in result.stderr
    assert "--text-column" not in result.stderr
    assert "--text-column" in ggrank("embed", "--file", tmp_path / "pairs.csv").stderr
    command += ["--query-column", "question", "--document-column", "passage", "--output-column", "logit"]
    summary = json_lines(ggrank(*command))[-1]
    assert (summary["rows"], summary["bad_rows"], summary["output"]) == (3, 0, str(tmp_path / "out.jsonl"))
    rows = read_jsonl(tmp_path / "out.jsonl")
    assert list(rows[0]) == ["question", "passage", "logit", "logit_truncated"]
    np.testing.assert_allclose([row["logit"] for row in rows], expected, atol=1e-5)


def test_bad_rows_are_counted_and_strict_stops(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "pairs.jsonl", [PAIRS[0], b"bad", PAIRS[1]])
    result = ggrank("score", source, "--output", tmp_path / "out.jsonl")
    assert result.exit_code == 0
    assert "1 row was left out" in result.stderr
    assert json.loads(result.stdout)["bad_rows"] == 1
    streamed = ggrank("score", source)
    assert len(streamed.stdout.splitlines()) == 2
    assert "pairs.jsonl:2: left out: not JSON" in streamed.stderr
    summary = json.loads(streamed.stderr.splitlines()[-1])
    assert (summary["rows"], summary["bad_rows"], summary["output"]) == (2, 1, "-")
    assert ggrank("score", source, "--strict").exit_code == 1


def test_the_summary_says_which_engine_computed(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    for engine in ("llama.cpp", "auto"):
        with Llama.load("ggrank-reranker-mini", engine=engine) as llama:
            expected = llama.engine
        command = ("score", source, "--engine", engine)
        for _ in range(2):  # the second time it is done already
            written = ggrank(*command, "--output", tmp_path / f"{engine}.jsonl")
            assert json.loads(written.stdout)["engine"] == expected
        streamed = ggrank(*command, "--workers", "2")
        assert json.loads(streamed.stderr.splitlines()[-1])["engine"] == expected


def test_an_embedder_cannot_score(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "pairs.jsonl", PAIRS)
    result = ggrank("score", source, "--model", "all-minilm-l6-v2")
    assert result.exit_code == 1
    assert "has no logits" in result.stderr


@pytest.mark.parametrize(
    "args",
    [
        ["score", "no/such/file.jsonl"],
        ["score", "*.none"],
        ["embed", "a text", "--output", "vectors.parquet"],
        ["embed", "a text", "--workers", "2"],
        ["embed", "--file", "{pairs}", "--output", "out.parquet", "--truncate", "error"],
        ["score", "{pairs}", "--output", "out.txt"],
        ["score", "{pairs}", "--output", "out.jsonl", "--output-format", "parquet"],
        ["score", "{pairs}", "--output-format", "npy"],
        ["score", "{pairs}", "--output", "out.jsonl", "--cache", "cache"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str], tmp_path: Path) -> None:
    pairs = str(write_jsonl(tmp_path / "pairs.jsonl", PAIRS))
    result = ggrank(*(arg.replace("{pairs}", pairs) for arg in args))
    assert result.exit_code == 2, result.output
    assert "Usage:" in result.stderr


def test_a_few_texts_come_as_int8_and_as_bits() -> None:
    lines = json_lines(ggrank("embed", "one", "two", "--dtype", "int8"))
    assert max(map(abs, lines[0]["embedding"])) == 127
    bits = json_lines(ggrank("embed", "one", "--dtype", "binary"))[0]["embedding"]
    with Llama.load("all-minilm-l6-v2") as llama:
        assert bits == np.packbits(llama.embed("one") > 0).tolist()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--output", "hi.jsonl"], "leave out --output, and write > hi.jsonl"),
        (["--output-format", "jsonl"], "--output-format is for a job"),
        (["--text-column", "n"], "--text-column is for a job"),
        (["--format", "csv"], "--format csv is for a job"),
        (["--engine", "ray"], "--engine ray or --address is for a job"),
        (["--file", "pairs.jsonl"], "--file pairs.jsonl is for a job"),
        (["--file", "notes.txt", "--output", "hi.parquet"], "--output hi.parquet is for a job"),
    ],
)
def test_texts_with_what_only_a_job_has_are_told_which_option_that_is(
    args: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("pairs.jsonl", "notes.txt"):
        write_jsonl(tmp_path / name, PAIRS)
    result = ggrank("embed", "hi", *args)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize("named", ["rows.csv", "rows.jsonl", "folder", "fol*/*", "rows.txt --format jsonl"])
def test_embed_streams_rows_to_stdout_wherever_rows_are_named(named: str, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "rows.csv").write_text("id,text\n7,bees\n")
    for name in ("rows.jsonl", "rows.txt", "folder/rows.jsonl"):
        write_jsonl(tmp_path / name, [{"id": "7", "text": "bees"}])
    name, *options = named.split()
    line = json_lines(ggrank("embed", "--file", tmp_path / name, *options, "--model", tiny))[0]
    assert (line["id"], line["text"], line["embedding_truncated"]) == ("7", "bees", False)


def test_embed_takes_plain_lines_and_folders_of_notes_for_texts(tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "note.txt").write_text("bees\nwasps\n")
    for named, ids in ((tmp_path / "note.txt", [None, None]), (tmp_path, ["note.txt"])):
        lines = json_lines(ggrank("embed", "--file", named, "--model", tiny))
        assert [(line["index"], line["id"], "text" in line) for line in lines] == [
            (index, id, False) for index, id in enumerate(ids)
        ]


@pytest.mark.parametrize(
    "stdin", ["bees hum\nwasps {sting}\n", '{"text": "bees hum"}\n{"text": "wasps {sting}"}\n']
)
def test_a_job_takes_stdin_for_what_its_first_line_is(stdin: str, tmp_path: Path, tiny: Path) -> None:
    for output in (tmp_path / "out.jsonl", tmp_path / "out"):
        options = ("--model", tiny, "--output", output, "--output-format", "jsonl")
        code, stdout, stderr = piped(stdin, "embed", *options)
        assert (code, stderr) == (0, "")
        assert json.loads(stdout)["bad_rows"] == 0
    for written in (tmp_path / "out.jsonl", tmp_path / "out" / "part-00000.jsonl"):
        assert [row["text"] for row in read_jsonl(written)] == ["bees hum", "wasps {sting}"]


def test_stdin_whose_first_line_is_a_broken_object_is_json_all_the_same(tmp_path: Path, tiny: Path) -> None:
    rows = '{"text": "never clo\n{"text": "bees hum"}\n'
    code, stdout, _ = piped(rows, "embed", "--model", tiny, "--output", tmp_path / "out.jsonl")
    assert (code, json.loads(stdout)["bad_rows"]) == (0, 1)
    assert [row["text"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["bees hum"]


def test_a_slash_makes_a_folder_and_a_folder_in_a_file_s_place_is_refused(tmp_path: Path, tiny: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "bees"}])
    command = ("embed", "--file", source, "--model", tiny, "--output-format", "jsonl", "--output")
    folder = f"{tmp_path}/vectors.parquet/"
    for resumed_rows in (0, 1):
        assert json_lines(ggrank(*command, folder))[-1]["resumed_rows"] == resumed_rows
    assert [row["text"] for row in read_jsonl(tmp_path / "vectors.parquet" / "part-00000.jsonl")] == ["bees"]
    result = ggrank(*command, tmp_path / "vectors.parquet")
    assert result.exit_code == 1
    assert "is a folder, and a file should go there" in result.stderr
    assert not (tmp_path / "vectors.parquet.parts").exists()


def test_score_asks_what_stdin_is_where_it_is_no_json(tmp_path: Path) -> None:
    pairs = "query,document\nwho hums?,Bees hum.\n"
    code, stdout, stderr = piped(pairs, "score", "--output", tmp_path / "out.jsonl")
    assert (code, stdout, len(stderr.splitlines())) == (1, "", 1)
    assert "begins with 'query,document'" in stderr
    assert "--format csv" in stderr
    assert not list(tmp_path.iterdir())
    assert piped(pairs, "score", "--format", "csv")[0] == 0


def test_a_terminal_shows_rows_speed_and_the_summary(tmp_path: Path, tiny: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", ({"text": text(i)} for i in range(30)))
    args = ["embed", "--file", source, "--model", tiny, "--output", tmp_path / "out.jsonl"]
    shown = plain(on_terminal(*map(str, args), "--part-rows", "10", columns=120))
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
        step = EmbedStep(LlamaParams(sys.argv[1], engine="llama.cpp", n_threads=1))
        format = sys.argv[2]
        summary = run(Job(step, find_sources([str(rows)]), Path(name + format), part_rows=4000))
        assert summary.rows == n

    job(8_000, "few")
    before = peak()
    job(100_000, "many")
    print(peak() - before)
"""


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
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
