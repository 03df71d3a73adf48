"""``ggrank get``: an indexed document, or some of its lines."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click

from ggrank.cli.console import count, echo, visible
from ggrank.cli.indexes import found_index_option
from ggrank.errors import InputError

_COUNTED = re.compile(r"(.+:\d+):(\d+)")
DEFAULT_COUNT = 40


@click.command(short_help="Read an indexed document.")
@click.argument("place", metavar="PATH[:LINE[:COUNT]]")
@found_index_option
def get(place: str, folder: Path) -> None:
    """Print an indexed document, or COUNT lines of it (40) from LINE on; of PDF and office files their text.

    What a search prints as the place of a hit can be given, too.

    \b
    ggrank get notes/travel.md
    ggrank get notes/travel.md:12:5
    """
    from ggrank import Index
    from ggrank.search.lookup import lines_of

    with Index.open(folder) as index:
        counted = None if place in index else _COUNTED.fullmatch(place)
        document, first = index.find(counted[1] if counted else place)
    lines = lines_of(document.text)
    if first is not None:
        if first > len(lines):
            raise InputError(f"the document has {count(len(lines), 'line')}, and no line {first}")
        start = max(first, 1) - 1
        lines = lines[start : start + int(counted[2] if counted else DEFAULT_COUNT)]
    for line in (line.removesuffix("\n") for line in lines):
        echo(visible(line) if sys.stdout.isatty() else line)
