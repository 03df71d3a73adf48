"""Which type a column of JSON lines has in Parquet: all its values are looked at before the first is written.

Knows Python values; no files beyond the rows that it is given.

    bool, int (64 bits), float, text   where every value is one, or null; an int among floats is a float
    json                               everything else, each value as its JSON text
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_EXACT = 2**53
"""Whole numbers up to here are the same as floats."""


def find_kinds(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The kind of each column, in the order in which they first appear.

    Example:
        >>> find_kinds([{"id": 1, "year": 1999}, {"id": 2.5, "year": None, "tags": ["a"]}])
        {'id': 'float', 'year': 'int', 'tags': 'json'}
    """
    kinds: dict[str, str] = {}
    for row in rows:
        for name, value in row.items():
            before = kinds.get(name, "null")
            if before != "json":
                kinds[name] = _both(before, _kind(value))
    return {name: _final(kind) for name, kind in kinds.items()}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if abs(value) <= _EXACT:
            return "int"
        return "long" if -(2**63) <= value < 2**63 else "json"
    return {float: "float", str: "text"}.get(type(value), "json")


def _both(first: str, second: str) -> str:
    """The kind of a column that holds both."""
    if first == second or second == "null":
        return first
    if first == "null":
        return second
    if {first, second} == {"int", "float"}:
        return "float"
    return "long" if {first, second} == {"int", "long"} else "json"


def _final(kind: str) -> str:
    return {"long": "int", "null": "text"}.get(kind, kind)
