"""A report as files: JSON, Markdown and the plot, each written whole or not at all.

Knows paths; not what a report holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ggrank.errors import InputError
from ggrank.evaluation.plot import check_plot, draw
from ggrank.evaluation.report import Report


@dataclass(frozen=True)
class Outputs:
    """Where to save a report; None leaves a form out. The plot's suffix says which format."""

    json: Path | None = None
    markdown: Path | None = None
    plot: Path | None = None

    def check(self) -> None:
        """Before minutes of work: can these files be written?

        Raises:
            InputError: a folder is missing, a path is no file, two are the same, or there is no matplotlib.
        """
        paths = [path for path in (self.json, self.markdown, self.plot) if path]
        if len({path.resolve() for path in paths}) < len(paths):
            raise InputError(f"Several outputs have the same file name: {', '.join(map(str, paths))}")
        for path in paths:
            _check_path(path)
        if self.plot:
            check_plot(self.plot)

    def save(self, report: Report) -> None:
        """Writes them; files that are there are replaced.

        Raises:
            InputError: one cannot be written.
        """
        if self.json:
            text = json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n"
            write_whole(self.json, text.encode("utf-8", "replace"))
        if self.markdown:
            write_whole(self.markdown, report.to_markdown().encode("utf-8", "replace"))
        if self.plot:
            write_whole(self.plot, draw(report, self.plot.suffix.lower().removeprefix(".")))


def _check_path(path: Path) -> None:
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path}: the folder {path.resolve().parent} does not exist; make it first")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is not a file; name one to write")


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with _whole(path.resolve()) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write beside ``path``, which it replaces when all went well."""
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
