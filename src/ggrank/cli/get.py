"""``ggrank get``: an indexed document, or some of its lines."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from ggrank.cli.console import count, echo
from ggrank.cli.indexes import found_index_option
from ggrank.errors import InputError

if TYPE_CHECKING:
    from ggrank import Index

_PLACE = re.compile(r"(.+?):(\d+)(?::(\d+))?")
DEFAULT_COUNT = 40


@click.command(short_help="Read an indexed document.")
@click.argument("place", metavar="PATH[:LINE[:COUNT]]")
@found_index_option
def get(place: str, folder: Path) -> None:
    """Print an indexed document, or COUNT lines of it (40) from LINE on; of PDF and office files their text.

    \b
    ggrank get notes/travel.md
    ggrank get notes/travel.md:12:5
    """
    from ggrank import Index

    with Index.open(folder) as index:
        text, rest = _text(index, place), None
        if text is None and (rest := _PLACE.fullmatch(place)):
            text = _text(index, rest[1])
        if text is None:
            _refuse(index, place)
    lines = text.splitlines()
    if rest:
        first = max(int(rest[2]), 1) - 1
        if first >= len(lines):
            raise InputError(f"{rest[1]} has {count(len(lines), 'line')}, and no line {rest[2]}")
        lines = lines[first : first + int(rest[3] or DEFAULT_COUNT)]
    for line in lines:
        echo(line)


def _refuse(index: Index, place: str) -> NoReturn:
    """Raises what the index says of the path, or that it does not know it."""
    try:
        index.get(str(Path(place).resolve()))
    except InputError as error:
        if "is a table" in str(error):
            raise
    raise InputError(f"{place} is not in the index; `ggrank search` shows what is")


def _text(index: Index, name: str) -> str | None:
    for id in (str(Path(name).resolve()), name):
        with suppress(InputError):
            return index.get(id).text
    return None
