"""The paths that an index is of: what it remembers of them, whether they are there, how one is forgotten.

Knows paths and the index's tables; reads no file and makes nothing. It needs no vectors and no model, so that
it works on an index that has lost them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ggrank.errors import InputError, InputTypeError, SearchIndexError
from ggrank.search.files import is_below
from ggrank.search.folder import exists, writer_lock
from ggrank.search.settings import IndexSettings, command
from ggrank.search.store import Store


@dataclass(frozen=True)
class Remembered:
    """What an index says of itself; nothing where there is none, or one that cannot be read.

    Attributes:
        settings: that it was made with.
        roots: the paths that were ever given.
        files: of the paths that an update goes over, those that are its files, there or not.
    """

    settings: IndexSettings | None = None
    roots: tuple[str, ...] = ()
    files: frozenset[str] = frozenset()


def absolute(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Absolute paths. Raises InputTypeError where it is one path instead of a list."""
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise InputTypeError("paths must be a list, found one path: put it in a list")
    return [os.path.abspath(path) for path in paths]  # noqa: PTH100  (links stay as they are named)


def remembered(folder: Path, given: list[str], *, rebuild: bool) -> Remembered:
    """What the index in a folder says of itself and of the paths that are given.

    Raises:
        SearchIndexError: it cannot be read, and is not to be made anew.
    """
    if not exists(folder):
        return Remembered()
    try:
        with closing(Store(folder)) as store:
            roots = store.roots()
            # A new index knows no files: a path that is given to it must be there.
            paths = roots if not given else [] if rebuild else given
            files = frozenset(path for path in paths if store.has_file(path))
            return Remembered(store.settings, tuple(roots), files)
    except SearchIndexError:
        if not rebuild:
            raise
        return Remembered()


def check_paths(paths: Iterable[str], before: Remembered, *, folder: Path) -> None:
    """Raises InputError where there is no path, or one is neither there nor a file of the index."""
    if not paths:
        reason = "no path is given, and none was before"
        if before.settings is None and exists(folder):
            again = command(folder, "PATH... --rebuild")
            reason = f"the paths of the index that is there cannot be read; name them: {again}"
        raise InputError(f"{folder}: nothing to index: {reason}")
    for path in paths:
        if os.path.lexists(path) or path in before.files:
            continue
        hint = ""
        if path in before.roots:
            way_out = command(folder, f"--forget {shlex.quote(path)}")
            hint = f"; if it is gone for good, take it out of the index with: {way_out}"
        raise InputError(f"{path}: there is no such file or folder{hint}")


def forget(folder: Path, paths: Iterable[str | os.PathLike[str]]) -> int:
    """What `Index.forget` does, without a model."""
    gone = absolute(paths)
    with closing(Store(folder)) as store, writer_lock(folder), store.transaction():
        files, roots = store.files(), store.roots()
        for path in gone:
            if not any(is_below(one, path) for one in [*roots, *(file.path for file in files)]):
                raise InputError(f"{path} is not in the index, which is of: {', '.join(roots) or 'nothing'}")
        files = [file for file in files if any(is_below(file.path, path) for path in gone)]
        for file in files:
            store.remove_file(file)
        store.remove_roots(root for root in roots if any(is_below(root, path) for path in gone))
    return len(files)
