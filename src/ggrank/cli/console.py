"""What the commands print: tables fitted to the terminal, JSON lines for pipes, progress bars on stderr.

In a pipe every row of a table is one whole line, so that `grep` finds it. rich is imported when it is needed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import Console
    from rich.progress_bar import ProgressBar
    from rich.text import Text

    Cell = str | ProgressBar | Text

_MOST_WIDTH = 160
_MOST_CHARACTERS = 4000
_NO_LIMIT = 10_000
_JOINERS = "\u200c\u200d"
"""Invisible, and yet part of a text: of Persian and Indic words, and of emoji made of several."""

_STEERING = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that JSON leaves as they are and a terminal obeys."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        title: its header.
        align: "left", or "right" for numbers.
        stretch: cells are cut where the terminal is too narrow.
        wrap: cells go on in the next line where the terminal is too narrow.
        least: its width is not below this, so that several tables can be aligned.
    """

    title: str
    align: Literal["left", "right"] = "left"
    stretch: bool = False
    wrap: bool = False
    least: int = 0


def wants_table(as_table: bool | None) -> bool:
    """``--table`` or ``--json`` where one was given; else a table on a terminal, JSON lines in a pipe."""
    return sys.stdout.isatty() if as_table is None else as_table


def terminal_width() -> int:
    """Columns of the terminal, at most 160; practically no limit where stdout is no terminal."""
    if not sys.stdout.isatty():
        return _NO_LIMIT
    return max(40, min(shutil.get_terminal_size((80, 24)).columns, _MOST_WIDTH))


def echo(line: str = "", **style: Any) -> None:
    """One line to stdout, styled on a terminal unless NO_COLOR is set (https://no-color.org)."""
    click.echo(click.style(line, **style) if style and not os.environ.get("NO_COLOR") else line)


def echo_json(record: Mapping[str, Any]) -> None:
    """One JSON line to stdout, in UTF-8 whatever the console's encoding is."""
    line = json.dumps(record, ensure_ascii=False)
    line = _STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
    try:
        click.echo(line.encode("utf-8"))
    except UnicodeEncodeError:  # a lone surrogate: only an escape can carry it
        click.echo(json.dumps(record))


def echo_table(columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    """Rows under a header, no line wider than the terminal; control characters are removed from texts."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.show_header = any(column.title for column in columns)
    for column in columns:
        # rich narrows the columns that may wrap; in a cell that is marked otherwise it cuts the text.
        table.add_column(
            Text(column.title, overflow="ellipsis", no_wrap=True),
            justify=column.align,
            min_width=column.least or None,
            no_wrap=not (column.stretch or column.wrap),
        )
    for row in rows:
        cells = (
            Text(one_line(cell), overflow="fold" if column.wrap else "ellipsis", no_wrap=not column.wrap)
            if isinstance(cell, str)
            else cell
            for column, cell in zip(columns, row, strict=True)
        )
        table.add_row(*cells)
    console = _console(sys.stdout, width=terminal_width())
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        echo(line.rstrip())


def echo_texts(lines: Iterable[Text]) -> None:
    """Lines that fit the terminal, with their colours and links where it can show them."""
    console = _console(sys.stdout, width=_NO_LIMIT)
    with console.capture() as captured:
        for line in lines:
            console.print(line, soft_wrap=True)
    for text in captured.get().splitlines():
        echo(text)


def colored_state(state: str) -> Text:
    """A cell of a table: "ok" in green, "fail" in red, anything else in yellow."""
    from rich.text import Text

    return Text(state, style={"ok": "green", "fail": "red"}.get(state, "yellow"))


def bar(fraction: float, *, width: int) -> ProgressBar:
    """A cell of a table: a bar for a value from 0 to 1."""
    from rich.progress_bar import ProgressBar

    return ProgressBar(
        total=1.0, completed=fraction, width=width, complete_style="cyan", finished_style="cyan"
    )


def _console(file: TextIO, *, width: int | None = None) -> Console:
    from rich.console import Console

    is_terminal = file.isatty()
    colors: Literal["auto"] | None = "auto" if is_terminal and not os.environ.get("NO_COLOR") else None
    return Console(file=file, force_terminal=is_terminal, color_system=colors, width=width, highlight=False)


def one_line(text: str) -> str:
    """Text as one line that cannot steer a terminal: white space joined, control characters removed."""
    visible = text[:_MOST_CHARACTERS]
    if not visible.isprintable():
        visible = "".join(c for c in visible if c.isprintable() or c.isspace() or c in _JOINERS)
    return " ".join(visible.split()) + ("…" if len(text) > _MOST_CHARACTERS else "")


def visible(text: str) -> str:
    """Text that cannot steer a terminal: its lines and spaces are kept, control characters removed."""
    text = text.replace("\t", "    ")
    return "".join(c for c in text if c.isprintable() or c in _JOINERS or c in "\n\u00a0\u3000")


def count(n: int, one: str, several: str = "") -> str:
    """A number and its noun.

    Example:
        >>> count(1, "file"), count(2_000, "file"), count(2, "query", "queries")
        ('1 file', '2,000 files', '2 queries')
    """
    return f"{n:,} {one if n == 1 else several or one + 's'}"


def shorten(text: str, width: int) -> str:
    """Text cut to ``width`` columns of a terminal, an ellipsis at the end where something is missing.

    Example:
        >>> shorten("a long sentence", 9), shorten("東京タワー", 7)
        ('a long s…', '東京タ…')
    """
    from rich.text import Text

    shortened = Text(text)
    shortened.truncate(width, overflow="ellipsis")
    return shortened.plain


def printable(text: str, fallback: str) -> str:
    """``text``, or ``fallback`` where stdout's encoding lacks its characters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return fallback
    return text


def echo_facts(*facts: str) -> None:
    """Short facts, ``a · b · c``, on as many lines as they need; empty ones are left out."""
    from rich.cells import cell_len

    separator = printable(" · ", " | ")
    lines: list[str] = []
    for fact in map(one_line, filter(None, facts)):
        longer = f"{lines[-1]}{separator}{fact}" if lines else fact
        if lines and cell_len(longer) <= terminal_width():
            lines[-1] = longer
        else:
            lines.append(fact)
    for line in lines:
        echo(line, dim=True)


@contextmanager
def progress(n: int, *, label: str, at_least: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with how many more of ``n`` are done; no bar for ``at_least`` or fewer."""
    n_done = 0

    def advance(n_more: int) -> None:
        nonlocal n_done
        n_done += n_more
        show(n_done, n, f"{n_done:,}/{n:,}")

    with progress_bar(label, hidden=n <= at_least) as show:
        yield advance


@contextmanager
def progress_bar(label: str, *, hidden: bool = False) -> Iterator[Callable[[int, int, str], None]]:
    """Yields a function to call with what is done, the total, and a note; a bar on stderr, if a terminal."""
    if hidden or not sys.stderr.isatty():
        yield lambda done, total, note: None
        return
    from rich import progress as parts

    text = parts.TextColumn("{task.description}", markup=False)
    note_text = parts.TextColumn("{task.fields[note]}", markup=False)
    columns = (text, parts.BarColumn(), parts.TaskProgressColumn(), parts.TimeRemainingColumn(), note_text)
    console = _console(sys.stderr)
    # Else rich would send to stderr what is written to stdout meanwhile, and a pipe would lose it.
    with parts.Progress(*columns, console=console, transient=True, redirect_stdout=False) as shown:
        task = shown.add_task(label, total=None, note="")
        yield lambda done, total, note: shown.update(task, completed=done, total=total, note=note)
