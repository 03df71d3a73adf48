"""The rows of a shard and their new columns, as JSON lines or Parquet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ggrank.rows.reading import Row
from ggrank.rows.writing import json_line
from ggrank.text.inputs import check_text

if TYPE_CHECKING:
    import pyarrow as pa

Format = Literal["parquet", "jsonl"]
"""How a job writes its rows."""

Columns = Mapping[str, NDArray[Any]]

Kinds = dict[str, str]
"""Of each column of JSON lines or CSV: "bool", "int" (64 bits), "float", or "text"."""

_WORDS = {"bool": "true or false", "int": "whole numbers", "float": "numbers", "text": "text or a list"}


def write_jsonl(path: Path, rows: Sequence[Row], columns: Columns) -> None:
    """A JSON object a row."""
    with path.open("wb") as file:
        file.writelines(json_lines(rows, columns))


def json_lines(rows: Sequence[Row], columns: Columns) -> Iterator[bytes]:
    """A line for each row, with the new columns after its own."""
    for i, row in enumerate(rows):
        yield json_line({**row.values, **{name: column[i] for name, column in columns.items()}})


def kinds_of(rows: Sequence[Row], before: Kinds) -> Kinds:
    """The kinds of a file's columns: those of earlier shards stay; a new column's fit all of its values here,
    which is "text" where they are of several kinds. One without any value has none yet.
    """
    found: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.values.items():
            if name not in before and value is not None:
                found.setdefault(name, set()).add(_kind(value))
    new = {name: kinds.pop() if len(kinds) == 1 else _common(kinds) for name, kinds in found.items()}
    return {**before, **new}


def _kind(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return "int" if -(2**63) <= value < 2**63 else "text"
    return {bool: "bool", float: "float"}.get(type(value), "text")


def _common(kinds: set[str]) -> str:
    return "float" if kinds == {"int", "float"} else "text"


def misfit(row: Row, kinds: Kinds) -> str:
    """Why a row cannot stand under the rows before it; "" where it can. A column of text takes all values."""
    for name, value in row.values.items():
        kind = kinds.get(name, "text")
        if value is None or kind in ("text", _kind(value)) or (kind, _kind(value)) == ("float", "int"):
            continue
        return (
            f"column {name!r} has {_WORDS[_kind(value)]}, and the rows before it have {_WORDS[kind]}; "
            "JSON lines as output keep every value"
        )
    return ""


def table_of_values(rows: Sequence[Row], kinds: Kinds) -> pa.Table:
    """The columns of rows that were read from JSON lines or CSV; in text, what is no string is JSON."""
    import pyarrow as pa

    types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
    arrays = [
        pa.array([_stored(row.values.get(name), kind) for row in rows], types.get(kind, pa.string()))
        for name, kind in kinds.items()
    ]
    return pa.Table.from_arrays(arrays, names=[check_text(name, "a column") for name in kinds])


def _stored(value: Any, kind: str) -> Any:
    if value is None or kind in ("bool", "int"):
        return value
    if kind == "float":
        return float(value)
    return check_text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), "a value")


def kinds_in(schema: pa.Schema, new: Sequence[str]) -> Kinds:
    """The kinds that `table_of_values` made a file's columns of, without the new columns."""
    words = {"bool": "bool", "int64": "int", "double": "float"}
    return {field.name: words.get(str(field.type), "text") for field in schema if field.name not in new}


def joined(columns: Sequence[Columns]) -> dict[str, NDArray[Any]]:
    """The columns of several blocks after one another."""
    return {name: np.concatenate([block[name] for block in columns]) for name in columns[0]}
