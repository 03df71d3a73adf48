"""Filters as SQL: over metadata, ``{"tags": "staff", "year": {">=": 2020}}``, and over files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from ggrank.errors import InputError, InputTypeError
from ggrank.search.writing import cleaned

if TYPE_CHECKING:
    from ggrank.search.store import Snapshot

_NUMBER = """(type IN ('integer', 'real') OR type = 'text' AND atom GLOB '[-.0-9]*' AND atom GLOB '*[0-9]'
    AND NOT substr(atom, 2) GLOB '*[^.0-9]*' AND NOT atom GLOB '*.*.*')"""
"""Fields of CSV files are texts, numbers too."""

_OPERATORS = ("==", "!=", "<", "<=", ">", ">=")

_MOST_STARS = 5
"""``**`` in a pattern; each doubles the patterns that SQLite is asked for."""

_MOST_FIELDS = 20

_LAST_TIME = 9e18
"""Nanoseconds since 1970 that SQLite can hold, about: the year 2255."""


def conditions(
    where: Mapping[str, Any] | None,
    *,
    paths: Sequence[str] = (),
    suffixes: Sequence[str] = (),
    since: datetime | None = None,
) -> tuple[str, tuple[object, ...]]:
    """A condition of SQL over ``document.metadata`` and ``file``, and its values; "" for no filter.

    A field that is a list meets a condition where one of its items does, and ``!=`` where none is equal.
    Numbers and truth values compare also with those that CSV files hold as texts, and texts with texts.
    """
    if isinstance(paths, str) or isinstance(suffixes, str):
        raise InputTypeError("paths and suffixes must be lists, found one string: put it in a list")
    globs = [glob for path in paths for glob in _globs(cleaned(os.fspath(path)))]
    listed = [one.strip().removeprefix("*") for suffix in suffixes for one in suffix.split(",")]
    endings = [f"*.{cleaned(suffix).lstrip('.').lower()}" for suffix in listed]
    parts = [_any_of("replace(file.path, char(92), '/')", globs), _any_of("lower(file.path)", endings)]
    values: list[object] = [*globs, *endings]
    if since is not None:
        parts.append("file.mtime_ns >= ?")
        values.append(_nanoseconds(since))
    where = {} if where is None else where
    if not isinstance(where, Mapping):
        raise InputError(f"where must be a mapping such as {{'year': 2020}}; found {where!r}")
    for name, wanted in where.items():
        for operator, value in (wanted if isinstance(wanted, Mapping) else {"==": wanted}).items():
            test, compared = _test(operator, value)
            there = f"EXISTS (SELECT 1 FROM json_each(document.metadata, ?) WHERE {test})"
            parts.append(f"NOT {there}" if operator == "!=" else there)
            values += [_field(name), *compared]
    return " AND ".join(filter(None, parts)), tuple(values)


def unmatched(
    snapshot: Snapshot, where: Mapping[str, Any] | None, paths: Sequence[str], suffixes: Sequence[str]
) -> list[str]:
    """Sentences about each field that no document has, and each path and suffix that no file has."""
    names = snapshot.rows(
        "SELECT field.key FROM document, json_each(document.metadata) AS field "
        "GROUP BY 1 ORDER BY count(*) DESC, 1"
    )
    fields = [str(name) for (name,) in names]
    there = f"there are: {', '.join(fields[:_MOST_FIELDS])}" if fields else "no document has metadata"
    unknown = [name for name in where or {} if name not in fields]
    said = [f"no indexed document has the field {name!r} ({there})" for name in unknown]
    tests = [(f"the path {path!r}", conditions(None, paths=[path])) for path in paths]
    tests += [(f"the suffix {suffix!r}", conditions(None, suffixes=[suffix])) for suffix in suffixes]
    for filter_, (condition, values) in tests:
        if not snapshot.value(f"SELECT EXISTS (SELECT 1 FROM file WHERE {condition})", *values):
            said.append(f"no indexed file has {filter_}")
    return said


def _any_of(column: str, patterns: Sequence[str]) -> str:
    return f"({' OR '.join([f'{column} GLOB ?'] * len(patterns))})" if patterns else ""


def _globs(path: str) -> Iterable[str]:
    """What a file's whole path must match: the pattern itself, or a folder of that name above the file.

    A pattern that begins with ``./`` or ``../`` is relative to the current folder, any other stands anywhere.
    SQLite's ``*`` matches slashes too, and ``**/`` matches no folder as well as several.
    """
    pattern = path.replace("\\", "/")
    if pattern.split("/")[0] in (".", ".."):
        pattern = os.path.abspath(pattern).replace("\\", "/")  # noqa: PTH100  (links stay as they are named)
    pattern = pattern.rstrip("/")
    if not pattern.startswith(("/", "*/")) and pattern[1:2] != ":":
        pattern = f"*/{pattern}"
    parts = re.split(r"/(?:\*\*/)+", pattern)
    if len(parts) > _MOST_STARS + 1:
        raise InputError(f"a path may have ** at most {_MOST_STARS} times; found {path!r}")
    found = [parts[0]]
    for part in parts[1:]:
        found = [f"{one}{seam}{part}" for one in found for seam in ("/", "/*/")]
    # A name may have brackets, which mean a choice of characters in a pattern.
    found += [one.replace("[", "[[]") for one in found if "[" in one]
    return [glob for one in found for glob in (one, f"{one}/*")]


def _nanoseconds(since: datetime) -> int:
    if not isinstance(since, datetime):
        raise InputTypeError(f"since must be a datetime, found {type(since).__name__}")
    try:
        seconds = since.timestamp()
    except (OverflowError, ValueError, OSError):  # the first and last days that there are, in local time
        seconds = since.replace(tzinfo=timezone.utc).timestamp()
    return int(min(max(seconds * 1e9, -_LAST_TIME), _LAST_TIME))


def _test(operator: str, value: object) -> tuple[str, list[object]]:
    """What an item of a field must be, and the value that it is compared with."""
    if operator not in _OPERATORS:
        raise InputError(f"where knows {', '.join(_OPERATORS)}; found {operator!r}")
    if value != value or not (value is None or isinstance(value, (str, int, float))):
        raise InputError(f"where compares with a text or a number; found {value!r}")
    sign = "=" if operator in ("==", "!=") else operator
    if value is None or isinstance(value, bool):
        if sign != "=":
            raise InputError(f"where compares {value!r} by == and != alone; found {operator!r}")
        word = "null" if value is None else str(value).lower()
        is_text = "" if value is None else f" OR type = 'text' AND lower(atom) = '{word}'"
        return f"type = '{word}'{is_text}", []
    if isinstance(value, str):
        return f"type = 'text' AND atom {sign} ?", [cleaned(value)]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        value = float(value) if abs(value) < 10**308 else math.inf if value > 0 else -math.inf
    return f"{_NUMBER} AND CAST(atom AS NUMERIC) {sign} ?", [value]


def _field(name: object) -> str:
    """Where SQLite finds a field of the metadata."""
    text = cleaned(str(name))
    if '"' in text:
        raise InputError(f"where cannot look for a field with a quotation mark: {text!r}")
    return f'$."{text}"'
