"""`Generations`: the store of an index that counts, the one that is written to, and the model for both."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ggrank.errors import GgrankError, SearchIndexError
from ggrank.llama import Llama
from ggrank.search import folder as folders
from ggrank.search.models import Embedder, check_embedder, load_embedder
from ggrank.search.settings import IndexSettings, Wanted, check_same, kept, n_ctx_of, settings_for
from ggrank.search.store import Store

_TRIES = 5
"""Of a search whose files are replaced meanwhile, once by each rebuild or compaction."""

T = TypeVar("T")


@dataclass(frozen=True)
class Remembered:
    """What an index says of itself; nothing where there is none, or one that cannot be read.

    Attributes:
        settings: that it was made with.
        roots: the paths that were ever given.
        files: its files, there or not.
    """

    settings: IndexSettings | None = None
    roots: tuple[str, ...] = ()
    files: frozenset[str] = frozenset()


class Generations:
    """An index's stores, of which one counts.

    Args:
        folder: None for an index in memory, which has one store only.
        embedder: None for the index's own.
        rebuild: the next `writing` makes a new store.
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
        """Whether there is an index."""
        return self.folder is None or folders.exists(self.folder)

    def check(self) -> None:
        """Raises what `store` raises where there is an index, and a model for it was given."""
        if self.is_made() and self._embedder is not None and not self.rebuild:
            self.store()

    def store(self) -> Store:
        """The store that counts now.

        Raises:
            SearchIndexError: there is none, it is damaged, or made with another model or settings.
        """
        with self._lock:
            if self.folder is None:
                if self._opened is None:
                    settings = settings_for(self.model(None), self._wanted)
                    self._opened = Store(Path(":memory:"), None, make=settings)
                return self._opened
            number = folders.current(self.folder)
            if self._opened is None or number != self._number:
                store = Store(self.folder, folders.generation(self.folder, number))
                self._take(self._checked(store), number)
            return self._opened  # type: ignore[return-value]  # taken in the line above

    def read(self, function: Callable[[Store], T]) -> T:
        """What a function finds in the store that counts; again where its files were replaced meanwhile."""
        for _ in range(_TRIES - 1):
            store = self.store()
            try:
                return function(store)
            except folders.StaleError:
                with self._lock:
                    if self._opened is store:
                        self._opened = None
                store.close()
        return function(self.store())

    def model(self, made: IndexSettings | None) -> Embedder:
        """The embedder that was given, or the one that an index was made with, loaded now.

        Args:
            made: the index's settings; None for a new index, whose model is the default one.
        """
        if self._embedder is not None:
            return self._embedder
        with self._lock:
            if self._own is None or (self._own_settings and made and self._own_settings != made):
                self._close_model()
                self._own = load_embedder(made)
            self._own_settings = made
            return self._own

    def remembered(self) -> Remembered:
        """What the index says of itself.

        Raises:
            SearchIndexError: it cannot be read, and is not to be made anew.
        """
        if not self.is_made():
            return Remembered()
        with ExitStack() as stack:
            try:
                store = stack.enter_context(self._tables())
            except SearchIndexError:
                if not self.rebuild:
                    raise
                return Remembered()
            files = frozenset(file.path for file in store.files())
            return Remembered(store.settings, tuple(store.roots()), files)

    @contextmanager
    def _tables(self) -> Iterator[Store]:
        """The store that counts, for its tables alone: its vectors may be missing, or another model's."""
        store = self.store() if self.folder is None else Store(self.folder, folders.generation(self.folder))
        try:
            yield store
        finally:
            if store is not self._opened:
                store.close()

    # -- writing

    @contextmanager
    def tables(self) -> Iterator[Store]:
        """The store that counts, to take something out of it; no one else can write meanwhile."""
        with self._tables() as store, self._locked():
            yield store

    @contextmanager
    def writing(self, *, anew: bool = False) -> Iterator[tuple[Store, Store | None]]:
        """The store to write to, made where there is none, and the one that a new one is made in place of.

        Args:
            anew: make a new one also where there is one. It counts from the end of the ``with`` block on; the
                very first one counts at once, so that what is committed of it can be searched.
        """
        made = self.remembered().settings
        model = None
        if anew or made is None:
            model = self.model(made)
            wanted = kept(self._wanted, made, n_ctx=n_ctx_of(model))
            settings = settings_for(model, wanted)
        # Only now, when nothing is wrong with what was asked for, is anything made.
        with self._locked():
            if model is None:
                store = self.store()
                if self.folder is not None:
                    folders.remove_other_generations(self.folder, self._number)
                yield store, None
            elif self.folder is not None:
                yield from self._new_generation(self.folder, settings)

    def _new_generation(self, folder: Path, settings: IndexSettings) -> Iterator[tuple[Store, Store | None]]:
        before = folders.current(folder)
        number = (before or 0) + 1
        folders.remove_other_generations(folder, before, number)
        store = self._unfinished(folder, number, settings)
        if before is None:
            folders.switch(folder, number)
            self._take(store, number)
            yield store, None
            return
        old = _readable(folder, before)
        try:
            yield store, old
        except BaseException:
            store.close()
            raise
        finally:
            if old is not None:
                old.close()
        folders.switch(folder, number)
        self.rebuild = False
        self._take(store, number)
        folders.remove_other_generations(folder, number)

    def _unfinished(self, folder: Path, number: int, settings: IndexSettings) -> Store:
        """A new store, or the one that an earlier attempt began with the same settings."""
        path = folder / str(number)
        if path.exists():
            try:
                store = Store(folder, path)
                if store.settings == settings:
                    store.check_whole()
                    return store
                store.close()
            except SearchIndexError:
                pass
            folders.remove_other_generations(folder, number - 1)
        return Store(folder, path, make=settings)

    def _locked(self) -> AbstractContextManager[object]:
        return self._one_writer if self.folder is None else folders.writer_lock(self.folder)

    # -- opening and closing

    def _checked(self, store: Store) -> Store:
        try:
            if self._embedder is not None:
                check_same(store.settings, self._embedder, self._wanted, folder=store.folder)
            store.check_whole()
        except GgrankError:
            store.close()
            raise
        return store

    def _take(self, store: Store, number: int | None) -> None:
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
    store = _readable(folder)
    if store is None:
        return None
    store.close()
    return store.settings


def _readable(folder: Path, number: int | None = None) -> Store | None:
    try:
        return Store(folder, folders.generation(folder, number))
    except SearchIndexError:
        return None
