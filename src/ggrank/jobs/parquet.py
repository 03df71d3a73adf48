"""Parquet in and out, with pyarrow (extra ``corpus``): rows in batches, parts, and who made a column.

With `ggrank.jobs.values` all of this package that imports pyarrow. Knows tables and their metadata; no
models, no jobs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.jobs.rows import Place, Row, check_names
from ggrank.jobs.sources import Source
from ggrank.jobs.values import NOT_UTF8, values_in
from ggrank.text.inputs import check_text

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

METADATA = b"ggrank"
"""The key in a table's metadata: JSON, for each column that ggrank computed what it was computed with."""

BATCH_ROWS = 16
"""Rows that are decoded together; a batch never reaches over a row group's end.

Few, because any of them may be a thousand times as long as the others; and still reading is not what a job
waits for.
"""

CATEGORY_BATCH_ROWS = 256
"""The same where a column is of Arrow's dictionary type: each batch has a copy of the whole dictionary."""

BATCH_BYTES = 1 << 22
"""Of rows that are decoded together, as far as the file says how long they are."""


def check_pyarrow() -> None:
    """Raises InputError where there is no pyarrow."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow: pip install 'ggrank[corpus]'; JSON lines and .npy do without"
        ) from error


def read_rows(source: Source, start: Place, *, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a file from a place on; only ``columns`` become Python values.

    Raises:
        InputError: the file is damaged.
    """
    import pyarrow as pa

    with _opened(source) as file:
        row, n_rows = start.row, file.metadata.num_rows
        try:
            for first, batch in _batches(file, start.row):
                yield from _rows_of(batch, first, source, start, n_rows, columns)
                row = first + len(batch)
        except (pa.ArrowException, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{source.shown}: cannot be read behind row {row:,} ({reason}); the file is damaged, "
                "fetch or write it anew"
            ) from error


def _batches(file: Any, start: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Batches from the one on that has row ``start``, each with the number of rows before it."""
    row = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        if row + group.num_rows <= start:
            row += group.num_rows
            continue
        size = batch_rows(group, file.schema_arrow)
        for batch in file.iter_batches(size, row_groups=[number], use_threads=False):
            if row + len(batch) > start:
                yield row, batch
            row += len(batch)


def batch_rows(group: pq.RowGroupMetaData, schema: pa.Schema) -> int:
    """How many rows of a row group are decoded together.

    It follows from the file alone, so that a job that goes on has the same batches. What the file says of its
    size may be too little: it counts a value once that a column's dictionary holds for many rows.
    """
    import pyarrow as pa

    has_categories = any(pa.types.is_dictionary(field.type) for field in schema)
    most = CATEGORY_BATCH_ROWS if has_categories else BATCH_ROWS
    fitting = BATCH_BYTES * int(group.num_rows) // max(1, int(group.total_byte_size))
    return max(1, min(most, fitting))


def _rows_of(
    batch: pa.RecordBatch, first: int, source: Source, start: Place, n_rows: int, columns: Sequence[str]
) -> Iterator[Row]:
    size = batch.nbytes // len(batch)
    wanted = [name for name in columns if name in batch.schema.names]
    values = [values_in(batch.column(name)) for name in wanted]
    problems = _problems(batch)
    for i in range(max(0, start.row - first), len(batch)):
        after = Place(start.source, first + i + 1, source.size * (first + i + 1) // n_rows)
        named = {name: column[i] for name, column in zip(wanted, values, strict=True)}
        yield Row(start.source, first + i + 1, named, size, after, problems[i], batch, i)


def _problems(batch: pa.RecordBatch) -> list[str]:
    """Of each row, which column has a string that is not UTF-8; "" for none. A row of CSV may not either."""
    problems = [""] * len(batch)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for i, value in enumerate([] if _is_valid(column) else values_in(column)):
            if value is NOT_UTF8:
                problems[i] = f"column {name!r} is not UTF-8"
    return problems


def _is_valid(column: pa.Array) -> bool:
    """Whether all strings are UTF-8, and more: much faster than to make Python's values of them."""
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _opened(source: Source) -> Any:
    check_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    if source.path is None:
        raise InputError(
            "Parquet cannot be read from a pipe, because its end is read first; name an --output"
        )
    try:
        return pq.ParquetFile(source.path, memory_map=True, pre_buffer=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{source.shown}: cannot be read as Parquet ({reason})") from error


def schema_of(sources: Sequence[Source]) -> pa.Schema:
    """The columns that all sources have.

    Raises:
        InputError: one cannot be read, has two columns of one name, or other columns than the first.
    """
    schemas = []
    for source in sources:
        with _opened(source) as file:
            schemas.append(file.schema_arrow)
        check_names(schemas[-1].names, source)
        if not schemas[-1].equals(schemas[0]):
            raise InputError(
                f"{source.shown} has other columns than {sources[0].shown}: "
                f"{_shown(schemas[-1])}, and {_shown(schemas[0])}; give each a job of its own"
            )
    return schemas[0]


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


# -- tables


def table_of_rows(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """The other columns of rows that were read from Parquet, as they were there."""
    import pyarrow as pa

    parts = []
    # Slices, because not all types can be taken from row by row: string_view cannot.
    for _, group in groupby(enumerate(rows), key=lambda pair: (id(pair[1].batch), pair[1].index - pair[0])):
        same = [row for _, row in group]
        parts.append(same[0].batch.slice(same[0].index, len(same)))
    return pa.Table.from_batches(parts, schema=schema)


def values_of_rows(rows: Sequence[Row], schema: pa.Schema) -> list[dict[str, Any]]:
    """The same as Python values, times to the microsecond."""
    table = table_of_rows(rows, schema)
    columns = [[value for chunk in column.chunks for value in values_in(chunk)] for column in table.columns]
    return [dict(zip(schema.names, values, strict=True)) for values in zip(*columns, strict=True)]


def table_of_values(rows: Sequence[Row], kinds: Mapping[str, str]) -> pa.Table:
    """The columns of rows that were read from JSON lines or CSV.

    Args:
        kinds: each column's, as `ggrank.jobs.kinds` found them.
    """
    import pyarrow as pa

    types = {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64()}
    arrays = [
        pa.array([_storable(row.values.get(name), kind) for row in rows], types.get(kind, pa.string()))
        for name, kind in kinds.items()
    ]
    return pa.Table.from_arrays(arrays, names=[check_text(name, "a column") for name in kinds])


def _storable(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "text":
        return check_text(value, "a value")
    if kind == "json":
        return check_text(json.dumps(value, ensure_ascii=False), "a value")
    return float(value) if kind == "float" else value


def with_columns(
    table: pa.Table, columns: Mapping[str, NDArray[Any]], origins: Mapping[str, Any]
) -> pa.Table:
    """A table with computed columns behind the others, and what they were computed with.

    Args:
        columns: shape (n,), or (n, width) for vectors.
        origins: for the metadata, by column.
    """
    for name, values in columns.items():
        table = table.append_column(name, _array(values))
    kept = dict(table.schema.metadata or {})
    before = json.loads(kept.get(METADATA, b"{}"))
    kept[METADATA] = json.dumps({**before, **origins}, sort_keys=True).encode()
    return table.replace_schema_metadata(kept)


def _array(values: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])


def origins_of(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """What ggrank wrote into a table's metadata, by column; empty for anybody else's table."""
    try:
        found = json.loads((metadata or {}).get(METADATA, b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def find_vectors(schema: pa.Schema) -> dict[str, Any] | None:
    """What a table's vectors were made with, as `EmbedStep.origin` gave it; None where none are ours."""
    for column, origin in origins_of(schema.metadata).items():
        if column in schema.names and isinstance(origin, dict) and origin.get("step") == "embed":
            return origin
    return None


def write_table(path: Path, table: pa.Table) -> None:
    """One file with one row group."""
    with _writer(path, table.schema) as writer:
        writer.write_table(table, row_group_size=max(1, len(table)))


def assemble(path: Path, parts: Iterable[Path]) -> None:
    """One file of many, a row group a part."""
    import pyarrow.parquet as pq

    # Not `read_table`, which starts a machinery for many files that takes 100 MB.
    tables = (pq.ParquetFile(part).read(use_threads=False) for part in parts)
    first = next(tables)
    with _writer(path, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table, row_group_size=max(1, len(table)))


def _writer(path: Path, schema: pa.Schema) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # A dictionary of a vector's numbers only costs: hardly two are the same.
    plain = [field.name for field in schema if not pa.types.is_fixed_size_list(field.type)]
    return pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=plain)
