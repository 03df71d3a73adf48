"""The command ``ggrank``: what people and programs type, see and get, on the bundled model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import tiny_models
from ggrank import Llama
from ggrank.cli import main
from ggrank.cli.console import display_width, one_line, shorten
from ggrank.cli.demo import QUESTIONS, read_passages

QUERY = "safe systems programming language"
RUST = "Rust is a systems programming language focused on safety and performance."
PARIS = "Paris is the capital and most populous city of France."
BANANAS = "Bananas are rich in potassium and easy to digest."
DOCUMENTS = [BANANAS, RUST, PARIS]
BUNDLED = "all-minilm-l6-v2"

# Nothing that the outside sets may change what is printed.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
    "PYTHONIOENCODING": "utf-8",
    "TERM": "xterm",
}


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("bert-reranker", tmp_path_factory.mktemp("models"))


def ggrank(*args: str | Path, stdin: str | bytes | None = None) -> Result:
    """In this process; stdout is a pipe to the command."""
    return CliRunner().invoke(main, [str(arg) for arg in args], input=stdin)


def json_lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def process(*args: str | Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ggrank", *map(str, args)],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        env={**ENVIRONMENT, **variables},
    )


def on_terminal(*args: str, columns: int) -> str:
    """What a terminal of that width receives, colour codes included."""
    pty = pytest.importorskip("pty")
    import fcntl
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-m", "ggrank", *args],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    os.close(follower)
    received = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            break
        if not block:
            break
        received += block
    os.close(leader)
    assert child.wait(60) == 0, received.decode()
    return received.decode("utf-8").replace("\r\n", "\n")


def plain(text: str) -> list[str]:
    """Lines without colour codes."""
    import re

    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()


# starting


def test_help_loads_neither_llama_cpp_nor_numpy() -> None:
    code = (
        "import sys\nfrom ggrank.cli import main\n"
        "for args in (['--help'], ['rank', '--help'], ['models', '--help'], ['doctor', '--help']):\n"
        "    try:\n        main(args)\n    except SystemExit as end:\n        assert end.code == 0\n"
        "heavy = {'numpy', 'llama_cpp', 'huggingface_hub', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def test_python_m_ggrank_is_the_same_command() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "ggrank")


@pytest.mark.parametrize("command", ["demo", "rank", "embed", "models", "doctor"])
def test_help_lists_every_command(command: str) -> None:
    assert f"\n  {command} " in ggrank("--help").output


# rank


def test_rank_gives_the_api_s_ranking_as_json_lines() -> None:
    lines = json_lines(ggrank("rank", QUERY, *DOCUMENTS))
    with Llama.load(BUNDLED) as llama:
        ranking = llama.rank(QUERY, DOCUMENTS)
    assert [line["index"] for line in lines] == [found.index for found in ranking]
    assert [line["rank"] for line in lines] == [1, 2, 3]
    assert [line["text"] for line in lines] == [found.document for found in ranking]
    assert [line["score"] for line in lines] == pytest.approx([found.score for found in ranking], abs=1e-6)
    assert list(lines[0]) == ["rank", "index", "id", "score", "logit", "text", "truncated"]
    assert lines[0]["logit"] is None
    assert lines[0]["truncated"] is False


def test_rank_keeps_the_n_best() -> None:
    assert [line["index"] for line in json_lines(ggrank("rank", QUERY, *DOCUMENTS, "--top-n", "1"))] == [1]


def test_rank_keeps_what_reaches_the_threshold() -> None:
    lines = json_lines(ggrank("rank", QUERY, *DOCUMENTS, "--threshold", "0.3"))
    assert [line["index"] for line in lines] == [1]


def test_rank_with_a_reranker_gives_logits(reranker: Path) -> None:
    lines = json_lines(ggrank("rank", QUERY, *DOCUMENTS, "--model", reranker))
    with Llama.load(reranker) as llama:
        logits = llama.rerank(QUERY, DOCUMENTS)
    assert [line["logit"] for line in lines] == pytest.approx(sorted(logits.tolist(), reverse=True), abs=1e-4)
    assert [line["score"] for line in lines] == [line["logit"] for line in lines]


def test_rank_with_score_sigmoid_keeps_the_logits_beside(reranker: Path) -> None:
    lines = json_lines(ggrank("rank", QUERY, *DOCUMENTS, "--model", reranker, "--score", "sigmoid"))
    expected = [1 / (1 + np.exp(-line["logit"])) for line in lines]
    assert [line["score"] for line in lines] == pytest.approx(expected, abs=1e-5)


def test_rank_in_steps_equals_one_ranking_of_all() -> None:
    documents = [f"{passage.id} {i}" for i in range(4) for passage in read_passages()]
    lines = json_lines(ggrank("rank", QUERY, stdin="\n".join(documents)))
    with Llama.load(BUNDLED) as llama:
        ranking = llama.rank(QUERY, documents)
    assert len(lines) == len(documents) > 128
    # q8_0 rounds a little differently beside other neighbours.
    assert [line["score"] for line in lines] == pytest.approx([found.score for found in ranking], abs=5e-3)
    assert sorted(line["index"] for line in lines) == list(range(len(documents)))


def test_equal_documents_keep_their_order() -> None:
    lines = json_lines(ggrank("rank", QUERY, stdin=f"{RUST}\n" * 150))
    assert [line["index"] for line in lines] == list(range(150))


def test_a_long_document_is_marked_as_cut() -> None:
    line = json_lines(ggrank("rank", QUERY, "word " * 400))[0]
    assert line["truncated"] is True


def test_truncate_error_refuses_a_long_document() -> None:
    result = ggrank("rank", QUERY, "word " * 400, "--truncate", "error")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_score_that_the_model_cannot_give_is_an_error() -> None:
    result = ggrank("rank", QUERY, RUST, "--score", "logit")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


# inputs


def test_stdin_is_one_document_a_line() -> None:
    lines = json_lines(ggrank("rank", QUERY, stdin=f"{BANANAS}\r\n\n  \n{RUST}\n"))
    assert [(line["index"], line["text"]) for line in lines] == [(1, RUST), (0, BANANAS)]


def test_a_dash_reads_stdin_among_texts() -> None:
    lines = json_lines(ggrank("rank", QUERY, PARIS, "-", stdin=f"{RUST}\n"))
    assert {line["text"] for line in lines} == {PARIS, RUST}


def test_stdin_with_records_gives_ids() -> None:
    lines = json_lines(
        ggrank("rank", QUERY, stdin=f'{{"id": "r", "text": "{RUST}"}}\n{{"id": 7, "text": "x"}}')
    )
    assert [line["id"] for line in lines] == ["r", 7]


def test_a_jsonl_file_has_ids_and_titles(tmp_path: Path) -> None:
    file = tmp_path / "documents.jsonl"
    file.write_text(f'{{"_id": "a", "title": "Rust", "text": "is {RUST}"}}\n', "utf-8")
    line = json_lines(ggrank("rank", QUERY, "--file", file))[0]
    assert (line["id"], line["text"]) == ("a", f"Rust is {RUST}")


def test_format_text_takes_records_as_they_are() -> None:
    record = f'{{"text": "{RUST}"}}'
    assert json_lines(ggrank("rank", QUERY, "--format", "text", stdin=record))[0]["text"] == record


def test_a_folder_s_text_files_are_documents(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "rust.md").write_text(f"# Rust\n\n{RUST}\n", "utf-8")
    (tmp_path / "fruit.TXT").write_text(BANANAS, "utf-8")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    lines = json_lines(ggrank("rank", QUERY, "--file", tmp_path))
    assert [line["id"] for line in lines] == ["deep/rust.md", "fruit.TXT"]
    assert lines[0]["text"] == f"# Rust\n\n{RUST}"


def test_a_folder_without_texts_is_an_error(tmp_path: Path) -> None:
    result = ggrank("rank", QUERY, "--file", tmp_path)
    assert result.exit_code == 1
    assert "no .txt or .md" in result.stderr


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'{"id": 1, "text": "a"}\n\n{"id": 2, "txt": "b"}\n', ':3: no "text" string'),
        (b'{"id": 1, "text": "a"}\nplain\n', ":2: not JSON"),
        (b'{"id": 1, "text": 5}\n', ':1: no "text" string'),
        (b'["a"]\n', ':1: no "text" string'),
        (b'{"id": [1], "text": "a"}\n', ':1: "id" is neither'),
        (b'{"title": 1, "text": "a"}\n', ':1: "title" is not a string'),
        (b'{"text": "a"}\n{"text": "caf\xe9"}\n', ":2: not UTF-8"),
        (b"[" * 100_000 + b"\n", ":1: not JSON"),
        ("{}\n".encode("utf-16"), ":1: not UTF-8 (it looks like UTF-16)"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, content: bytes, where: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(content)
    result = ggrank("rank", QUERY, "--file", file)
    assert result.exit_code == 1
    assert f"bad.jsonl{where}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_byte_order_mark_is_not_text() -> None:
    line = json_lines(ggrank("rank", QUERY, stdin=b"\xef\xbb\xbf" + RUST.encode()))[0]
    assert line["text"] == RUST


def test_no_documents_in_a_pipe_give_no_lines() -> None:
    result = ggrank("rank", QUERY, stdin="")
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_text_that_is_a_file_s_name_is_pointed_out(tmp_path: Path) -> None:
    file = tmp_path / "documents.txt"
    file.write_text(RUST, "utf-8")
    result = ggrank("rank", QUERY, file)
    assert "is taken as a text; --file" in result.stderr
    assert json.loads(result.stdout)["text"] == str(file)


def test_text_in_any_script_survives() -> None:
    text = "Größe 東京 🙂 עברית \u0007"
    assert json_lines(ggrank("rank", "size", text))[0]["text"] == text


# usage


@pytest.mark.parametrize(
    "args",
    [
        ["rank"],
        ["rank", QUERY, RUST, "--top-n", "0"],
        ["rank", QUERY, RUST, "--score", "percent"],
        ["rank", QUERY, "--file", "no/such/file.txt"],
        ["rank", QUERY, RUST, "--no-such-option"],
        ["embed", "a", "--output", "vectors.txt"],
        ["no-such-command"],
        ["models", "download"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    result = ggrank(*args)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_no_documents_on_a_terminal_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "ggrank", "rank", QUERY],
        stdin=follower,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    os.close(leader)
    os.close(follower)
    assert done.returncode == 2
    assert "No documents" in done.stderr


def test_our_errors_are_one_line_and_exit_code_1() -> None:
    done = process("rank", QUERY, RUST, "--model", "no/such/model.gguf")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_exits_with_130_and_says_nothing() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "ggrank", "rank", QUERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert child.stdin is not None
    child.stdin.write(b"a line\n" * 200_000)  # more than a pipe holds: it is reading when this returns
    child.stdin.flush()
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=60)
    assert (child.returncode, out, error) == (130, b"", b"")


def test_a_reader_that_stops_early_is_no_error() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "ggrank", "embed", "--file", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdin.write(b"a line\n" * 300)
    child.stdin.close()
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(60) == 0
    child.stderr.close()


# what people see


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_line_of_a_table_is_wider_than_the_terminal(columns: int) -> None:
    lines = plain(on_terminal("demo", columns=columns))
    assert max(map(display_width, lines)) <= columns
    assert any(line.endswith("…") for line in lines)


def test_a_terminal_gets_a_table_with_a_footer() -> None:
    lines = plain(on_terminal("rank", QUERY, *DOCUMENTS, columns=140))
    assert lines[0].split() == ["rank", "score", "index", "document"]
    assert RUST in lines[1]
    assert all(word in lines[4] for word in ("all-minilm-l6-v2-q8_0.gguf", "cosine", "tokens", " ms"))


def test_json_is_given_on_a_terminal_when_asked_for() -> None:
    lines = plain(on_terminal("rank", QUERY, RUST, "--json", columns=80))
    assert json.loads("".join(lines))["text"] == RUST


def test_a_table_is_given_in_a_pipe_when_asked_for() -> None:
    done = process("rank", QUERY, *DOCUMENTS, "--table")
    assert done.stdout.splitlines()[0].split() == ["rank", "score", "index", "document"]
    assert "\x1b" not in done.stdout


def test_a_console_without_utf_8_gets_a_table_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ggrank", "rank", QUERY, "Größe 東京 🙂 " * 20, "--table"],
        capture_output=True,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "cp1252"},
    )
    assert done.returncode == 0
    assert "Größe ?? ?" in done.stdout.decode("cp1252")


def test_json_lines_are_utf_8_whatever_the_console_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ggrank", "rank", QUERY, "Größe 東京"],
        capture_output=True,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "cp1252"},
    )
    assert json.loads(done.stdout.decode("utf-8"))["text"] == "Größe 東京"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "NO_COLOR", "1")
    assert "\x1b[" not in on_terminal("rank", QUERY, RUST, columns=80)


def test_progress_shows_on_a_terminal_only(tmp_path: Path) -> None:
    file = tmp_path / "many.txt"
    file.write_text("\n".join(map(str, range(100))), "utf-8")
    assert "ranking" in on_terminal("rank", QUERY, "--file", str(file), columns=80)
    assert process("rank", QUERY, "--file", file).stderr == ""


def test_a_document_cannot_steer_the_terminal() -> None:
    assert one_line("a\x1b[31mred\u202e\r\nb") == "a[31mred b"


def test_wide_characters_are_counted_twice() -> None:
    assert display_width(shorten("東京タワー", 6)) <= 6


# embed


def test_embed_gives_the_api_s_vectors_as_json_lines() -> None:
    lines = json_lines(ggrank("embed", *DOCUMENTS))
    with Llama.load(BUNDLED) as llama:
        vectors = llama.embed_many(DOCUMENTS)
    assert [line["index"] for line in lines] == [0, 1, 2]
    np.testing.assert_allclose([line["embedding"] for line in lines], vectors, atol=1e-6)


def test_embed_writes_a_row_for_each_text(tmp_path: Path) -> None:
    file = tmp_path / "vectors.npy"
    result = ggrank("embed", *DOCUMENTS, "--output", file)
    assert (result.exit_code, result.stdout) == (0, "")
    vectors = np.load(file)
    assert (vectors.shape, vectors.dtype) == ((3, 384), np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["vectors.npy"]


def test_embed_leaves_an_old_file_alone_when_it_fails(tmp_path: Path) -> None:
    file = tmp_path / "vectors.npy"
    file.write_bytes(b"old")
    result = ggrank("embed", "word " * 400, "--truncate", "error", "--output", file)
    assert result.exit_code == 1
    assert file.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_embed_into_a_folder_that_is_missing_is_one_line(tmp_path: Path) -> None:
    result = ggrank("embed", "a", "--output", tmp_path / "none" / "vectors.npy")
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def test_embed_sets_a_prefix_and_keeps_lengths_when_asked() -> None:
    line = json_lines(ggrank("embed", "cats", "--prefix", "about ", "--no-normalize"))[0]
    with Llama.load(BUNDLED) as llama:
        expected = llama.embed("about cats", normalize=False)
    np.testing.assert_allclose(line["embedding"], expected, atol=1e-5)


def test_embed_refuses_a_reranker(reranker: Path) -> None:
    result = ggrank("embed", "a", "--model", reranker)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def test_embed_shows_a_table_to_people() -> None:
    result = ggrank("embed", *DOCUMENTS, "--table")
    assert result.stdout.splitlines()[0].split() == ["index", "text", "embedding"]
    assert "384 numbers" in result.stdout


# models


def test_models_list_has_every_preset_and_the_bundled_one_is_here() -> None:
    models = {line["name"]: line for line in json_lines(ggrank("models", "list"))}
    assert models[BUNDLED]["present"] is True
    assert models["bge-reranker-base"]["present"] is False
    assert models["bge-reranker-base"]["kind"] == "reranker"


def test_models_list_as_a_table_names_size_and_licence() -> None:
    table = ggrank("models", "list", "--table").stdout
    row = next(line for line in table.splitlines() if line.startswith(BUNDLED))
    assert all(word in row for word in ("embedding", "MB", "Apache-2.0", "bundled"))


def test_models_path_prints_where_a_file_is() -> None:
    result = ggrank("models", "path", BUNDLED)
    assert Path(result.stdout.strip()).is_file()


def test_models_path_of_a_model_that_is_not_here_fails() -> None:
    result = ggrank("models", "path", "bge-reranker-base")
    assert (result.exit_code, result.stdout) == (1, "")


def test_models_download_of_the_bundled_model_needs_no_network() -> None:
    result = ggrank("models", "download", BUNDLED)
    assert result.exit_code == 0
    assert Path(result.stdout.strip()).is_file()


def test_models_download_into_a_folder_puts_the_file_there(tmp_path: Path) -> None:
    result = ggrank("models", "download", BUNDLED, "--dir", tmp_path)
    assert result.exit_code == 0
    assert Path(result.stdout.strip()).parent == tmp_path


def test_models_download_dry_run_says_what_it_would_fetch() -> None:
    result = ggrank("models", "download", "bge-reranker-v2-m3", "--dry-run")
    assert result.exit_code == 0
    assert "438,376,864 bytes" in result.stdout
    assert "gpustack/bge-reranker-v2-m3-GGUF" in result.stdout
    assert "e186a244ed455b4a" in result.stdout


def test_models_verify_compares_the_bundled_file() -> None:
    assert [line["state"] for line in json_lines(ggrank("models", "verify"))] == ["ok"]


def test_models_verify_of_a_model_that_is_not_here_fails() -> None:
    result = ggrank("models", "verify", "bge-reranker-base")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")


def test_models_info_says_what_a_file_is() -> None:
    line = json_lines(ggrank("models", "info", BUNDLED))[0]
    assert (line["architecture"], line["quantization"], line["pooling_type"]) == ("bert", "q8_0", "MEAN")
    assert (line["head"], line["pair_format"], line["n_embd"]) == (False, None, 384)


def test_models_info_of_a_reranker_names_the_pair_format(reranker: Path) -> None:
    line = json_lines(ggrank("models", "info", reranker))[0]
    assert (line["head"], line["pooling_type"]) == (True, "RANK")
    assert line["pair_format"] == "[CLS] query [SEP] document [SEP]"


def test_models_info_as_a_table_is_one_fact_a_line() -> None:
    lines = ggrank("models", "info", BUNDLED, "--table").stdout.splitlines()
    assert "architecture   bert" in lines


def test_models_info_of_something_else_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "page.gguf"
    file.write_text("<!doctype html>", "utf-8")
    result = ggrank("models", "info", file)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


# demo


def test_every_preset_question_finds_its_passage() -> None:
    lines = json_lines(ggrank("demo"))
    best = [line["id"] for line in lines if line["rank"] == 1]
    assert best == ["stale-bread", "caffeine", "waggle-dance"]
    assert len(lines) == 3 * len(QUESTIONS)


def test_demo_answers_a_question_of_one_s_own() -> None:
    lines = json_lines(ggrank("demo", "How did sailors find out where they were?"))
    assert (lines[0]["id"], len(lines)) == ("longitude", 5)


def test_demo_shows_model_device_tokens_time_and_what_is_next() -> None:
    output = ggrank("demo", "--table").stdout
    for word in ("all-minilm-l6-v2", "runs on", "tokens", " ms", "Next: ggrank demo"):
        assert word in output
    assert output.count("document") >= len(QUESTIONS)


def test_a_demo_prints_no_library_logs() -> None:
    assert process("demo").stderr == ""


def test_the_demo_has_a_few_dozen_passages_with_ids_of_their_own() -> None:
    passages = read_passages()
    assert 30 <= len(passages) == len({passage.id for passage in passages})


# doctor


def test_doctor_proves_the_bundled_model_and_names_the_machine() -> None:
    result = ggrank("doctor")
    checks = {line["check"]: line for line in json_lines(result)}
    assert set(checks) >= {"processor", "llama.cpp build", "device", "preflight", "models", "bundled model"}
    assert checks["bundled model"]["state"] == "ok"
    assert "cosine with the original's vectors 0.999" in checks["bundled model"]["found"]


def test_doctor_ends_with_a_sentence_for_people() -> None:
    result = ggrank("doctor", "--table")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "All is well.")


def test_doctor_fails_for_a_model_that_is_not_here_and_says_how_to_get_it() -> None:
    result = ggrank("doctor", "--model", "bge-reranker-base")
    check = json.loads(result.stdout.splitlines()[-1])
    assert (result.exit_code, check["state"]) == (1, "fail")
    assert "ggrank models download bge-reranker-base" in check["found"] + check["fix"]


def test_doctor_compares_logits_with_the_original_s_published_ones(reranker: Path, tmp_path: Path) -> None:
    impostor = tmp_path / "bge-reranker-base-f32.gguf"
    impostor.write_bytes(reranker.read_bytes())
    result = ggrank("doctor", "--model", impostor)
    check = json.loads(result.stdout.splitlines()[-1])
    assert (result.exit_code, check["state"]) == (1, "fail")
    assert "6.157 and -3.659" in check["found"]


def test_doctor_says_how_to_mend_a_python_without_llama_cpp(tmp_path: Path) -> None:
    (tmp_path / "llama_cpp").mkdir()
    (tmp_path / "llama_cpp" / "__init__.py").write_text("raise ImportError('no llama_cpp here')\n", "utf-8")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = process("doctor", PYTHONPATH=path, GGRANK_CACHE_DIR=str(tmp_path / "cache"))
    checks = {check["check"]: check for check in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert checks["llama.cpp build"]["state"] == "fail"
    assert "pip install" in checks["llama.cpp build"]["fix"]
    assert checks["processor"]["state"] == "ok"
