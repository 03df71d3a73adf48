"""Which files lie below the paths that are to be indexed.

Knows folders and names; reads no file.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ggrank.search.readers import is_document


@dataclass(frozen=True)
class Skipped:
    """A file or folder that was left out, and why; or only so many lines of it, where ``n_lines`` says so."""

    path: str
    reason: str
    n_lines: int = 0


@dataclass(frozen=True)
class FoundFiles:
    """What a look at the disk found.

    Attributes:
        files: absolute path -> its facts, in order.
        folders: those that were looked through.
        gone: those that are not there.
        unknown: files and folders that could not be looked at, so that nobody knows what is there.
    """

    files: dict[str, os.stat_result] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unknown: list[Skipped] = field(default_factory=list)

    def is_gone(self, path: str) -> bool:
        """Whether a file that was there should be in ``files``, and is not."""
        if path in self.files or any(is_below(path, skipped.path) for skipped in self.unknown):
            return False
        return path in self.gone or any(is_below(path, folder) for folder in self.folders)


def find_files(roots: Iterable[str]) -> FoundFiles:
    """All files of a known kind below folders, and each file that is named itself, whatever its kind.

    Names that begin with a dot are passed over, and links to folders are not followed.

    Args:
        roots: absolute paths.
    """
    found = FoundFiles()
    for root in roots:
        if os.path.isdir(root):  # noqa: PTH112  (a path that is a string here and in the index)
            found.folders.append(root)
            for path in _walk(root, found.unknown):
                _look(path, found)
        elif os.path.lexists(root):
            _look(root, found)
        else:
            found.gone.append(root)
    return found


def is_below(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or lies in it.

    Example:
        >>> is_below(os.path.join("a", "b"), "a"), is_below("ab", "a")
        (True, False)
    """
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _walk(folder: str, unknown: list[Skipped]) -> Iterator[str]:
    def note(error: OSError) -> None:
        unknown.append(Skipped(str(error.filename), error.strerror or str(error)))

    for parent, folders, names in os.walk(folder, onerror=note):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and is_document(Path(name)):
                yield os.path.join(parent, name)  # noqa: PTH118  (a million of them)


def _look(path: str, found: FoundFiles) -> None:
    try:
        path.encode("utf-8")
        facts = os.stat(path)  # noqa: PTH116
        if stat.S_ISREG(facts.st_mode):
            found.files[path] = facts
        else:
            found.unknown.append(Skipped(path, "not a regular file"))
    except UnicodeEncodeError:
        found.unknown.append(Skipped(ascii(path), "its name is not UTF-8"))
    except OSError as error:
        found.unknown.append(Skipped(path, error.strerror or str(error)))
