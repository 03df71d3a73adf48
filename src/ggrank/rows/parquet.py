"""Parquet in and out, with pyarrow (extra ``corpus``), and the record of what computed a column."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.rows.reading import Row, check_names

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = b"ggrank"
"""The key in a table's metadata: JSON, for each column that ggrank computed what it was computed with."""

_BATCH_ROWS = 64
_BATCH_BYTES = 1 << 22
"""What is decoded together at most, as far as the file says how long its rows are."""


def check_pyarrow() -> None:
    """Raises InputError where there is no pyarrow."""
    try:
        import pyarrow  # noqa: F401  (only whether it is there)
    except ImportError as error:
        raise InputError("Parquet needs pyarrow: pip install 'ggrank[corpus]'") from error


def read_parquet(name: str, source: Any, *, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a file; only ``columns`` (None: all) become Python values.

    Raises:
        InputError: the file is damaged, is a pipe, or has two columns of one name.
    """
    if not isinstance(source, (str, Path)):
        raise InputError(f"{name}: Parquet cannot be read from a pipe, because its end is read first")
    number = 0
    with open_parquet(Path(source)) as file:
        try:
            for batch in _batches(file):
                yield from _rows_of(batch, number, columns)
                number += len(batch)
        except (_arrow_error(), OSError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{name}: cannot be read after row {number:,} ({reason}); is it damaged?"
            ) from error


def open_parquet(path: Path) -> Any:
    """A ``pyarrow.parquet.ParquetFile``, to be closed. Raises InputError as `read_parquet` does."""
    check_pyarrow()
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
        check_names(file.schema_arrow.names)
    except (_arrow_error(), OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{path}: cannot be read as Parquet ({reason})") from error
    return file


def schema_of(path: Path) -> pa.Schema:
    """A file's columns and metadata."""
    with open_parquet(path) as file:
        return file.schema_arrow


def _arrow_error() -> type[Exception]:
    import pyarrow as pa

    return pa.ArrowException  # type: ignore[no-any-return]


def _batches(file: Any) -> Iterator[pa.RecordBatch]:
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        fitting = _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)
        size = max(1, min(_BATCH_ROWS, fitting))
        yield from file.iter_batches(size, row_groups=[number], use_threads=False)


def _rows_of(batch: pa.RecordBatch, before: int, columns: Sequence[str] | None) -> Iterator[Row]:
    names = [name for name in batch.schema.names if columns is None or name in columns]
    lists = [python_values(batch.column(name)) for name in names]
    size = batch.nbytes // max(1, len(batch))
    for i in range(len(batch)):
        values = {name: column[i] for name, column in zip(names, lists, strict=True)}
        bad = next((name for name, value in values.items() if value is UNREADABLE), None)
        problem = "" if bad is None else f"column {bad!r} has a value that cannot be read, such as no UTF-8"
        yield Row(values, before + i + 1, problem, size, batch, i)


UNREADABLE = object()
"""Stands for a value of Arrow that Python does not have, such as a string that is not UTF-8."""


def python_values(column: pa.Array) -> list[Any]:
    """A column's values; `UNREADABLE` stands for those that Python lacks. Times are text, as Arrow has it."""
    import pyarrow as pa

    if pa.types.is_temporal(column.type):  # Python lacks nanoseconds, and years after 9999
        if getattr(column.type, "tz", None):
            column = column.cast(pa.timestamp(column.type.unit, "UTC"))  # its zone may be unknown here
        column = column.cast(pa.string())
    try:
        return list(column.to_pylist())
    except Exception:  # each kind of unreadable value raises something else
        return [_python_value(item) for item in column]


def _python_value(item: Any) -> Any:
    try:
        return item.as_py()
    except Exception:  # as in `python_values`
        return UNREADABLE


# -- tables


def table_of(rows: Sequence[Row]) -> pa.Table:
    """All columns of rows that were read from one Parquet file, as they were there."""
    import pyarrow as pa

    slices = []
    # Slices, because not all types can be taken row by row: string_view cannot.
    for _, group in groupby(enumerate(rows), key=lambda pair: (id(pair[1].batch), pair[1].index - pair[0])):
        run = [row for _, row in group]
        slices.append(run[0].batch.slice(run[0].index, len(run)))
    return pa.Table.from_batches(slices)


def with_columns(
    table: pa.Table, columns: Mapping[str, NDArray[Any]], origins: Mapping[str, Any]
) -> pa.Table:
    """A table with computed columns after its own, and what they were computed with.

    Args:
        columns: shape (n,), or (n, width) for vectors.
        origins: by column, as JSON has it.
    """
    import pyarrow as pa

    for name, values in columns.items():
        flat = pa.array(np.ascontiguousarray(values).ravel())
        array = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        table = table.append_column(name, array)
    metadata = dict(table.schema.metadata or {})
    before = json.loads(metadata.get(METADATA, b"{}"))
    metadata[METADATA] = json.dumps({**before, **origins}, sort_keys=True).encode()
    return table.replace_schema_metadata(metadata)


def find_vectors(schema: pa.Schema) -> dict[str, Any] | None:
    """What computed a table's vectors, as `EmbedStep.origin` gives it; None where ggrank did not."""
    try:
        origins = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
    except ValueError:
        return None
    for column, origin in origins.items() if isinstance(origins, dict) else ():
        if column in schema.names and isinstance(origin, dict) and origin.get("step") == "embed":
            return origin
    return None


def write_tables(path: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> None:
    """One file with a row group a table; columns of ``schema`` that a table lacks are null in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A dictionary of a vector's numbers only costs: hardly two are the same.
    plain = [field.name for field in schema if not pa.types.is_fixed_size_list(field.type)]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=plain) as writer:
        for table in tables:
            for field in schema:
                if field.name not in table.column_names:
                    table = table.append_column(field, pa.nulls(len(table), field.type))
            writer.write_table(table.select(schema.names).cast(schema), row_group_size=max(1, len(table)))
