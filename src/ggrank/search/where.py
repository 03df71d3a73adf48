"""Filters as SQL: over metadata, ``{"tags": "staff", "year": {">=": 2020}}``, and over files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from ggrank.errors import InputError, InputTypeError

_IS_NUMBER = """type IN ('integer', 'real', 'true', 'false')
    OR type = 'text' AND atom GLOB '[-.0-9]*' AND atom GLOB '*[0-9]'
        AND NOT substr(atom, 2) GLOB '*[^.0-9]*'"""
"""Fields of CSV files are texts, numbers too."""

_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")


def conditions(
    where: Mapping[str, Any] | None,
    *,
    paths: Sequence[str] = (),
    suffixes: Sequence[str] = (),
    since: datetime | None = None,
) -> tuple[str, tuple[object, ...]]:
    """A condition of SQL over ``document.metadata`` and ``file``, and its values; "" for no filter.

    A field that is a list meets a condition where one of its items does, and ``!=`` where none is equal.
    Numbers compare with numbers, also with those that CSV files hold as texts, and texts with texts.

    Raises:
        InputError: an operator or a value that is none.

    Example:
        >>> conditions({"year": {">=": 2020}})[1]
        ('$."year"', 2020)
        >>> conditions(None, paths=["notes/*.md"])[1]
        ('*/notes/*.md', '*/notes/*.md/*')
    """
    if isinstance(paths, str) or isinstance(suffixes, str):
        raise InputTypeError("paths and suffixes must be lists, found one string: put it in a list")
    globs = [glob for path in paths for glob in _globs(path)]
    endings = [f"*.{suffix.lstrip('.').lower()}" for suffix in suffixes]
    parts = [_any_of("replace(file.path, char(92), '/')", globs), _any_of("lower(file.path)", endings)]
    values: list[object] = [*globs, *endings]
    if since is not None:
        parts.append("file.mtime_ns >= ?")
        values.append(int(since.timestamp() * 1e9))
    where = {} if where is None else where
    if not isinstance(where, Mapping):
        raise InputError(f"where must be a mapping such as {{'year': 2020}}; found {where!r}")
    for name, wanted in where.items():
        for operator, value in (wanted if isinstance(wanted, Mapping) else {"==": wanted}).items():
            parts.append(_condition(operator, value))
            values += [_path(name), *([] if value is None else [value])]
    return " AND ".join(filter(None, parts)), tuple(values)


def _any_of(column: str, patterns: Sequence[str]) -> str:
    return f"({' OR '.join([f'{column} GLOB ?'] * len(patterns))})" if patterns else ""


def _globs(path: str) -> tuple[str, str]:
    """What a file's whole path must match: the pattern itself, or a folder of that name above the file."""
    pattern = path.replace("\\", "/").removeprefix("./").rstrip("/")
    if not pattern.startswith(("/", "*/")) and pattern[1:2] != ":":
        pattern = f"*/{pattern}"
    return pattern, f"{pattern}/*"


def _condition(operator: str, value: object) -> str:
    if operator not in _OPERATORS:
        raise InputError(f"where knows {', '.join(_OPERATORS)}; found {operator!r}")
    if value is not None and not isinstance(value, (str, int, float)):
        raise InputError(f"where compares with a text or a number; found {value!r}")
    sign = "=" if operator in ("==", "!=") else operator
    if value is None:
        test = "type = 'null'"
    elif isinstance(value, str):
        test = f"type = 'text' AND atom {sign} ?"
    else:
        test = f"({_IS_NUMBER}) AND CAST(atom AS REAL) {sign} ?"
    there = f"EXISTS (SELECT 1 FROM json_each(document.metadata, ?) WHERE {test})"
    return f"NOT {there}" if operator == "!=" else there


def _path(name: object) -> str:
    """Where SQLite finds a field of the metadata."""
    text = str(name)
    if '"' in text:
        raise InputError(f"where cannot look for a field with a quotation mark: {text!r}")
    return f'$."{text}"'
