"""The generations of an index: the one that counts, the one that is written, who may write, and their model.

current            the number of the generation that counts; replaced in one step
1/index.sqlite     its tables, see `ggrank.search.store`
1/vectors-0.int8   its vectors
writer.lock        locked by the one process that writes, as long as it lives
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ggrank.errors import InputError, SearchIndexError
from ggrank.llama import Llama
from ggrank.rows.writing import locked, written
from ggrank.search.models import Embedder, check_embedder, load_embedder
from ggrank.search.settings import IndexSettings, Wanted, check_same, command, indexes_folder, settings_for
from ggrank.search.store import DATABASE, DamagedError, StaleError, Store, damaged, translate_errors

_TRIES = 5
"""Of a search whose files are replaced meanwhile, once by each rebuild or compaction."""

T = TypeVar("T")


@dataclass(frozen=True)
class Remembered:
    """What an index says of itself; nothing where there is none, or one that cannot be read."""

    settings: IndexSettings | None = None
    roots: tuple[str, ...] = ()
    files: frozenset[str] = frozenset()


class Generations:
    """An index's stores, of which one counts; an index in memory, without a folder, has one only.

    The embedder is None for the index's own; with ``rebuild`` the next `writing` makes a new store.
    """

    def __init__(
        self, folder: Path | None, embedder: Embedder | None, wanted: Wanted, *, rebuild: bool
    ) -> None:
        self.folder = folder
        self.rebuild = rebuild and folder is not None
        self._embedder = None if embedder is None else check_embedder(embedder)
        self._own: Llama | None = None
        self._own_settings: IndexSettings | None = None
        self._wanted = wanted
        self._lock = threading.RLock()
        self._one_writer = threading.Lock()  # in memory
        self._opened: Store | None = None
        self._number: int | None = None

    # -- reading

    def is_made(self) -> bool:
        """Whether there is an index. Raises SearchIndexError where there is something else under its name."""
        return self.folder is None or current(self.folder) is not None

    def check(self) -> None:
        """Raises what `store` raises where there is an index, and a model for it was given."""
        if self.is_made() and self._embedder is not None and not self.rebuild:
            self.store()

    def store(self) -> Store:
        """The store that counts now. Raises SearchIndexError where it cannot be used with this model."""
        with self._lock:
            if self.folder is None:
                if self._opened is None:
                    settings = settings_for(self.model(None), self._wanted)
                    self._opened = Store(Path(":memory:"), None, make=settings)
                return self._opened
            if self._opened is None or current(self.folder) != self._number:
                self._take(*_open_current(self.folder, self._check))
            return self._opened  # type: ignore[return-value]  # taken in the line above

    def read(self, function: Callable[[Store], T]) -> T:
        """What a function finds in the store that counts; again where its files were replaced meanwhile."""
        for _ in range(_TRIES - 1):
            store = self.store()
            try:
                return function(store)
            except SearchIndexError as error:
                with self._lock:
                    if not isinstance(error, StaleError) and self._counts(store):
                        raise
                    if self._opened is store:
                        self._opened = None
                store.close()
        return function(self.store())

    def _counts(self, store: Store) -> bool:
        return self._opened is store and (self.folder is None or current(self.folder) == self._number)

    def model(self, made: IndexSettings | None) -> Embedder:
        """The embedder that was given, or the index's own, loaded now; the default one of a new index."""
        if self._embedder is not None:
            return self._embedder
        with self._lock:
            if self._own is None or (self._own_settings and made and self._own_settings != made):
                self._close_model()
                self._own = load_embedder(made, self.folder)
            self._own_settings = made
            return self._own

    def remembered(self) -> Remembered:
        """Nothing of an index that is damaged and to be made anew."""
        if not self.is_made():
            return Remembered()
        try:
            with self._tables() as store:
                files = frozenset(file.path for file in store.files())
                return Remembered(store.settings, tuple(store.roots()), files)
        except DamagedError:  # not one that cannot be read just now: what was added to it would be lost
            if not self.rebuild:
                raise
            return Remembered()

    @contextmanager
    def _tables(self) -> Iterator[Store]:
        """The store that counts, for its tables alone: its vectors may be missing, or another model's."""
        if self.folder is None:
            yield self.store()
            return
        store, _ = _open_current(self.folder)
        try:
            yield store
        finally:
            store.close()

    # -- writing

    @contextmanager
    def tables(self) -> Iterator[Store]:
        """The store that counts, to take something out of it; no one else can write meanwhile."""
        if self.folder is not None and current(self.folder) is None:
            raise _no_index(self.folder)  # before the lock makes a folder
        with self._locked(), self._tables() as store:
            yield store

    @contextmanager
    def writing(self, *, anew: bool = False) -> Iterator[tuple[Store, Store | None]]:
        """The store to write to, made where there is none, and the one that a new one is made in place of.

        A new one counts from the end of the ``with`` block on; the very first one counts at once, so that
        what is committed of it can be searched.
        """
        self._settings_of_a_new_one(anew)  # an error comes before anything is made
        with self._locked():
            # Only what is read under the lock is true: another process may just have made the index.
            settings = self._settings_of_a_new_one(anew)
            if settings is not None and self.folder is not None:
                yield from self._new_generation(self.folder, settings)
                return
            store = self.store()
            if self.folder is not None:
                _remove_other_generations(self.folder, self._number)
            if isinstance(self._embedder, Llama):
                store.set_model(self._embedder.model_path.absolute())
            yield store, None

    def _settings_of_a_new_one(self, anew: bool) -> IndexSettings | None:
        """None where the one that is there is written to."""
        made = self.remembered().settings
        if made is not None and not anew:
            return None
        return settings_for(self.model(made), self._wanted, made)

    def _new_generation(self, folder: Path, settings: IndexSettings) -> Iterator[tuple[Store, Store | None]]:
        before = current(folder)
        number = (before or 0) + 1
        _remove_other_generations(folder, before, number)
        store = _unfinished(folder, number, settings)
        if before is None:
            _switch(folder, number)
            self._take(store, number)
            yield store, None
            return
        old = _readable(folder / str(before))
        try:
            yield store, old
        except BaseException:
            store.close()
            raise
        finally:
            if old is not None:
                old.close()
        _switch(folder, number)
        self.rebuild = False
        self._take(store, number)
        _remove_other_generations(folder, number)

    def _locked(self) -> AbstractContextManager[object]:
        return self._one_writer if self.folder is None else _writer_lock(self.folder)

    # -- opening and closing

    def _check(self, store: Store) -> None:
        if self._embedder is not None:
            check_same(store.settings, self._embedder, self._wanted, folder=store.folder)
        store.check_whole()

    def _take(self, store: Store, number: int) -> None:
        with self._lock:
            if self._opened is not None and self._opened is not store:
                self._opened.close()
            self._opened, self._number = store, number

    def close(self) -> None:
        """Lets go of the files, and of the model that is its own."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None
            self._close_model()

    def _close_model(self) -> None:
        if self._own is not None:
            self._own.close()
            self._own = None


def settings_of(folder: Path) -> IndexSettings | None:
    """What the index in a folder was made with; None where there is none, or one that cannot be read."""
    try:
        store, _ = _open_current(folder)
    except SearchIndexError:
        return None
    store.close()
    return store.settings


def current(folder: Path) -> int | None:
    """The number of the generation that counts; None where there is no index."""
    path = folder / "current"
    try:
        return int(path.read_text("ascii"))
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        message = f"{folder} is a file, and an index is a folder: choose another name"
        raise SearchIndexError(message) from error
    except ValueError as error:
        raise SearchIndexError(
            f"{path} does not belong to an index of ggrank, or is destroyed: choose another folder, or move "
            "it away"
        ) from error
    except OSError as error:
        raise SearchIndexError(f"{path}: {error.strerror}") from error


def _open_current(folder: Path, check: Callable[[Store], object] = lambda store: None) -> tuple[Store, int]:
    """The store that counts, checked, and its number."""
    number = current(folder)
    if number is None:
        raise _no_index(folder)
    try:
        store = Store(folder, folder / str(number))
        try:
            check(store)
            with suppress(SearchIndexError):  # who may not write sees the paths as they were
                store.follow_move()
        except BaseException:
            store.close()
            raise
    except SearchIndexError as error:
        if current(folder) != number:  # a rebuild removed it meanwhile
            return _open_current(folder, check)
        if isinstance(error, StaleError) and not (folder / str(number) / DATABASE).exists():
            raise damaged(folder, error) from error
        raise
    return store, number


def _no_index(folder: Path) -> SearchIndexError:
    names = sorted(one.parent.name for one in indexes_folder().glob("*/current"))
    others = f"; or name one of yours with --name: {', '.join(names)}" if names else ""
    return SearchIndexError(f"{folder}: there is no index; make one with: {command(folder, 'PATH')}{others}")


def _readable(generation: Path) -> Store | None:
    try:
        return Store(generation.parent, generation)
    except (DamagedError, StaleError):
        return None


def _unfinished(folder: Path, number: int, settings: IndexSettings) -> Store:
    """A new store, or the one that an earlier attempt began with the same settings."""
    path = folder / str(number)
    if path.exists():
        if (store := _readable(path)) is not None:
            try:
                if store.settings == settings:
                    store.check_whole()
                    return store
            except DamagedError:
                pass
            store.close()
        _remove_other_generations(folder, number - 1)
    return Store(folder, path, make=settings)


def _switch(folder: Path, number: int) -> None:
    """Makes a generation the one that counts, in one step; readers follow at their next search."""
    with written(folder / "current") as unfinished:
        unfinished.write_text(str(number), "ascii")


def _remove_other_generations(folder: Path, *keep: int | None) -> None:
    """Removes generations that no longer count, or never did. A reader's open files stay readable."""
    for path in folder.iterdir():
        if path.name.isdigit() and int(path.name) not in keep:
            shutil.rmtree(path, ignore_errors=True)  # on Windows a reader can keep it until the next time


@contextmanager
def _writer_lock(folder: Path) -> Iterator[None]:
    """Makes the folder where there is none, and keeps others from writing; it dies with its process."""
    with translate_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / ".gitignore").exists():
            (folder / ".gitignore").write_text("*\n", "utf-8")
    taken = f"{folder}: the index is being updated by another process (or thread); wait until it is done"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / "writer.lock", taken=taken))
        except InputError as error:
            raise SearchIndexError(str(error)) from error
        yield
