"""What a part looks like in each format, and how parts become one file.

Knows which columns go where; the formats are in `ggrank.jobs.parquet` and `ggrank.jobs.writing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.jobs.blocks import item_of, wrong_columns
from ggrank.jobs.kinds import find_kinds
from ggrank.jobs.rows import Row, RowReader, csv_header
from ggrank.jobs.sources import Source
from ggrank.jobs.steps import Step
from ggrank.jobs.writing import assemble_npy, concatenate, json_lines, write_npy

Format = Literal["parquet", "jsonl", "npy"]
"""How a job writes its rows."""

Columns = Mapping[str, NDArray[Any]]


class Form(Protocol):
    """One format, for one job."""

    def write(self, path: Path, rows: Sequence[Row], columns: Columns) -> None:
        """A part: rows, and the new columns beside them."""

    def assemble(self, path: Path, parts: Sequence[Path]) -> None:
        """One file of all parts, of which there is at least one."""


@dataclass(frozen=True)
class JsonLines:
    """A JSON object a row."""

    def write(self, path: Path, rows: Sequence[Row], columns: Columns) -> None:
        """A line for each row."""
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(self.lines(rows, columns))

    def lines(self, rows: Sequence[Row], columns: Columns) -> Iterator[str]:
        """A line for each row, its end included."""
        return json_lines(values_of(rows), columns)

    def assemble(self, path: Path, parts: Sequence[Path]) -> None:
        """The parts behind one another."""
        with path.open("wb") as file:
            concatenate(file, parts)


@dataclass(frozen=True)
class Npy:
    """The new column alone, a row each."""

    column: str

    def write(self, path: Path, rows: Sequence[Row], columns: Columns) -> None:
        """One array."""
        write_npy(path, columns[self.column])

    def assemble(self, path: Path, parts: Sequence[Path]) -> None:
        """One array of all."""
        assemble_npy(path, parts)


@dataclass(frozen=True)
class Parquet:
    """All columns, each with its type.

    Attributes:
        schema: of rows from Parquet; None for others.
        kinds: of the columns of others.
        origins: for the metadata.
    """

    schema: Any = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path, rows: Sequence[Row], columns: Columns) -> None:
        """One row group."""
        from ggrank.jobs.parquet import table_of_rows, table_of_values, with_columns, write_table

        made_of = table_of_values if self.schema is None else table_of_rows
        table = made_of(rows, self.kinds if self.schema is None else self.schema)
        write_table(path, with_columns(table, columns, self.origins))

    def assemble(self, path: Path, parts: Sequence[Path]) -> None:
        """A row group a part."""
        from ggrank.jobs.parquet import assemble

        assemble(path, parts)


def form_of(format: Format, sources: Sequence[Source], step: Step) -> Form:
    """The format of a job; its columns are looked at, of JSON lines all rows.

    Raises:
        InputError: a column is missing, is taken, or has the wrong type; or there is no pyarrow.
    """
    check_sources(sources, step)
    if format == "jsonl":
        return JsonLines()
    if format == "npy":
        return Npy(step.column)
    from ggrank.jobs.parquet import check_pyarrow, schema_of

    check_pyarrow()
    origins = {step.column: step.origin()}
    kind = sources[0].kind
    if kind == "parquet":
        return Parquet(schema=schema_of(sources), origins=origins)
    if kind == "jsonl":
        return Parquet(kinds=find_kinds(_sound_values(sources, step)), origins=origins)
    names = csv_header(sources[0]) if kind == "csv" else ["text"]
    return Parquet(kinds=dict.fromkeys(names, "text"), origins=origins)


def _sound_values(sources: Sequence[Source], step: Step) -> Iterator[Mapping[str, Any]]:
    """The rows that will be written: a bad one decides no column's type."""
    for row in RowReader(sources, step.read):
        try:
            item_of(row, step)
        except InputError:
            continue
        yield row.values


def check_sources(sources: Sequence[Source], step: Step) -> None:
    """Looks at the columns of each file, of JSON lines at those of the first row that can be read.

    Raises:
        InputError: one is missing, is taken, or the files differ.
    """
    for source in sources:
        names = _names(source, sources)
        wrong = "" if names is None else wrong_columns(step, names)
        if wrong:
            raise InputError(f"{source.shown}: {wrong}")


def _names(source: Source, sources: Sequence[Source]) -> list[str] | None:
    """The columns of a file; None for plain lines, for no rows and for stdin that was not kept."""
    if source.kind == "parquet":
        from ggrank.jobs.parquet import schema_of

        return list(schema_of([source]).names)
    if source.path is None or source.kind == "text":
        return None
    if source.kind == "jsonl":
        return next((list(row.values) for row in RowReader([source], []) if not row.problem), None)
    names = csv_header(source)
    if names != csv_header(sources[0]):
        raise InputError(
            f"{source.shown} has other columns than {sources[0].shown}; give each a job of its own"
        )
    return names


def values_of(rows: Sequence[Row]) -> Iterator[Mapping[str, Any]]:
    """All columns of rows as Python values."""
    if not rows or rows[0].batch is None:
        return (row.values for row in rows)
    from ggrank.jobs.parquet import values_of_rows

    return iter(values_of_rows(rows, rows[0].batch.schema))


def joined(parts: Sequence[Columns]) -> dict[str, NDArray[Any]]:
    """The columns of several blocks behind one another."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
