"""Which files below the paths that are to be indexed are documents, and why the others are skipped."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from ggrank.errors import InputError, InputTypeError
from ggrank.rows.reading import format_of
from ggrank.search.readers import is_document
from ggrank.search.settings import DEFAULT_FOLDER, command
from ggrank.text.inputs import check_count

UNKNOWN_FORMAT = "unknown format"

_MADE_BY_PROGRAMS = """
node_modules/ bower_components/ __pycache__/ venv/ site-packages/ *.egg-info/
*.min.js *.min.css *.lock *-lock.json *-lock.yaml
"""
_CACHE_MARK = "CACHEDIR.TAG"
"""Programs put it into their caches (https://bford.info/cachedir/)."""

_IGNORE_FILES = (".gitignore", ".ignore")

Rule = tuple[str, GitIgnoreSpec, str]
"""A folder, patterns relative to it, and why a file that they match is skipped."""


@dataclass(frozen=True)
class FileRules:
    """Which files of a folder are read.

    Attributes:
        include: patterns as in ``.gitignore``; with any, only these files are read, whatever their format.
        exclude: patterns of files and folders to skip.
        max_file_size: bytes; larger files are skipped, except files of rows, which are read row by row.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_file_size: int = 10_000_000

    def changed(
        self, include: Iterable[str] | None, exclude: Iterable[str] | None, max_file_size: int | None
    ) -> FileRules:
        """With what is given in place of what was there. Raises InputError for a pattern that is none."""
        if isinstance(include, str) or isinstance(exclude, str):
            raise InputTypeError("include and exclude must be lists, found one string: put it in a list")
        if max_file_size is not None:
            check_count(max_file_size, "max_file_size")
        found = FileRules(
            self.include if include is None else tuple(filter(None, include)),
            self.exclude if exclude is None else tuple(filter(None, exclude)),
            self.max_file_size if max_file_size is None else max_file_size,
        )
        try:
            GitIgnoreSpec.from_lines([*found.include, *found.exclude])
        except ValueError as error:
            raise InputError(f"not a pattern as .gitignore has them: {error}") from error
        return found


@dataclass(frozen=True)
class FoundFiles:
    """What a look at the disk found.

    Attributes:
        files: absolute path -> its facts, in order.
        folders: those that were looked through.
        gone: those that are not there.
        unreadable: path -> why it cannot be looked at, so that it is not known what is there.
        skipped: path of a file or folder -> why: "ignored", "excluded", "not included", "unknown format" or
            "too large".
    """

    files: dict[str, os.stat_result] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def is_gone(self, path: str) -> bool:
        """Whether a file that was there should be in ``files``, and is not."""
        if path in self.files or any(is_below(path, other) for other in self.unreadable):
            return False
        return path in self.gone or any(is_below(path, folder) for folder in self.folders)

    def unsupported(self) -> dict[str, list[str]]:
        """The skipped paths by suffix where no reader is for them, else by reason."""
        found: dict[str, list[str]] = {}
        for path, reason in self.skipped.items():
            kind = Path(path).suffix.lower() if reason == UNKNOWN_FORMAT else reason
            found.setdefault(kind, []).append(path)
        return found


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


def is_below(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or lies in it.

    Example:
        >>> is_below(os.path.join("a", "b"), "a"), is_below("ab", "a")
        (True, False)
    """
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def find_files(roots: Iterable[str], rules: Mapping[str, FileRules] | None = None) -> FoundFiles:
    """The documents in folders and below them, and each file that is named itself, whatever its kind.

    Hidden files are passed over, and so is what programs make: ``node_modules``, caches, lock files. Links to
    folders are not followed. ``.gitignore`` and ``.ignore`` mean what they mean to Git, also those of the
    folders above, up to the repository's root.

    Args:
        roots: absolute paths.
        rules: of those that are folders.
    """
    found = FoundFiles()
    named = list(roots)
    for root in named:
        if os.path.isdir(root):  # noqa: PTH112  (a path that is a string here and in the index)
            found.folders.append(root)
            _find_below(root, (rules or {}).get(root, FileRules()), found)
        elif os.path.lexists(root):
            if facts := _look(root, found):
                found.files[root] = facts
        else:
            found.gone.append(root)
    for root in named:
        found.skipped.pop(root, None)
    return found


def _find_below(folder: str, rules: FileRules, found: FoundFiles) -> None:
    included = GitIgnoreSpec.from_lines(rules.include) if rules.include else None
    for path in _entries(folder, (folder, GitIgnoreSpec.from_lines(rules.exclude), "excluded"), found):
        if facts := _look(path, found):
            reason = _format_problem(path, folder, included)
            if not reason and facts.st_size > rules.max_file_size and format_of(path) is None:
                reason = "too large"
            if reason:
                found.skipped[path] = reason
            else:
                found.files[path] = facts


def _format_problem(path: str, folder: str, included: GitIgnoreSpec | None) -> str:
    if included:
        return "" if included.match_file(_relative(path, folder)) else "not included"
    return "" if is_document(Path(path)) else UNKNOWN_FORMAT


def _look(path: str, found: FoundFiles) -> os.stat_result | None:
    """A regular file's facts; what is none, or cannot be looked at, is noted as unreadable."""
    try:
        path.encode("utf-8")
        facts = os.stat(path)  # noqa: PTH116
        if stat.S_ISREG(facts.st_mode):
            return facts
        found.unreadable[path] = "not a regular file"
    except UnicodeEncodeError:
        found.unreadable[ascii(path)] = "its name is not UTF-8"
    except OSError as error:
        found.unreadable[path] = error.strerror or str(error)
    return None


def _entries(folder: str, excluded: Rule, found: FoundFiles) -> Iterator[str]:
    """Files that no rule skips; of several rules the deepest one that speaks of a file decides."""
    made = GitIgnoreSpec.from_lines(_MADE_BY_PROGRAMS.split())
    waiting: list[tuple[str, list[Rule]]] = [(folder, [(folder, made, ""), *_rules_above(folder)])]
    while waiting:
        folder, rules = waiting.pop()
        rules = [*rules, *_rules_of(folder)]
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            found.unreadable[folder] = error.strerror or str(error)
            continue
        if any(entry.name == _CACHE_MARK for entry in entries):
            continue
        folders = []
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            reason = _reason(entry.path + "/" * is_folder, [*rules, excluded])
            if entry.name.startswith(".") or reason == "":
                continue
            if reason:
                found.skipped[entry.path] = reason
            elif is_folder:
                folders.append((entry.path, rules))
            elif not entry.is_dir():
                yield entry.path
        waiting += reversed(folders)


def _reason(path: str, rules: Sequence[Rule]) -> str | None:
    """Why a path is skipped; None where it is not."""
    for folder, spec, reason in reversed(rules):
        matches = spec.check_file(_relative(path, folder)).include
        if matches is not None:
            return reason if matches else None
    return None


def _relative(path: str, folder: str) -> str:
    return path[len(folder.rstrip(os.sep)) + 1 :].replace(os.sep, "/")


def _rules_above(folder: str) -> list[Rule]:
    """Those of the folders above, where the folder is in a Git repository."""
    rules: list[Rule] = []
    for above in (Path(folder), *Path(folder).parents):
        if str(above) != folder:
            rules = [*_rules_of(str(above)), *rules]
        if (above / ".git").exists():
            return rules
    return []


def _rules_of(folder: str) -> Iterator[Rule]:
    for name in _IGNORE_FILES:
        with suppress(OSError, ValueError):  # there is none, or Git could not read it either
            lines = Path(folder, name).read_text("utf-8", "replace").splitlines()
            yield folder, GitIgnoreSpec.from_lines(lines), "ignored"
