"""Parquet in and out, with pyarrow (extra ``corpus``), and the record of what computed a column."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.rows.reading import Row, check_names
from ggrank.rows.writing import json_default

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = b"ggrank"
"""The key in a table's metadata: JSON, for each column that ggrank computed what it was computed with."""

UNREADABLE = object()
"""Stands for a value of Arrow that Python does not have, such as a string that is not UTF-8."""

_BATCH_ROWS = 64
_BATCH_BYTES = 1 << 22
"""What is decoded together at most, as far as the file says how long its rows are."""


def check_pyarrow() -> None:
    """Raises InputError where there is no pyarrow."""
    try:
        import pyarrow  # noqa: F401  (only whether it is there)
    except ImportError as error:
        raise InputError("Parquet needs pyarrow: pip install 'ggrank[corpus]'") from error


# -- reading


def read_parquet(name: str, source: Any, *, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The rows of a file; only ``columns`` (None: all) become Python values.

    Raises:
        InputError: the file is damaged, is a pipe, or has two columns of one name.
    """
    if not isinstance(source, (str, Path)):
        raise InputError(f"{name}: Parquet cannot be read from a pipe, because its end is read first")
    number = 0
    with _open(Path(source)) as file:
        import pyarrow as pa

        try:
            for batch in _batches(file):
                yield from _rows_of(batch, number, columns, name)
                number += len(batch)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{name}: cannot be read after row {number:,} ({reason}); is it damaged?"
            ) from error


def _open(path: Path) -> Any:
    check_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
        check_names(file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"{path}: cannot be read as Parquet ({reason})") from error
    return file


def schema_of(path: Path) -> pa.Schema:
    """A file's columns and metadata."""
    with _open(path) as file:
        return file.schema_arrow


def _batches(file: Any) -> Iterator[pa.RecordBatch]:
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        fitting = _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)
        size = max(1, min(_BATCH_ROWS, fitting))
        yield from file.iter_batches(size, row_groups=[number], use_threads=False)


def _rows_of(batch: pa.RecordBatch, before: int, columns: Sequence[str] | None, file: str) -> Iterator[Row]:
    names = [name for name in batch.schema.names if columns is None or name in columns]
    lists = [python_values(batch.column(name)) for name in names]
    size = batch.nbytes // max(1, len(batch))
    for i in range(len(batch)):
        values = {name: column[i] for name, column in zip(names, lists, strict=True)}
        bad = next((name for name, value in values.items() if value is UNREADABLE), None)
        problem = "" if bad is None else f"column {bad!r} has a value that cannot be read, such as no UTF-8"
        yield Row(values, before + i + 1, problem, size, batch, i, file, "parquet")


def python_values(column: pa.Array) -> list[Any]:
    """A column's values; `UNREADABLE` stands for those that Python lacks. Times are text, as Arrow has it."""
    import pyarrow as pa

    def value(item: Any) -> Any:
        try:
            return item.as_py()
        except Exception:  # each kind of unreadable value raises something else
            return UNREADABLE

    if pa.types.is_temporal(column.type):  # Python lacks nanoseconds, and years after 9999
        if getattr(column.type, "tz", None):
            column = column.cast(pa.timestamp(column.type.unit, "UTC"))  # its zone may be unknown here
        column = column.cast(pa.string())
    try:
        return list(column.to_pylist())
    except Exception:  # as above
        return list(map(value, column))


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


# -- rows to tables


def table_of(rows: Sequence[Row]) -> pa.Table:
    """All columns of rows that were read from one Parquet file, as they were there."""
    import pyarrow as pa

    slices = []
    # Slices, because not all types can be taken row by row: string_view cannot.
    for _, group in groupby(enumerate(rows), key=lambda pair: (id(pair[1].batch), pair[1].index - pair[0])):
        run = [row for _, row in group]
        slices.append(run[0].batch.slice(run[0].index, len(run)))
    return pa.Table.from_batches(slices)


_WORDS = {
    "bool": "true or false",
    "int64": "whole numbers",
    "double": "numbers",
    "string": "text or a list",
}
"""The types of the columns of JSON lines and CSV, by Arrow's names."""


def typed_table(rows: Sequence[Row], before: Mapping[str, str]) -> tuple[pa.Table, dict[int, str]]:
    """The columns of rows of JSON lines or CSV, and by its index why a row does not fit them.

    Columns that earlier shards of the file have keep their types. A new column's type fits all of its values;
    text does, where those that are no strings are JSON. A column without any value is left out.
    """
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row.values)
    types = dict(before)
    for name in names:
        found = {_type(row.values[name]) for row in rows if row.values.get(name) is not None}
        if name not in types and found:
            types[name] = _common(found)
    problems: dict[int, str] = {}
    for i, row in enumerate(rows):
        for name, value in row.values.items():
            type = types.get(name, "string")
            if value is not None and i not in problems and _common({type, _type(value)}) != type:
                problems[i] = (
                    f"column {name!r} has {_WORDS[_type(value)]}, and the rows before it have "
                    f"{_WORDS[type]}; JSON lines as output keep every value"
                )
    good = [row.values for i, row in enumerate(rows) if i not in problems]
    arrays = []
    for name, type in types.items():
        values = [row.get(name) for row in good]
        if type == "double":
            values = [None if value is None else float(value) for value in values]
        arrays.append(_as_text(values) if type == "string" else pa.array(values, type))
    return pa.Table.from_arrays(arrays, names=[_sound(name) for name in types]), problems


def _type(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return "int64" if -(2**63) <= value < 2**63 else "string"
    return {bool: "bool", float: "double"}.get(type(value), "string")


def _common(types: set[str]) -> str:
    return next(iter(types)) if len(types) == 1 else "double" if types == {"int64", "double"} else "string"


def _as_text(values: Iterable[Any]) -> pa.Array:
    """A column of text, in which values that are no strings are JSON."""
    import pyarrow as pa

    def text(value: Any) -> str | None:
        if value is None or value is UNREADABLE:
            return None
        if isinstance(value, (bool, int, float, list, dict)):
            value = json.dumps(value, ensure_ascii=False, default=json_default)
        return _sound(value if isinstance(value, str) else str(json_default(value)))

    return pa.array(map(text, values), pa.string())


def _sound(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which Arrow cannot hold."""
    return (
        text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    )


def with_columns(
    table: pa.Table, columns: Mapping[str, NDArray[Any]], origins: Mapping[str, Any]
) -> pa.Table:
    """A table with computed columns, (n,) or (n, width), after its own, and what they were computed with."""
    import pyarrow as pa

    for name, values in columns.items():
        flat = pa.array(np.ascontiguousarray(values).ravel())
        array = flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        table = table.append_column(name, array)
    metadata = dict(table.schema.metadata or {})
    before = json.loads(metadata.get(METADATA, b"{}"))
    metadata[METADATA] = json.dumps({**before, **origins}, sort_keys=True).encode()
    return table.replace_schema_metadata(metadata)


# -- tables to files


def write_tables(path: Path, tables: Iterable[pa.Table], schema: pa.Schema) -> None:
    """One file with a row group a table; columns of ``schema`` that a table lacks are null in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def column(table: pa.Table, field: pa.Field) -> Any:
        if field.name not in table.column_names:
            return pa.nulls(len(table), field.type)
        found = table[field.name]
        if found.type != field.type and field.type == pa.string():
            return _as_text(python_values(found.combine_chunks()))
        return found.cast(field.type)

    # A dictionary of a vector's numbers only costs: hardly two are the same.
    plain = [field.name for field in schema if not pa.types.is_fixed_size_list(field.type)]
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=plain) as writer:
        for table in tables:
            whole = pa.Table.from_arrays([column(table, field) for field in schema], schema=schema)
            writer.write_table(whole, row_group_size=max(1, len(whole)))


def read_table(path: Path) -> pa.Table:
    """A whole file, in one thread: ``pyarrow.parquet.read_table`` takes 100 MB."""
    with _open(path) as file:
        return file.read(use_threads=False)


def join_files(path: Path, parts: Sequence[Path]) -> None:
    """One file of several, with a row group for each of them.

    Where they disagree about a column, it has the type that holds the values of all: a wider number, or else
    text. A column that a file lacks is null there.
    """
    import pyarrow as pa

    schemas = [schema_of(part) for part in parts]
    names = dict.fromkeys(name for schema in schemas for name in schema.names)

    def common(name: str, promote: str) -> pa.Field:
        there = [pa.schema([schema.field(name)]) for schema in schemas if name in schema.names]
        try:
            return pa.unify_schemas(there, promote_options=promote).field(0)
        except (pa.ArrowTypeError, pa.ArrowInvalid):
            return pa.field(name, pa.string())

    def write(promote: str) -> None:
        schema = pa.schema([common(name, promote) for name in names], metadata=schemas[0].metadata)
        write_tables(path, map(read_table, parts), schema)

    try:
        write("permissive")
    except pa.ArrowInvalid:  # a value that the wider type does not hold, such as 2**60 as a float
        write("default")


def copy_rows(path: Path, parts: Sequence[Path], slices: Sequence[slice]) -> None:
    """One file of some rows of several files, which are counted through."""
    import pyarrow as pa

    table = pa.concat_tables(map(read_table, parts), promote_options="default")
    write_tables(path, [table[one] for one in slices], table.schema)
