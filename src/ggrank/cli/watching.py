"""``ggrank index --watch``: an index that follows what changes on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggrank.cli.console import count, one_line
from ggrank.errors import GgrankError, InputError

if TYPE_CHECKING:
    from ggrank.search.index import Changes, Index
    from ggrank.search.update import Skipped

TICK = 1000
"""Milliseconds after which single files are looked at, and an update that failed is tried again."""

QUIET, LONGEST = 300, 3000
"""An update waits until nothing changed for so many milliseconds, but not longer than that: editors write a
file in several steps."""


def check_watching() -> None:
    """Raises InputError where watchfiles is not installed."""
    try:
        import watchfiles  # noqa: F401  (whether it is there)
    except ImportError as error:
        raise InputError("--watch needs an extra: pip install 'ggrank[watch]'") from error


def follow(opened: Index, folder: Path, *, known: set[Skipped], prune: bool) -> None:
    """Updates an index until Ctrl-C; a line to stderr for each update that did something.

    Args:
        folder: of the index itself.
        known: files that could not be read, which were reported already.
    """
    from watchfiles import Change, watch

    roots = [Path(root) for root in opened.roots]
    folders = [root for root in roots if root.is_dir()]
    # Files are looked at by their facts: one that is replaced is another file to the system.
    single = [root for root in roots if not root.is_dir()]
    own = folder.resolve()

    def is_document(_: Change, path: str) -> bool:
        return not Path(path).resolve().is_relative_to(own)

    click.echo(f"Watching {count(len(roots), 'path')}; Ctrl-C ends it.", err=True)
    due, problem, before = True, "", _facts(single)
    for events in watch(
        *(folders or [own]),
        watch_filter=is_document,
        step=QUIET,
        debounce=LONGEST,
        rust_timeout=TICK,
        yield_on_timeout=True,
    ):
        after = _facts(single)
        due, before = due or bool(events) or after != before, after
        if not due:
            continue
        try:
            changes = opened.update(prune=prune)
        except GgrankError as error:  # such as a file that is being replaced, or another process that writes
            if str(error) != problem:
                click.echo(f"Warning: {one_line(str(error))}", err=True)
            problem = str(error)
            continue
        due, problem = False, ""
        lines = [
            summary(changes),
            *(f"{one.path}: {one.reason}" for one in changes.skipped if one not in known),
        ]
        known = set(changes.skipped)
        if line := "; ".join(filter(None, lines)):
            click.echo(f"{datetime.now():%H:%M:%S} {one_line(line)}", err=True)


def _facts(paths: Sequence[Path]) -> list[tuple[int, int]]:
    facts = [path.stat() if path.exists() else None for path in paths]
    return [(one.st_mtime_ns, one.st_size) if one else (0, 0) for one in facts]


def summary(changes: Changes, *, whole: bool = False) -> str:
    """Such as "2 added, 1 changed"; "" where nothing was done. With ``whole`` also what stayed as it was."""
    counts = {"added": changes.added, "changed": changes.changed, "removed": changes.removed}
    if whole:
        n_skipped = sum(not one.n_lines for one in changes.skipped)
        counts |= {"unchanged": changes.unchanged, "skipped": n_skipped}
    return ", ".join(f"{n:,} {word}" for word, n in counts.items() if n)
