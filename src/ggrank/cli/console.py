"""What the commands print: tables fitted to the terminal, JSON lines for pipes, progress.

Knows columns, widths and encodings; not what the values mean.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import click

_EIGHTHS = " ▏▎▍▌▋▊▉"
_MOST_WIDTH = 160


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its header.
        align: "left", or "right" for numbers.
        stretch: True for the one column that takes the width that is left; longer cells are cut.
        least: its width is not below this, so that several tables can be aligned.
        color: of its cells on a terminal, a name that `click.style` knows.
    """

    title: str
    align: Literal["left", "right"] = "left"
    stretch: bool = False
    least: int = 0
    color: str | None = None


def wants_table(as_table: bool | None) -> bool:
    """``--table`` or ``--json`` where one was given; else a table on a terminal, JSONL in a pipe."""
    return sys.stdout.isatty() if as_table is None else as_table


def terminal_width() -> int:
    """Columns of the terminal, 80 where there is none; never above what the eye can follow."""
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, _MOST_WIDTH))


def echo(line: str = "", **style: Any) -> None:
    """One line to stdout, styled on a terminal that wants colours."""
    click.echo(styled(line, **style))


def styled(text: str, **style: Any) -> str:
    """Text with colours for a part of a line; as it is where nobody wants them."""
    return click.style(text, **style) if style and _wants_colors() else text


def _wants_colors() -> bool:
    """See https://no-color.org; click itself drops colours where stdout is no terminal."""
    return not os.environ.get("NO_COLOR")


def echo_json(record: Mapping[str, Any]) -> None:
    """One JSON line to stdout, in UTF-8 whatever the console's encoding is."""
    try:
        line = json.dumps(record, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate: only an escape can carry it
        line = json.dumps(record).encode("ascii")
    click.echo(line)


def echo_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, indent: str = "") -> None:
    """Rows under a header, no line wider than the terminal.

    Args:
        columns: at most one of them with ``stretch``.
        rows: a cell for each column; cells may hold any text, also line breaks and control characters.
        indent: before each line.
    """
    cells = [[one_line(cell) for cell in row] for row in rows]
    titles = [column.title for column in columns]
    widths = [
        max(column.least, *(display_width(row[i]) for row in [titles, *cells]))
        for i, column in enumerate(columns)
    ]
    spare = terminal_width() - len(indent) - sum(widths) - 2 * (len(widths) - 1)
    widths = [
        max(8, width + spare) if column.stretch and spare < 0 else width
        for column, width in zip(columns, widths, strict=True)
    ]
    if any(titles):
        echo((indent + _join(columns, titles, widths)).rstrip(), bold=True)
    for row in cells:
        echo((indent + _join(columns, row, widths, colored=True)).rstrip())


def echo_wide_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """As `echo_table`; columns that do not fit go into tables below, each beginning with the first column."""
    cells = [[column.title for column in columns], *rows]
    widths = [max(display_width(row[i]) for row in cells) for i in range(len(columns))]
    groups: list[list[int]] = [[0]]
    for i in range(1, len(columns)):
        if len(groups[-1]) > 1 and sum(widths[j] + 2 for j in groups[-1]) + widths[i] > terminal_width():
            groups.append([0])
        groups[-1].append(i)
    for number, group in enumerate(groups):
        if number:
            echo()
        echo_table([columns[i] for i in group], [[row[i] for i in group] for row in rows])


def echo_wrapped(text: str, *, first: str = "", margin: str = "") -> None:
    """Text on as many lines as it needs: ``first`` before it, all other lines behind a margin."""
    wrap = textwrap.TextWrapper(terminal_width(), initial_indent=first, subsequent_indent=margin)
    for line in wrap.wrap(one_line(text)):
        echo(line)


def _join(
    columns: Sequence[Column], cells: Sequence[str], widths: Sequence[int], *, colored: bool = False
) -> str:
    parts = []
    for column, cell, width in zip(columns, cells, widths, strict=True):
        cell = shorten(cell, width)
        padding = " " * (width - display_width(cell))
        if colored and column.color and cell:
            cell = styled(cell, fg=column.color)
        parts.append(padding + cell if column.align == "right" else cell + padding)
    return "  ".join(parts)


def one_line(text: str) -> str:
    """Text as one line that cannot steer a terminal: white space joined, control characters gone."""
    visible = "".join(c for c in text[:4000] if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join(visible.split())


def count(n: int, one: str, several: str = "") -> str:
    """A number and its noun.

    Example:
        >>> count(1, "file"), count(2_000, "file"), count(2, "query", "queries")
        ('1 file', '2,000 files', '2 queries')
    """
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def display_width(text: str) -> int:
    """Columns that a terminal needs; East Asian wide characters and emoji take two.

    Example:
        >>> display_width("naïve"), display_width("東京")
        (5, 4)
    """
    return sum(map(_columns, text))


def _columns(c: str) -> int:
    if unicodedata.category(c) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1


def shorten(text: str, width: int) -> str:
    """Text cut to ``width`` columns, an ellipsis at the end where something is missing.

    Example:
        >>> shorten("a long sentence", 9), shorten("short", 9)
        ('a long s…', 'short')
    """
    if display_width(text) <= width:
        return text
    ellipsis = "…" if can_print("…") else "..."
    room, end = width - len(ellipsis), 0
    for c in text:
        room -= _columns(c)
        if room < 0:
            break
        end += 1
    return text[:end].rstrip() + ellipsis


def bar(fraction: float, *, width: int = 10) -> str:
    """A bar of ``width`` columns at most, for a value from 0 to 1.

    Example:
        >>> bar(0.5, width=4)
        '██'
    """
    fraction = min(max(fraction, 0.0), 1.0) if math.isfinite(fraction) else 0.0
    if not can_print("█▏"):
        return "#" * round(fraction * width)
    full, eighths = divmod(round(fraction * width * 8), 8)
    return ("█" * full + _EIGHTHS[eighths]).strip()


def can_print(text: str) -> bool:
    """Whether stdout's encoding has these characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def echo_facts(*facts: str) -> None:
    """Short facts, ``a · b · c``, on as many lines as they need; empty ones are left out."""
    separator = " · " if can_print("·") else " | "
    lines: list[str] = []
    for fact in filter(None, facts):
        longer = f"{lines[-1]}{separator}{fact}" if lines else fact
        if lines and display_width(longer) <= terminal_width():
            lines[-1] = longer
        else:
            lines.append(fact)
    for line in lines:
        echo(line, dim=True)


@contextmanager
def progress(n: int, *, label: str, at_least: int = 0) -> Iterator[Callable[[int], None]]:
    """Gives a function that counts what is done, up to ``n``.

    A bar on stderr if that is a terminal and there are more than ``at_least`` to do.
    """
    if n <= at_least or not sys.stderr.isatty():
        yield lambda done: None
        return
    with click.progressbar(length=n, label=label, file=sys.stderr, show_pos=True) as shown:
        yield shown.update
