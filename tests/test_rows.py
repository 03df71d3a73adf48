"""Rows of files: what is read, in which encodings, which rows are bad, and what is written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from command_line import ENVIRONMENT
from ggrank import GgrankError, InputError
from ggrank.rows.documents import Document, document_of
from ggrank.rows.encodings import SAMPLE_BYTES, decode
from ggrank.rows.parquet import UNREADABLE, table_of
from ggrank.rows.reading import MOST_CHARACTERS, FileFormat, Row, read_rows
from ggrank.rows.records import cache_dir, forget, recall, remember
from ggrank.rows.writing import UNFINISHED, json_line, locked, written
from ggrank.scoring import to_int8

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS: list[dict[str, Any]] = [{"id": i, "text": f"text {i}, naïve 東京", "year": 1900 + i} for i in range(50)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows in the format of the path's suffix, by what other people wrote."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=20)
        return path
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", newline="", encoding="utf-8") as file:
        if ".csv" in path.name or ".tsv" in path.name:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if ".csv" in path.name else "\t")
            writer.writeheader()
            writer.writerows(rows)
        elif ".jsonl" in path.name or ".ndjson" in path.name:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            json.dump(rows, file, indent=1)
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "ndjson", "json", "csv", "csv.gz", "tsv", "parquet"])
def test_the_same_rows_come_out_of_every_kind_of_file(suffix: str, tmp_path: Path) -> None:
    found = list(read_rows(write(tmp_path / f"rows.{suffix}", ROWS)))
    assert not any(row.problem for row in found)
    is_text = suffix[0] in "ct"
    expected = [{name: str(value) for name, value in row.items()} for row in ROWS] if is_text else ROWS
    assert [dict(row.values) for row in found] == expected


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.json", b'{"text": "one object,\\nmany lines"}', [{"text": "one object,\nmany lines"}]),
        (
            "a.json",
            b'{"text": "lines"}\n{"text": "all the same"}',
            [{"text": "lines"}, {"text": "all the same"}],
        ),
        ("a.txt", b"a\r\n\n  \nb", [{"text": "a"}, {"text": "b"}]),
        ("a.txt", b'\xef\xbb\xbf{"text": "by its first character"}', [{"text": "by its first character"}]),
        ("a.csv", b"id;text\n1;a, b\n", [{"id": "1", "text": "a, b"}]),
        ("a.csv", b"id,text\r1,a\r2,b\r", [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]),
        ("a.tsv", b'id\ttext\n1\t5" pipe\n', [{"id": "1", "text": '5" pipe'}]),
        ("a.jsonl", b'{"x": NaN}', [{"x": None}]),
        ("a.csv", b"\n \r\nid,text\n1,a\n", [{"id": "1", "text": "a"}]),
        ("a.txt", b"id;text\n1;by its column\n", [{"id": "1", "text": "by its column"}]),
        ("a.txt", b"id;body\n1;a\n", [{"text": "id;body"}, {"text": "1;a"}]),
        ("a.csv", b"", []),
        ("a.txt", b"", []),
    ],
)
def test_files_are_read_as_what_they_are(name: str, data: bytes, expected: Any, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    assert [row.values for row in read_rows(tmp_path / name)] == expected


TEXTS = {
    "utf-8-sig": "naïve 東京",
    "utf-16": "naïve 東京",
    "utf-32": "naïve 東京",
    "cp1252": "Der Straßenname “Zürich” Größe und Übermaß sind schön. " * 3,
    "cp1251": "Это обычный русский текст про базы данных и поиск.",
    "cp932": "これは日本語のテキストです。データベースについて説明します。",
    "gb18030": "这是一个关于数据库的中文文本今天天气很好。",
}


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
@pytest.mark.parametrize("text", ["voilà", "Le café\nUn thé\nvoilà"])
def test_a_text_may_end_with_an_accent(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_a_character_may_lie_across_the_end_of_the_sample() -> None:
    assert decode(("a" * (SAMPLE_BYTES - 1) + "é").encode()).endswith("aé")


@pytest.mark.parametrize("encoding", TEXTS)
def test_files_in_other_encodings_are_read(encoding: str, tmp_path: Path) -> None:
    assert decode(TEXTS[encoding].encode(encoding)) == TEXTS[encoding]
    path = tmp_path / "rows.csv"
    path.write_bytes(f"id,text\n1,{TEXTS[encoding]}\n".encode(encoding))
    assert next(read_rows(path)).values == {"id": "1", "text": TEXTS[encoding].rstrip("\n")}


def test_a_picture_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0" + bytes(range(256)))
    with pytest.raises(InputError, match=r"a\.txt: neither UTF-8 nor text"):
        list(read_rows(tmp_path / "a.txt"))


BAD = [
    (b"nothing", "not JSON"),
    (b'["a"]', "not a JSON object: list"),
    (b'{"txt": "a"}', "no column 'text'"),
    (b'{"text": 5}', "has no string, but a value of type int"),
    (b'{"text": null}', "has no string, but null"),
    (b'{"text": "caf\xe9"}', "not UTF-8"),
    (b'{"title": 1, "text": "a"}', "column 'title' has no string"),
    (b'{"id": [1], "text": "a"}', "the id is no string or number"),
    (b"[" * 100_000, "not JSON"),
]


def text_or_reason(row: Row) -> str:
    try:
        return document_of(row).text
    except InputError as error:
        return str(error)


def test_a_bad_row_has_its_reason_and_the_rows_after_it_are_read() -> None:
    lines = [b'{"text": "good"}', *(line for line, _ in BAD), b"", b'{"text": "good too"}']
    found = [(row.line, text_or_reason(row)) for row in read_rows(io.BytesIO(b"\n".join(lines)), "jsonl")]
    assert [line for line, _ in found] == [*range(1, 2 + len(BAD)), 3 + len(BAD)]
    assert all(reason in text for (_, text), (_, reason) in zip(found[1:], BAD, strict=False))
    assert (found[0][1], found[-1][1]) == ("good", "good too")


def test_a_document_has_its_id_title_text_and_all_else_as_metadata() -> None:
    def of(**values: Any) -> Document:
        return document_of(Row(values, 1))

    assert of(text="t", title=None) == of(text="t", title="") == of(text="t") == Document("t")
    assert of(text="t", title="T", _id=2.5, x=[1]) == Document("t", id=2.5, title="T", metadata={"x": [1]})
    assert of(text=b"t", id=None, _id="b").id == "b"
    assert of(text="t", id=0, _id=1).id == 0
    document = document_of(Row({"a": "x", "b": "y", "text": "t"}, 1), ["a", "b"])
    assert (document.full_text, document.metadata) == ("x y", {"text": "t"})


def test_a_line_that_is_too_long_is_a_bad_row(tmp_path: Path) -> None:
    long = b'{"text": "' + b"\r" * (MOST_CHARACTERS + (1 << 21)) + b'"}'
    (tmp_path / "rows.jsonl").write_bytes(b'{"text": "first"}\n' + long + b'\n{"text": "last"}\n')
    rows = list(read_rows(tmp_path / "rows.jsonl"))
    assert [(row.line, row.problem) for row in rows] == [
        (1, ""),
        (2, "a line of more than 64 million characters"),
        (3, ""),
    ]


# -- CSV


def test_bad_rows_of_csv_are_named() -> None:
    data = b'id,text\n1,"two\nlines"\n2\n3,caf\xe9\n4,caf\xc3\xa9\n5,"never closed\n6,b\n'
    rows = list(read_rows(io.BytesIO(data), "csv"))
    assert [(row.line, row.problem) for row in rows] == [
        (2, ""),
        (4, "1 fields, and the header names 2"),
        (5, "not UTF-8 (character 4)"),
        (6, ""),
        (7, "a quote is never closed: all up to line 8, the last, is left out"),
    ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'id,"text\n1,a\n', "stdin:1: a quote in the names of the columns is never closed"),
        (b"a,b,a\n", "stdin: two columns are named 'a'"),
        (b"a\n" + b'"' + b"x" * (MOST_CHARACTERS + 9), "stdin: a line of more than 64 million"),
    ],
)
def test_a_csv_without_clear_columns_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(read_rows(io.BytesIO(data), "csv"))


@given(text=st.text('a,"\n', max_size=12))
@settings(max_examples=200)
def test_a_csv_that_is_cut_within_quotes_is_told_from_a_whole_one(text: str) -> None:
    """As `csv` tells it in its strict mode, which also refuses other things and so is not for us."""
    data = f"a\n{text}"
    is_cut = False
    try:
        list(csv.reader(data.splitlines(keepends=True), strict=True))
    except csv.Error as error:
        is_cut = True
        assume("unexpected end of data" in str(error))
    found = ["never closed" in row.problem for row in read_rows(io.BytesIO(data.encode()), "csv")]
    assert (any(found[:-1]), any(found)) == (False, is_cut)


# -- files that are damaged


@pytest.mark.parametrize("suffix", ["jsonl.gz", "csv.gz", "parquet"])
def test_a_damaged_file_gives_rows_or_one_error_that_names_it(suffix: str, tmp_path: Path) -> None:
    rng = random.Random(3)
    rows = [{**row, "kind": str(rng.random())} for row in ROWS]
    path = write(tmp_path / f"rows.{suffix}", rows)
    whole, n_refused = path.read_bytes(), 0
    for n in range(100):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(4, len(data))] = rng.randrange(256)
        path.write_bytes(data if n % 2 else data[: rng.randrange(len(data))])
        error = error_of(path)
        assert error is None or error.startswith(str(path))
        n_refused += error is not None
    assert n_refused > 20


def error_of(path: Path) -> str | None:
    try:
        list(read_rows(path))
    except GgrankError as error:
        return str(error)
    return None


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "parquet"])
def test_a_missing_file_is_one_error(file_format: FileFormat, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none: cannot be read .*No such file"):
        list(read_rows(tmp_path / "none", file_format))


# -- Parquet


def test_parquet_s_values_are_python_s_and_its_table_is_as_it_was(tmp_path: Path) -> None:
    strings = pa.array([b"a", b"caf\xe9", b"c"], pa.binary()).view(pa.string())
    table = pa.table(
        {
            "text": pa.array(["a", "b", None], pa.string_view()),
            "when": pa.array([0, 1, None], pa.timestamp("ns")),
            "then": pa.array([0, 2**62, None], pa.int64()).view(pa.timestamp("ms", "No/Where")),
            "tags": pa.array([["a"], None, []]),
            "raw": pa.array([b"\xff"] * 3),
            "name": strings,
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = list(read_rows(tmp_path / "rows.parquet"))
    assert rows[0].values["when"] == "1970-01-01 00:00:00.000000000"
    assert rows[0].values["tags"] == ["a"]
    assert [row.values["name"] for row in rows] == ["a", UNREADABLE, "c"]
    assert [bool(row.problem) for row in rows] == [False, True, False]
    assert json.loads(json_line(rows[0].values))["raw"] == "/w=="
    assert table_of(rows).equals(table)
    assert table_of([rows[0], rows[2]]).equals(pa.concat_tables([table.slice(0, 1), table.slice(2)]))
    assert [row.values for row in read_rows(tmp_path / "rows.parquet", columns=["tags"])][1] == {"tags": None}


def test_few_long_rows_of_parquet_are_decoded_together(tmp_path: Path) -> None:
    texts = [f"{i}" + "x" * (1 << 21) for i in range(20)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "rows.parquet")
    rows = list(read_rows(tmp_path / "rows.parquet"))
    assert [row.values["text"] for row in rows] == texts
    assert max(row.batch.nbytes for row in rows) <= 2 * (1 << 22)


# -- writing


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyError), written(path) as unfinished:  # noqa: PT012  (it ends in the middle)
        unfinished.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    with written(path) as unfinished:
        unfinished.write_text("new")
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert unfinished.name.endswith(UNFINISHED)
    with (
        pytest.raises(InputError, match=r"none/a\.txt: cannot be written \(No such file"),
        written(tmp_path / "none" / "a.txt") as unfinished,
    ):
        unfinished.write_text("x")


def test_a_lock_is_held_once_and_ends_with_its_process(tmp_path: Path) -> None:
    code = "from ggrank.rows.writing import locked; from pathlib import Path; import sys, os\n"
    code += "with locked(Path(sys.argv[1]), taken='taken'): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="taken"), locked(tmp_path / "lock", taken="taken"):
            pass
        child.kill()
    with locked(tmp_path / "lock", taken="taken"):
        pass


@pytest.mark.parametrize("has_orjson", [True, False])
def test_a_json_line_holds_whatever_a_row_held(has_orjson: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not has_orjson:
        monkeypatch.setitem(sys.modules, "orjson", None)
    row = {"a": 2**70, "b": "\ud800", "c": [None, {"d": 1.5}], "e": "naïve"}
    assert json.loads(json_line(row)) == row
    for dtype in (np.float32, np.float16, np.int8):
        vector = np.array([0.1, -1 / 3, 1e-5, 100], dtype)
        line = json.loads(json_line({"v": vector, "s": vector[1], "t": np.bool_(True)}))
        np.testing.assert_array_equal(np.array(line["v"], dtype), vector)
        assert (dtype(line["s"]), line["t"]) == (vector[1], True)


def test_int8_keeps_the_direction() -> None:
    vectors = np.random.default_rng(1).normal(size=(100, 384)).astype(np.float32)
    codes, scales = to_int8(vectors)
    assert (codes.dtype, set(np.abs(codes.astype(int)).max(axis=1).tolist())) == (np.int8, {127})
    np.testing.assert_allclose(codes * scales[:, None], vectors, atol=np.abs(vectors).max() / 253)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    wide = codes.astype(np.float64)
    assert ((wide * unit).sum(axis=1) / np.linalg.norm(wide, axis=1)).min() > 0.9995
    assert to_int8(np.zeros((1, 3), np.float32))[0].tolist() == [[0, 0, 0]]


# -- records
@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_facts_are_added_to_those_that_are_there(directory: Path) -> None:
    remember("a", {"x": 1})
    remember("a", {"y": 2})
    assert recall("a") == {"x": 1, "y": 2}
    assert [path.name for path in directory.iterdir()] == ["a.json"]


@pytest.mark.parametrize("damage", ["", "{", "[1]", "\0", "[" * 100_000])
def test_a_damaged_record_is_as_good_as_none(directory: Path, damage: str) -> None:
    remember("a", {"x": 1})
    (directory / "a.json").write_text(damage)
    assert recall("a") == {}
    remember("a", {"y": 2})
    assert recall("a") == {"y": 2}


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GGRANK_CACHE_DIR", str(tmp_path / "file"))
    assert not remember("a", {"x": 1})
    assert recall("a") == {}
    assert not forget("a", ["x"])


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="users are others there")
@pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may become somebody else"
)
def test_a_user_without_a_home_has_no_records_and_no_error() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, ggrank.rows.records as r; os.setuid(54321)\n"
            "print(r.remember('a', {}), r.recall('a'))",
        ],
        env={name: value for name, value in ENVIRONMENT.items() if name not in _HOMES},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False {}\n"


_HOMES = {"HOME", "GGRANK_CACHE_DIR", "XDG_CACHE_HOME"}


@pytest.mark.skipif(sys.platform != "linux", reason="the other platforms have places of their own")
def test_the_directory_is_the_platforms_place_for_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GGRANK_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "ggrank"
