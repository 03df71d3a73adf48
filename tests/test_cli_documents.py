"""Documents from arguments, files, JSONL, folders and stdin."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from command_line import (
    BANANAS,
    PARIS,
    QUERY,
    RUST,
    ggrank,
    json_lines,
)


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


def test_a_folder_is_read_as_ggrank_index_reads_it_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "rust.md").write_text(f"# Rust\n\n{RUST}\n", "utf-8")
    (tmp_path / "fruit.TXT").write_text(BANANAS, "utf-8")
    (tmp_path / "page.html").write_text(f"<h1>France</h1><p>{PARIS}</p>", "utf-8")
    (tmp_path / "rows.csv").write_text("id,text\n7,a row\n", "utf-8")
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    result = ggrank("rank", QUERY, "--file", tmp_path)
    lines = json_lines(result)
    ids = {"deep/rust.md, line 3", "fruit.TXT, line 1", "page.html, line 3", "7"}
    assert {line["id"] for line in lines} == ids
    assert lines[0]["text"] == f"Rust\n\n{RUST}"
    warning, note = result.stderr.splitlines()
    assert warning.startswith("Warning: left out: ")
    assert "bad.pdf" in warning
    assert note == "Note: left out: 1 .png"


def test_a_sheet_and_rich_text_without_headings_are_read_as_in_a_folder(tmp_path: Path) -> None:
    sheet = Path(__file__).parent / "documents" / "library" / "united-states.xlsx"
    lines = json_lines(ggrank("rank", "When did Alaska become a state?", "--file", sheet))
    assert "united-states.xlsx, States, row 10" in {line["id"] for line in lines}
    (tmp_path / "letter.rtf").write_text("{\\rtf1 Bees dance.}")
    (letter,) = json_lines(ggrank("rank", QUERY, "--file", tmp_path / "letter.rtf"))
    assert letter["text"] == "Bees dance."


def test_a_folder_without_texts_is_an_error(tmp_path: Path) -> None:
    result = ggrank("rank", QUERY, "--file", tmp_path)
    assert result.exit_code == 1
    assert "no file that can be read" in result.stderr


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'{"id": 1, "text": "a"}\n\n{"id": 2, "txt": "b"}\n', ":3: no column 'text'"),
        (b'{"id": 1, "text": "a"}\nplain\n', ":2: not JSON"),
        (b'{"text": "a"}\n{"text": "caf\xe9"}\n', ":2: not UTF-8"),
    ],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, content: bytes, where: str) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(content)
    result = ggrank("rank", QUERY, "--file", file)
    assert result.exit_code == 1
    assert f"bad.jsonl{where}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_csv_and_other_encodings_are_read(tmp_path: Path) -> None:
    file = tmp_path / "documents.csv"
    file.write_bytes(f"id;title;text\n7;Café;{RUST}\n".encode("utf-16"))
    line = json_lines(ggrank("rank", QUERY, "--file", file))[0]
    assert (line["id"], line["text"]) == ("7", f"Café {RUST}")


def test_a_table_without_a_text_is_ranked_by_all_its_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"id,what\n1,{BANANAS}\n2,{RUST}\n", "utf-8")
    line = json_lines(ggrank("rank", QUERY, "--file", tmp_path / "a.csv"))[0]
    assert (line["id"], line["text"]) == ("2", f"id: 2\nwhat: {RUST}")
    (tmp_path / "a.jsonl").write_text('{"id": 1, "what": "x"}\n', "utf-8")
    error = ggrank("rank", QUERY, "--file", tmp_path / "a.jsonl").stderr
    assert "a.jsonl:1: no column 'text'; the columns are: id, what" in error


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
