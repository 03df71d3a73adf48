"""Filters over metadata as SQL: ``{"tags": "staff", "year": {">=": 2020}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggrank.errors import InputError

_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")


def conditions(where: Mapping[str, Any] | None) -> tuple[str, tuple[object, ...]]:
    """A condition of SQL over ``document.metadata``, and its values; "" for no filter.

    A field that is a list meets a condition where one of its items does, and ``!=`` where none is equal. Only
    numbers compare with numbers, and texts with texts.

    Raises:
        InputError: an operator or a value that is none.

    Example:
        >>> conditions({"year": {">=": 2020}})[1]
        ('$."year"', 2020)
    """
    if where is None:
        return "", ()
    if not isinstance(where, Mapping):
        raise InputError(f"where must be a mapping such as {{'year': 2020}}; found {where!r}")
    parts: list[str] = []
    values: list[object] = []
    for name, wanted in where.items():
        for operator, value in (wanted if isinstance(wanted, Mapping) else {"==": wanted}).items():
            parts.append(_condition(operator, value))
            values += [_path(name), *([] if value is None else [value])]
    return " AND ".join(parts), tuple(values)


def _condition(operator: str, value: object) -> str:
    if operator not in _OPERATORS:
        raise InputError(f"where knows {', '.join(_OPERATORS)}; found {operator!r}")
    if value is not None and not isinstance(value, (str, int, float)):
        raise InputError(f"where compares with a text or a number; found {value!r}")
    if value is None:
        test = "type = 'null'"
    else:
        types = "('text')" if isinstance(value, str) else "('integer', 'real', 'true', 'false')"
        test = f"type IN {types} AND atom {'=' if operator in ('==', '!=') else operator} ?"
    there = f"EXISTS (SELECT 1 FROM json_each(document.metadata, ?) WHERE {test})"
    return f"NOT {there}" if operator == "!=" else there


def _path(name: object) -> str:
    """Where SQLite finds a field of the metadata."""
    text = str(name)
    if '"' in text:
        raise InputError(f"where cannot look for a field with a quotation mark: {text!r}")
    return f'$."{text}"'
