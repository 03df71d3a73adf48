"""`Index`: files and folders on disk, searched by meaning, by words, or by both.

    update: files -> passages -> vectors and words, on disk    search: query -> candidates -> ranking

Knows how the parts of this package meet. `ggrank.search.store` says how what is on the disk stays whole.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from types import TracebackType

from ggrank.errors import GgrankError
from ggrank.llama import Llama
from ggrank.remote import RemoteReranker
from ggrank.search.candidates import Candidate, find_candidates
from ggrank.search.files import Skipped as Skipped
from ggrank.search.folder import exists, make, writer_lock
from ggrank.search.lexical import best_window, find_words
from ggrank.search.paths import absolute, check_paths, forget, remembered
from ggrank.search.settings import IndexSettings as IndexSettings
from ggrank.search.settings import Wanted, check_same, kept, settings_for
from ggrank.search.stages import (
    check_depth,
    check_embedder,
    check_hybrid,
    check_reranker,
    first_scale,
    second_stage,
)
from ggrank.search.store import Store
from ggrank.search.update import Changes as Changes
from ggrank.search.update import Progress as Progress
from ggrank.search.update import Update
from ggrank.search.vectors import VectorType
from ggrank.text.inputs import check_text
from ggrank.types import Hybrid, RankedDocument, Ranking


class Index:
    """An index on disk. Safe to search from several threads and processes, also while one updates it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from ggrank import Index, Llama
        >>> with tempfile.TemporaryDirectory() as folder, Llama.load("all-minilm-l6-v2") as embedder:
        ...     notes = Path(folder, "notes.md")
        ...     _ = notes.write_text("# Animals\\n\\nLlamas live in Peru.\\n\\n# Cities\\n\\nParis.")
        ...     with Index.open(Path(folder, "index"), embedder=embedder) as index:
        ...         changes = index.update([notes])
        ...         best = index.search("Where do llamas live?")[0]
        >>> changes.added, best.metadata["place"]
        (1, 'Animals')
    """

    def __init__(self, folder: Path, embedder: Llama, wanted: Wanted, *, rebuild: bool) -> None:
        """Not called by users: `Index.open` is the way in."""
        self._folder = folder
        self._embedder = check_embedder(embedder)
        self._wanted = wanted
        self._rebuild = rebuild
        self._lock = threading.Lock()
        self._opened: Store | None = None
        if exists(folder) and not rebuild:
            self._store()

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        embedder: Llama,
        vectors: VectorType | None = None,
        chunk_tokens: int | None = None,
        overlap: int | None = None,
        rebuild: bool = False,
    ) -> Index:
        """Opens the index in a folder. Where there is none, the first `update` makes it.

        Args:
            folder: of the index itself, not of the documents.
            embedder: a loaded embedding model, the same for the index's whole life.
            vectors: how they are stored, "float32" (the default) or "int8", a quarter of the size.
            chunk_tokens: of a passage at most, special tokens and the model's prefix included; 200.
            overlap: tokens at most that a passage repeats of the one before; 40.
            rebuild: the first `update` makes the index anew, whatever it was made with. Its paths, and the
                settings above that are not given, stay the same where they can be read and fit the model.

        Raises:
            SearchIndexError: it is damaged, something else, or made with another model or settings.
            ModelModeError: the model is loaded to rerank.
            InputTypeError: it is no model.
            InputError: a number that cannot be used.
        """
        wanted = Wanted(vectors=vectors, chunk_tokens=chunk_tokens, overlap=overlap)
        return cls(Path(folder), embedder, wanted, rebuild=rebuild)

    @property
    def settings(self) -> IndexSettings:
        """What it was made with. Raises SearchIndexError where it is not made yet."""
        return self._store().settings

    @property
    def n_files(self) -> int:
        """Files in it, those that are read only in part included."""
        return self._store().n_files()

    def __len__(self) -> int:
        """Passages in it."""
        return self._store().n_passages()

    def update(
        self,
        paths: Iterable[str | os.PathLike[str]] = (),
        *,
        on_progress: Callable[[Progress], object] | None = None,
    ) -> Changes:
        """Brings the index up to date with files and folders; only what changed is embedded.

        A file is looked at again when its size or time changed, and read again when its bytes did. Files that
        are gone from a folder go from the index. Every batch is committed: after Ctrl-C, a crash or `kill -9`
        the same call goes on where this one ended.

        Args:
            paths: files and folders; none for all that were ever given.
            on_progress: called after each commit.

        Raises:
            InputError: a path that is not there, or none was ever given; then all is as before.
            SearchIndexError: another process updates it, or it cannot be written.
        """
        given = absolute(paths)
        before = remembered(self._folder, given, rebuild=self._rebuild)
        roots = given or list(before.roots)
        check_paths(roots, before, folder=self._folder)
        wanted = kept(self._wanted, before.settings, n_ctx=self._embedder.n_ctx)
        settings = settings_for(self._embedder, wanted)
        # Only now, when nothing is wrong with what was asked for, is anything made or thrown away.
        with writer_lock(self._folder):
            if self._rebuild or not exists(self._folder):
                self.close()
                make(self._folder, settings)
                self._rebuild = False
            with closing(self._checked(Store(self._folder))) as store:
                return Update(store, self._embedder, on_progress=on_progress).run(roots)

    def forget(self, paths: Iterable[str | os.PathLike[str]]) -> int:
        """Takes files and folders, and all below them, out of the index; they need not be there any more.

        What is still there, below a folder that stays in the index, comes back with its next `update`.

        Args:
            paths: files and folders.

        Returns:
            How many files went.

        Raises:
            InputError: nothing in the index is at or below a path; then none is forgotten.
            SearchIndexError: there is no index, or another process updates it.
        """
        return forget(self._folder, paths)

    def retrieve(self, query: str, k: int, *, hybrid: bool | Hybrid = False) -> Ranking:
        """The ``k`` best passages by cosine, exactly; or by cosine and BM25 fused. A `Retriever`'s method.

        ``document`` is a passage's text, ``id`` that of a JSONL record. ``metadata`` has ``path``, ``place``
        (a heading, page or line), and ``start`` and ``stop``, the passage's characters in the file's text.
        """
        query, k, fusion = check_text(query, "the query"), check_depth(k, None), check_hybrid(hybrid)
        prefix = self._embedder.query_prefix
        vector = self._embedder.embed(query, prefix=prefix)
        found = find_candidates(self._store(), vector, k=k, words=query, hybrid=fusion)
        n_tokens = min(self._embedder.count_tokens(prefix + query), self._embedder.n_ctx)
        return Ranking(tuple(map(_ranked, found)), first_scale(fusion), n_tokens)

    def search(
        self,
        query: str,
        *,
        retrieve_k: int = 20,
        top_n: int | None = 5,
        hybrid: bool | Hybrid = False,
        reranker: Llama | RemoteReranker | None = None,
    ) -> Ranking:
        """The best passages for a query; arguments, scales and errors are those of `Pipeline.search`."""
        k = check_depth(retrieve_k, top_n)
        check_reranker(reranker)
        candidates = self.retrieve(query, k, hybrid=hybrid)
        return second_stage(query, candidates, reranker=reranker, top_n=top_n)

    def snippet(self, query: str, found: RankedDocument, *, n_words: int = 30) -> str:
        """The part of a passage that has most of the query's words; its beginning where it has none."""
        spans = find_words(query, found.document)
        start, end = best_window(found.document, spans, n_characters=8 * n_words)
        shown = " ".join(found.document[start:end].split())
        return "..." * (start > 0) + shown + "..." * (end < len(found.document))

    def close(self) -> None:
        """Lets go of the files; the embedder stays. The next call opens them again."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
                self._opened = None

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Index({str(self._folder)!r})"

    def _store(self) -> Store:
        """The files, opened to read."""
        with self._lock:
            if self._opened is None:
                self._opened = self._checked(Store(self._folder))
            return self._opened

    def _checked(self, store: Store) -> Store:
        try:
            check_same(store.settings, self._embedder, self._wanted, folder=self._folder)
            store.check_whole()
        except GgrankError:
            store.close()
            raise
        return store


def _ranked(found: Candidate) -> RankedDocument:
    passage = found.passage
    return RankedDocument(
        index=passage.id,
        score=found.score,
        logit=None,
        document=passage.text,
        truncated=False,
        cosine=found.cosine,
        id=passage.record,
        metadata={
            "path": passage.path,
            "place": passage.place,
            "start": passage.start,
            "stop": passage.stop,
        },
    )
