"""Jobs over odd values and damaged files: what is written, which rows are bad, and what is refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tiny_models
from command_line import ENVIRONMENT
from corpus_jobs import read_jsonl, text, write_jsonl
from ggrank import GgrankError, InputError, LlamaParams
from ggrank.jobs import EmbedStep, Job, Summary, find_sources, run
from ggrank.jobs.parquet import BATCH_BYTES, values_of_rows
from ggrank.jobs.rows import FIRST, MOST_BYTES, Place, Row, RowReader
from ggrank.jobs.writing import json_lines

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> LlamaParams:
    """An embedder so small that thousands of texts are nothing."""
    model = tiny_models.write("bert-mean", tmp_path_factory.mktemp("models"))
    return LlamaParams(model, engine="llama.cpp", n_threads=1)


def embed(source: Path, output: Path, params: LlamaParams, **options: Any) -> Summary:
    return run(Job(EmbedStep(params), find_sources([str(source)]), output, **options))


def rows_of(source: Path, start: Place = FIRST) -> list[Row]:
    return list(RowReader(find_sources([str(source)]), ["text"], start))


def written(source: Path) -> list[dict[str, Any]]:
    """The sound rows of a Parquet file, as a job writes them as JSON lines, but for the text."""
    rows = [row for row in rows_of(source) if not row.problem]
    lines = json_lines(values_of_rows(rows, rows[0].batch.schema), {}) if rows else []
    return [{name: value for name, value in json.loads(line).items() if name != "text"} for line in lines]


# -- memory


def test_batches_hold_few_long_rows_and_are_the_same_for_a_job_that_goes_on(tmp_path: Path) -> None:
    long = "x" * (BATCH_BYTES // 3)
    texts = [f"{i} {long}" if i % 20 > 9 else str(i) for i in range(60)]
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=30)
    rows = rows_of(path)
    assert [row.values["text"] for row in rows] == texts
    assert max(row.batch.nbytes for row in rows) <= 2.1 * BATCH_BYTES
    for first in (17, 30):
        again = rows_of(path, rows[first - 1].after)
        assert [(row.size, row.after, row.index) for row in again] == [
            (row.size, row.after, row.index) for row in rows[first:]
        ]


def test_a_long_text_that_a_dictionary_holds_once_does_not_make_a_long_batch(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x" * (BATCH_BYTES // 8)] * 100}), tmp_path / "rows.parquet")
    sizes = [row.batch.nbytes for row in rows_of(tmp_path / "rows.parquet")]
    assert len(sizes) == 100
    assert max(sizes) <= 3 * BATCH_BYTES


def test_a_line_of_more_than_64_mb_is_a_bad_row(tmp_path: Path, tiny: LlamaParams) -> None:
    source = tmp_path / "rows.jsonl"
    long = b'{"text": "' + b"\r" * (MOST_BYTES + (1 << 21)) + b'"}'
    write_jsonl(source, [b'{"text": "first"}', long, b'{"text": "last"}'])
    assert embed(source, tmp_path / "out.jsonl", tiny).bad_rows == 1
    assert [row["text"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["first", "last"]
    bad = read_jsonl(tmp_path / "out.jsonl.bad.jsonl")
    assert [(row["line"], row["reason"]) for row in bad] == [(2, "a line of more than 64 MB")]
    rows = rows_of(source)
    assert rows[-1].after.offset == source.stat().st_size
    assert rows_of(source, rows[1].after) == rows[2:]


# -- values


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (2**62, pa.timestamp("us"), "148108-07-06T14:00:27.387904"),
        (-70_000_000_000_000, pa.timestamp("ms", "UTC"), "-249-10-15T19:33:20.000+00:00"),
        (253_402_300_800_000, pa.timestamp("ms"), "10000-01-01T00:00:00.000"),
        (1, pa.timestamp("ms", "Nowhere/Land"), "1970-01-01T00:00:00.001+00:00"),
        (2**62, pa.duration("s"), "4611686018427387904 seconds"),
    ],
)
def test_a_time_that_python_has_not_is_text(value: int, kind: Any, expected: str, tmp_path: Path) -> None:
    times = pa.array([0, value, None], pa.int64()).view(kind)
    table = pa.table(
        {"text": ["a", "b", "c"], "at": times, "all": pa.array([[t] for t in times], pa.list_(kind))}
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    found = written(tmp_path / "rows.parquet")
    assert (found[1]["at"], found[1]["all"]) == (expected, [expected])
    assert found[2] == {"at": None, "all": [None]}


WITHOUT_PANDAS = """
import sys
sys.modules["pandas"] = None
from ggrank.jobs.parquet import values_of_rows
from ggrank.jobs.rows import RowReader
from ggrank.jobs.sources import find_sources
from ggrank.jobs.writing import json_lines
rows = list(RowReader(find_sources([sys.argv[1]]), ["text"]))
print(*json_lines(values_of_rows(rows, rows[0].batch.schema), {}), sep="", end="")
"""


def test_nanoseconds_are_cut_off_wherever_they_are_and_without_pandas_too(tmp_path: Path) -> None:
    when = pa.array([1_500, 2_700], pa.timestamp("ns", "UTC"))
    table = pa.table(
        {
            "text": ["a", "b"],
            "plain": when,
            "pair": pa.FixedSizeListArray.from_arrays(pa.concat_arrays([when, when]), 2),
            "map": pa.MapArray.from_arrays([0, 1, 2], ["k", "l"], when),
            "kind": pa.DictionaryArray.from_arrays(pa.array([1, 0]), when),
            "within": pa.StructArray.from_arrays([when.cast(pa.int64()).view(pa.time64("ns"))], ["at"]),
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    command = [sys.executable, "-c", WITHOUT_PANDAS, str(tmp_path / "rows.parquet")]
    found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, check=True).stdout.splitlines()
    one, two = "1970-01-01T00:00:00.000001+00:00", "1970-01-01T00:00:00.000002+00:00"
    assert json.loads(found[0]) == {
        "text": "a",
        "plain": one,
        "pair": [one, two],
        "map": [["k", one]],
        "kind": two,
        "within": {"at": "00:00:00.000001"},
    }
    assert written(tmp_path / "rows.parquet")[0]["map"] == [["k", one]]


def as_strings(values: list[bytes]) -> Any:
    return pa.array(values, pa.binary()).view(pa.string())


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_row_with_a_string_that_is_not_utf_8_is_bad_in_whatever_column(
    suffix: str, tmp_path: Path, tiny: LlamaParams
) -> None:
    names = as_strings([b"a", b"caf\xe9", b"b", b"c"])
    tags = pa.ListArray.from_arrays([0, 1, 2, 3, 4], as_strings([b"a", b"b", b"caf\xe9", b"c"]))
    table = pa.table({"text": as_strings([b"a", b"b", b"c", b"\xff"]), "name": names, "tags": tags})
    pq.write_table(table, tmp_path / "rows.parquet")
    summary = embed(tmp_path / "rows.parquet", tmp_path / f"out{suffix}", tiny)
    assert (summary.rows, summary.bad_rows) == (1, 3)
    bad = read_jsonl(tmp_path / f"out{suffix}.bad.jsonl")
    assert [(row["line"], row["reason"]) for row in bad] == [
        (2, "column 'name' is not UTF-8"),
        (3, "column 'tags' is not UTF-8"),
        (4, "column 'text' is not UTF-8"),
    ]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.string_view(), pa.binary_view()])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".npy"])
def test_text_of_any_string_type_and_binary_that_is_utf_8_is_text(
    suffix: str, kind: Any, tmp_path: Path, tiny: LlamaParams
) -> None:
    texts = [f"{text(i)} \u00e9" for i in range(30)]
    pq.write_table(pa.table({"text": pa.array(texts).cast(kind), "id": range(30)}), tmp_path / "rows.parquet")
    pq.write_table(pa.table({"text": texts, "id": range(30)}), tmp_path / "plain.parquet")
    for name in ("rows", "plain"):
        assert embed(tmp_path / f"{name}.parquet", tmp_path / f"{name}-out{suffix}", tiny).rows == 30
    found, expected = (vectors(tmp_path / f"{name}-out{suffix}") for name in ("rows", "plain"))
    np.testing.assert_array_equal(found, expected)
    if suffix == ".parquet":
        assert pq.read_table(tmp_path / "rows-out.parquet")["text"].cast(pa.string()).to_pylist() == texts


def vectors(path: Path) -> Any:
    if path.suffix == ".npy":
        return np.load(path)
    rows = read_jsonl(path) if path.suffix == ".jsonl" else pq.read_table(path).to_pylist()
    return np.array([row["embedding"] for row in rows])


def test_binary_that_is_not_utf_8_is_no_text(tmp_path: Path, tiny: LlamaParams) -> None:
    pq.write_table(pa.table({"text": [b"good", b"caf\xe9"]}), tmp_path / "rows.parquet")
    assert embed(tmp_path / "rows.parquet", tmp_path / "out.jsonl", tiny).bad_rows == 1
    reason = read_jsonl(tmp_path / "out.jsonl.bad.jsonl")[0]["reason"]
    assert reason == "column 'text' holds no string: not UTF-8"


N = 6
LEAVES = [
    *(pa.timestamp(unit, zone) for unit in ("ms", "us", "ns") for zone in (None, "UTC", "No/Where")),
    *(pa.duration(unit) for unit in ("s", "ms", "us", "ns")),
    *(pa.time64("us"), pa.time64("ns"), pa.int64(), pa.float64()),
]
BYTES = [pa.binary(), pa.string(), pa.large_string()]  # views within lists pyarrow cannot always write itself


def leaf(draw: Any, n: int) -> Any:
    kind = draw(st.sampled_from([*LEAVES, *BYTES, pa.date32()]))
    whole = st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1))
    if kind == pa.date32():
        return pa.array(draw(st.lists(whole, min_size=n, max_size=n)), pa.int32()).view(kind)
    if kind in BYTES:
        strange = st.one_of(st.none(), st.text(max_size=3).map(str.encode), st.just(b"\xff"))
        values = pa.array(draw(st.lists(strange, min_size=n, max_size=n)), pa.binary())
        return values.cast(kind, safe=False) if kind == pa.large_string() else values.view(kind)
    wide = st.one_of(whole, st.integers(-(2**63) + 1, 2**63 - 1))
    return pa.array(draw(st.lists(wide, min_size=n, max_size=n)), pa.int64()).view(kind)


def nested(draw: Any, n: int, depth: int) -> Any:
    """An array of a random type: leaves, and lists, maps, structs and dictionaries of them."""
    shape = draw(st.sampled_from(["leaf", "list", "fixed", "map", "struct"])) if depth else "leaf"
    offsets = pa.array(range(n + 1), pa.int32())
    if shape == "list":
        return pa.ListArray.from_arrays(offsets, nested(draw, n, depth - 1))
    if shape == "fixed":
        return pa.FixedSizeListArray.from_arrays(nested(draw, 2 * n, depth - 1), 2)
    if shape == "map":
        keys = pa.array([f"k{i}" for i in range(n)])
        return pa.MapArray.from_arrays(offsets, keys, nested(draw, n, depth - 1))
    if shape == "struct":
        parts = [nested(draw, n, depth - 1), nested(draw, n, depth - 1)]
        return pa.StructArray.from_arrays(parts, ["a", "b"])
    return leaf(draw, n)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_whatever_a_parquet_file_holds_a_row_is_written_or_bad(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    table = pa.table({"text": ["a"] * N, "x": nested(data.draw, N, 2)})
    path = tmp_path_factory.mktemp("any") / "rows.parquet"
    pq.write_table(table, path, row_group_size=4)
    rows = rows_of(path)
    assert len(rows) == N
    sound = [row for row in rows if not row.problem]
    for row in rows:
        assert not row.problem or not is_valid(row.batch.slice(row.index, 1))
    assert len(written(path)) == len(sound)


def is_valid(batch: Any) -> bool:
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


# -- files that cannot be read


@pytest.mark.parametrize("columns", [["text", "text"], ["text", "a", "b", "a"]])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".npy"])
def test_a_column_that_is_there_twice_is_refused_by_its_name(
    suffix: str, columns: list[str], tmp_path: Path, tiny: LlamaParams
) -> None:
    arrays = [pa.array(["a"]) for _ in columns]
    pq.write_table(pa.Table.from_arrays(arrays, names=columns), tmp_path / "rows.parquet")
    twice = max(columns, key=columns.count)
    with pytest.raises(InputError, match=rf"rows\.parquet: two columns are named '{twice}'"):
        embed(tmp_path / "rows.parquet", tmp_path / f"out{suffix}", tiny)


def test_a_damaged_page_is_one_error_that_names_file_and_row(tmp_path: Path, tiny: LlamaParams) -> None:
    path = tmp_path / "rows.parquet"
    table = pa.table({"text": [text(i) for i in range(90)]})
    pq.write_table(table, path, row_group_size=30, use_dictionary=False, compression="zstd")
    chunk = pq.ParquetFile(path).metadata.row_group(2).column(0)
    data = bytearray(path.read_bytes())
    middle = chunk.data_page_offset + chunk.total_compressed_size // 2
    data[middle : middle + 40] = bytes(40)
    path.write_bytes(data)
    for _ in range(2):  # and the same when the job goes on
        with pytest.raises(InputError, match=r"rows\.parquet: cannot be read behind row 60 .*damaged"):
            embed(path, tmp_path / "out", tiny, part_rows=25)
    assert len(list((tmp_path / "out").glob("part-*"))) == 2


def test_a_damaged_parquet_file_never_ends_in_another_error(tmp_path: Path) -> None:
    rng = random.Random(3)
    table = pa.table(
        {"text": [text(i) for i in range(99)], "kind": pa.array(["a", "b", "c"] * 33).dictionary_encode()}
    )
    pq.write_table(table, tmp_path / "whole.parquet", row_group_size=40, compression="snappy")
    whole = (tmp_path / "whole.parquet").read_bytes()
    n_refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(4, len(data) - 8)] = rng.randrange(256)
        (tmp_path / "rows.parquet").write_bytes(data)
        try:
            written(tmp_path / "rows.parquet")
        except GgrankError:
            n_refused += 1
    assert n_refused > 20


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".csv.gz"])
@pytest.mark.parametrize("damage", ["changed", "cut"])
def test_a_damaged_gz_is_one_error_that_names_file_and_line(
    damage: str, suffix: str, tmp_path: Path, tiny: LlamaParams
) -> None:
    path = tmp_path / f"rows{suffix}"
    rng = random.Random(1)
    texts = [f"{text(i)} {rng.random()}" for i in range(3000)]
    lines = ["text", *texts] if "csv" in suffix else [json.dumps({"text": one}) for one in texts]
    data = bytearray(gzip.compress("\n".join(lines).encode()))
    middle = len(data) // 2
    if damage == "cut":
        del data[middle:]
    else:
        data[middle : middle + 99] = b"\xff" * 99
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"rows{suffix}:\d\d+: cannot be read \("):
        embed(path, tmp_path / "out", tiny)


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_csv_with_carriage_returns_gives_the_rows_that_csv_reads(
    suffix: str, tmp_path: Path, tiny: LlamaParams
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\r")
    writer.writerows([["id", "text"], *([str(i), f"{text(i)}, \u00e9\r{i}"] for i in range(50))])
    opened = gzip.open if suffix.endswith(".gz") else open
    source = tmp_path / f"rows{suffix}"
    with opened(source, "wb") as target:
        target.write(file.getvalue().encode())
    expected = list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))
    embed(source, tmp_path / "out.jsonl", tiny, part_rows=7)
    found = read_jsonl(tmp_path / "out.jsonl")
    assert [{"id": row["id"], "text": row["text"]} for row in found] == expected
    rows = rows_of(source)
    for first in (1, 30):
        assert rows_of(source, rows[first - 1].after) == rows[first:]


def test_names_of_columns_that_are_not_csv_are_a_clear_error(tmp_path: Path, tiny: LlamaParams) -> None:
    (tmp_path / "rows.csv").write_bytes(b"id,text\rmore\n1,a,b\n")
    with pytest.raises(InputError, match=r"rows\.csv:1: the columns' names are not CSV"):
        embed(tmp_path / "rows.csv", tmp_path / "out.jsonl", tiny)
