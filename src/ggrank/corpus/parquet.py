"""Parquet in and out, with pyarrow (extra ``corpus``): rows in batches, parts, and who made a column.

The only file of this package that imports pyarrow. Knows tables and their metadata; no models, no jobs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ggrank.corpus.rows import Place, Row
from ggrank.corpus.sources import Source
from ggrank.errors import InputError
from ggrank.inputs import check_text

if TYPE_CHECKING:
    import pyarrow as pa

METADATA = b"ggrank"
"""The key in a table's metadata: JSON, for each column that ggrank computed what it was computed with."""

BATCH_ROWS = 256
"""Rows that are decoded together; a batch never reaches over a row group's end."""


def check_pyarrow() -> None:
    """Raises InputError where there is no pyarrow."""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow: pip install 'ggrank[corpus]'; JSON lines and .npy do without"
        ) from error


def read_rows(source: Source, start: Place, *, columns: Sequence[str]) -> Iterator[Row]:
    """The rows of a file from a place on; only ``columns`` become Python values."""
    with _opened(source) as file:
        row = 0
        for group in range(file.metadata.num_row_groups):
            n_rows = file.metadata.row_group(group).num_rows
            if row + n_rows <= start.row:
                row += n_rows
                continue
            for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False):
                if row + len(batch) > start.row:
                    yield from _rows_of(batch, row, source, start, file.metadata.num_rows, columns)
                row += len(batch)


def _rows_of(
    batch: pa.RecordBatch, first: int, source: Source, start: Place, n_rows: int, columns: Sequence[str]
) -> Iterator[Row]:
    size = batch.nbytes // len(batch)
    wanted = [name for name in columns if name in batch.schema.names]
    values = [_values(batch.column(name)) for name in wanted]
    for i in range(max(0, start.row - first), len(batch)):
        after = Place(start.source, first + i + 1, source.size * (first + i + 1) // n_rows)
        named = {name: column[i] for name, column in zip(wanted, values, strict=True)}
        yield Row(start.source, first + i + 1, named, size, after, "", batch, i)


def _values(column: pa.Array) -> list[Any]:
    """As Python values; a text that is no UTF-8 stays bytes, and so is no string."""
    column = column.cast(_in_microseconds(column.type), safe=False)
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [_value(item) for item in column]


def _value(item: pa.Scalar) -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError:
        return b"not UTF-8"


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
    except (pa.ArrowException, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{source.shown}: cannot be read as Parquet ({reason})") from error


def schema_of(sources: Sequence[Source]) -> pa.Schema:
    """The columns that all sources have.

    Raises:
        InputError: one cannot be read, or has other columns than the first.
    """
    schemas = []
    for source in sources:
        with _opened(source) as file:
            schemas.append(file.schema_arrow)
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
    for _, group in groupby(rows, key=lambda row: id(row.batch)):
        same = list(group)
        parts.append(same[0].batch.take(pa.array([row.index for row in same], pa.int64())))
    return pa.Table.from_batches(parts, schema=schema)


def values_of_rows(rows: Sequence[Row], schema: pa.Schema) -> list[dict[str, Any]]:
    """The same as Python values, times to the microsecond."""
    import pyarrow as pa

    table = table_of_rows(rows, schema)
    fields = [field.with_type(_in_microseconds(field.type)) for field in table.schema]
    return list(table.cast(pa.schema(fields), safe=False).to_pylist())


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """A type of times that Python has, for one in nanoseconds, which it has not; others stay."""
    import pyarrow as pa

    if getattr(kind, "unit", "") == "ns":
        if pa.types.is_timestamp(kind):
            return pa.timestamp("us", kind.tz)
        return pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")
    if pa.types.is_list(kind):
        return pa.list_(_in_microseconds(kind.value_type))
    if pa.types.is_large_list(kind):
        return pa.large_list(_in_microseconds(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([kind[i].with_type(_in_microseconds(kind[i].type)) for i in range(kind.num_fields)])
    return kind


def table_of_values(rows: Sequence[Row], kinds: Mapping[str, str]) -> pa.Table:
    """The columns of rows that were read from JSON lines or CSV.

    Args:
        kinds: each column's, as `ggrank.corpus.kinds` found them.
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
