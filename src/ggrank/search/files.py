"""Which files lie below the paths that are to be indexed."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ggrank.errors import InputError, InputTypeError
from ggrank.search.readers import is_document
from ggrank.search.settings import DEFAULT_FOLDER, command


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
        unknown: files and folders that could not be looked at, so that no one knows what is there.
        unsupported: files in folders that no reader is for, by suffix.
    """

    files: dict[str, os.stat_result] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unknown: list[Skipped] = field(default_factory=list)
    unsupported: dict[str, list[str]] = field(default_factory=dict)

    def is_gone(self, path: str) -> bool:
        """Whether a file that was there should be in ``files``, and is not."""
        if path in self.files or any(is_below(path, skipped.path) for skipped in self.unknown):
            return False
        return path in self.gone or any(is_below(path, folder) for folder in self.folders)


def absolute(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Absolute paths. Raises InputTypeError where it is one path instead of a list."""
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise InputTypeError("paths must be a list, found one path: put it in a list")
    return [os.path.abspath(path) for path in paths]  # noqa: PTH100  (links stay as they are named)


def check_paths(
    paths: Iterable[str], roots: Collection[str], files: Collection[str], *, folder: Path | None
) -> None:
    """Raises InputError where there is no path, or one is neither there nor a file of the index.

    Args:
        roots: paths that the index was given before.
        files: that are in the index.
        folder: of the index, for the command that helps; None in memory.
    """
    where = folder or Path(DEFAULT_FOLDER)
    if not paths:
        hint = "" if folder is None else f"; name them: {command(where, 'PATH...')}"
        raise InputError(f"{where}: nothing to index: no path is given, and none is known from before{hint}")
    for path in paths:
        if os.path.lexists(path) or path in files:
            continue
        hint = ""
        if path in roots:
            way_out = command(where, f"--forget {shlex.quote(path)}")
            hint = f"; if it is gone for good, take it out of the index with: {way_out}"
        raise InputError(f"{path}: there is no such file or folder{hint}")


def find_files(roots: Iterable[str]) -> FoundFiles:
    """All files of a known kind below folders, and each file that is named itself, whatever its kind.

    Names that begin with a dot are passed over, and links to folders are not followed.

    Args:
        roots: absolute paths.
    """
    found = FoundFiles()
    named = list(roots)
    for root in named:
        if os.path.isdir(root):  # noqa: PTH112  (a path that is a string here and in the index)
            found.folders.append(root)
            for path in _walk(root, found.unknown):
                suffix = Path(path).suffix.lower()
                if is_document(Path(path)):
                    _look(path, found)
                elif path not in named:
                    found.unsupported.setdefault(suffix, []).append(path)
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
            if not name.startswith("."):
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
