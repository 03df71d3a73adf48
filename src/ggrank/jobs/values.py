"""Arrow's values as Python has them, for JSON: one that Python cannot have is no error.

    times                     to the microsecond; nanoseconds are cut off
    beyond years 1 to 9999    as text: "12024-01-01T00:00:00"
    an unknown time zone      as text in UTC
    a string not UTF-8        `NOT_UTF8`
    a field's name twice      a list of pairs, as of a map

Knows pyarrow's arrays; no tables, rows or files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa

NOT_UTF8 = b"not UTF-8: \xff"
"""Stands for a string whose bytes are not UTF-8, which Python cannot have; is no string itself."""


def values_in(column: pa.Array) -> list[Any]:
    """A column's values, `NOT_UTF8` for each that is, or has within, a string that is none."""
    kind = column.type
    if getattr(kind, "unit", "") == "ns":
        column = column.cast(_in_microseconds(kind), safe=False)
    elif "[ns" in str(kind):  # somewhere within; without pandas Python has no value for them
        return [_value(item) for item in column]
    try:
        return list(column.to_pylist())
    except Exception:  # a value that Python has not: each kind of them raises something else
        return [_value(item) for item in column]


def _value(item: pa.Scalar) -> Any:
    """One value, whatever Python lacks: of lists, maps and structs each within."""
    try:
        return _inner(item)
    except UnicodeDecodeError:
        return NOT_UTF8


def _inner(item: pa.Scalar) -> Any:
    import pyarrow as pa

    if not item.is_valid:
        return None
    if isinstance(item, pa.DictionaryScalar):
        return _inner(item.value)
    if isinstance(item, pa.MapScalar):
        return [(_inner(pair[0]), _inner(pair[1])) for pair in item.values]
    if isinstance(item, pa.ListScalar):
        return [_inner(one) for one in item.values]
    if isinstance(item, pa.StructScalar):
        pairs = [(field.name, _inner(item[i])) for i, field in enumerate(item.type)]
        named = dict(pairs)
        return named if len(named) == len(pairs) else pairs
    return _time(item) if pa.types.is_temporal(item.type) else item.as_py()


def _time(item: pa.Scalar) -> Any:
    """A time or date; as text outside the years 1 to 9999, and where its zone is unknown."""
    if getattr(item.type, "unit", "") == "ns":
        item = item.cast(_in_microseconds(item.type), safe=False)
    try:
        return item.as_py()
    except Exception:  # an OverflowError, or whatever the source of time zones raises
        return _text_of_time(item)


def _text_of_time(item: pa.Scalar) -> str:
    import pyarrow as pa

    unit: Any = "ms" if pa.types.is_date64(item.type) else getattr(item.type, "unit", "D")
    if pa.types.is_duration(item.type):
        return str(np.timedelta64(item.value, unit))
    if pa.types.is_date(item.type):
        return str(np.datetime64(item.value, unit).astype("datetime64[D]"))
    zone = "+00:00" if getattr(item.type, "tz", None) else ""
    return str(np.datetime64(item.value, unit)) + zone


def _in_microseconds(kind: pa.DataType) -> pa.DataType:
    """A type of times that Python has, for one in nanoseconds, which it has not."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    return pa.duration("us") if pa.types.is_duration(kind) else pa.time64("us")
