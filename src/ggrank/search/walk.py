"""Which files of a folder are documents, and why the others are skipped."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from ggrank.rows.reading import format_of
from ggrank.search.readers import is_document

MOST_BYTES = 10_000_000
"""Of a file; larger ones are skipped, except files of rows, which are read row by row."""

_MADE_BY_PROGRAMS = """
node_modules/ __pycache__/ venv/ site-packages/ *.egg-info/ *.min.js *.min.css *.lock *-lock.json *-lock.yaml
"""
_IGNORE_FILES = (".gitignore", ".ignore")

Rule = tuple[str, GitIgnoreSpec, str]
"""A folder, patterns relative to it, and why a file that they match is skipped."""


@dataclass(frozen=True)
class Walked:
    """What is in a folder.

    Attributes:
        files: path -> its facts, in order.
        skipped: path of a file or folder -> why: "ignored", "excluded", "not included", "unknown format" or
            "too large".
        unreadable: path -> why it cannot be looked at, so that it is not known what is there.
    """

    files: dict[str, os.stat_result] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


def walk(
    folder: str, *, include: Sequence[str] = (), exclude: Sequence[str] = (), max_file_size: int = MOST_BYTES
) -> Walked:
    """The documents in a folder and below it.

    Hidden files are passed over, and so is what programs make, such as ``node_modules`` and lock files. Links
    to folders are not followed. ``.gitignore`` and ``.ignore`` mean what they mean to Git, also those of the
    folders above, up to the repository's root.

    Args:
        folder: an absolute path.
        include: patterns as in ``.gitignore``; with any, only these files are read, whatever their format.
        exclude: patterns of files and folders to skip.
        max_file_size: bytes.
    """
    walked = Walked()
    made = GitIgnoreSpec.from_lines(_MADE_BY_PROGRAMS.split())
    rules: list[Rule] = [(folder, made, ""), *_rules_above(folder)]
    excluded = GitIgnoreSpec.from_lines(exclude)
    included = GitIgnoreSpec.from_lines(include) if include else None
    for entry in _entries(folder, rules, (folder, excluded, "excluded"), walked):
        path = entry.path
        try:
            path.encode("utf-8")
            facts = entry.stat()
        except UnicodeEncodeError:
            walked.unreadable[ascii(path)] = "its name is not UTF-8"
        except OSError as error:
            walked.unreadable[path] = error.strerror or str(error)
        else:
            if not stat.S_ISREG(facts.st_mode):
                walked.unreadable[path] = "not a regular file"
            elif included and not included.match_file(_relative(path, folder)):
                walked.skipped[path] = "not included"
            elif not included and not is_document(Path(path)):
                walked.skipped[path] = "unknown format"
            elif facts.st_size > max_file_size and format_of(path) is None:
                walked.skipped[path] = "too large"
            else:
                walked.files[path] = facts
    return walked


def _entries(
    folder: str, rules: Sequence[Rule], excluded: Rule, walked: Walked
) -> Iterator[os.DirEntry[str]]:
    """Files that no rule skips; of several rules the deepest one that speaks of a file decides."""
    waiting = [(folder, rules)]
    while waiting:
        folder, rules = waiting.pop()
        rules = [*rules, *_rules_of(folder)]
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            walked.unreadable[folder] = error.strerror or str(error)
            continue
        folders = []
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            reason = _reason(entry.path + "/" * is_folder, [*rules, excluded])
            if entry.name.startswith(".") or reason == "":
                continue
            if reason:
                walked.skipped[entry.path] = reason
            elif is_folder:
                folders.append((entry.path, rules))
            elif not entry.is_dir():
                yield entry
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
