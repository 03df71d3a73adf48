"""What people see on a terminal, and programs in a pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len

from command_line import (
    BUNDLED,
    DOCUMENTS,
    ENVIRONMENT,
    QUERY,
    RUST,
    on_terminal,
    plain,
    process,
)
from ggrank.cli.console import Column, echo_table, one_line, shorten


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_no_line_of_a_table_is_wider_than_the_terminal(columns: int) -> None:
    lines = plain(on_terminal("demo", QUERY, columns=columns))
    assert max(map(cell_len, lines)) <= columns
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


@pytest.mark.parametrize(
    "command", [("rank", QUERY, RUST), ("doctor",), ("models", "verify", BUNDLED)], ids=lambda args: args[0]
)
def test_no_color_is_respected(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in on_terminal(*command, columns=80)
    monkeypatch.setitem(ENVIRONMENT, "NO_COLOR", "1")
    assert "\x1b[" not in on_terminal(*command, columns=80)


def test_progress_shows_on_a_terminal_only(tmp_path: Path) -> None:
    file = tmp_path / "many.txt"
    file.write_text("\n".join(map(str, range(100))), "utf-8")
    assert "ranking" in on_terminal("rank", QUERY, "--file", str(file), columns=80)
    assert process("rank", QUERY, "--file", file).stderr == ""


def test_rows_written_while_a_bar_is_shown_reach_the_pipe() -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    code = "import click\nfrom ggrank.cli.console import progress\n"
    code += "with progress(9, label='rows') as advance:\n    click.echo('row')\n    advance(9)\n"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=follower, text=True, env=ENVIRONMENT
    )
    os.close(follower)
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert done.stdout == "row\n"
    assert "row\n" not in shown
    assert "rows" in shown


def test_a_document_cannot_steer_the_terminal() -> None:
    assert one_line("a\x1b[31mred\u202e\r\nb") == "a[31mred b"


def test_a_document_cannot_steer_the_terminal_from_json_lines_either() -> None:
    text = "red \x1b[31m \x9b31m \u202e"
    shown = on_terminal("rank", QUERY, text, "--json", columns=80)
    assert not set(text) - set("red [31m") & set(shown)
    assert json.loads(shown)["text"] == text


def test_a_model_s_name_in_an_error_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in process("rank", QUERY, RUST, "--model", "\x1b[31mred.gguf").stderr


def test_wide_characters_are_counted_twice() -> None:
    assert cell_len(shorten("東京タワー", 6)) <= 6


@pytest.mark.parametrize(
    ("text", "width"),
    [("👩‍👩‍👧 family", 9), ("می‌خواهم", 7), ("क्‍ष", 1), ("東京 🙂 e\u0301", 9), ("[b]:smile:", 10)],
)
def test_a_table_keeps_joined_and_wide_characters_and_stays_aligned(
    text: str, width: int, capsys: pytest.CaptureFixture[str]
) -> None:
    echo_table([Column(""), Column("")], [[text, "|"], ["x" * 12, "|"]])
    assert capsys.readouterr().out.splitlines() == [f"{text}{' ' * (14 - width)}|", f"{'x' * 12}  |"]


def test_in_a_pipe_a_row_is_one_whole_line() -> None:
    documents = [f"{word} " * 100 + "end" for word in ("one", "two")]
    lines = process("rank", QUERY, *documents, "--table", COLUMNS="60").stdout.splitlines()
    assert [line.endswith(" end") for line in lines[1:3]] == [True, True]


def test_the_demo_shows_its_best_passage_whole_on_a_narrow_terminal() -> None:
    shown = " ".join(" ".join(plain(on_terminal("demo", "How do I keep a loaf fresh?", columns=60))).split())
    assert "A sealed bag on the counter keeps it soft for days, the freezer for months" in shown
