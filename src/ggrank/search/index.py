"""`Index`: files, folders and documents, on disk or in memory, searched by meaning, by words, or by both."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, get_args

from ggrank.errors import InputError, InputTypeError
from ggrank.rows.documents import Document
from ggrank.search.files import FileRules, absolute, check_paths
from ggrank.search.generations import Generations
from ggrank.search.hits import Hit
from ggrank.search.lookup import find_document, find_place, read_document, vector_of, vector_of_text
from ggrank.search.models import Embedder, Reranker, check_reranker
from ggrank.search.ranking import (
    By,
    SearchQuery,
    find,
    rerank,
)
from ggrank.search.settings import IndexSettings as IndexSettings
from ggrank.search.settings import Wanted
from ggrank.search.store import Snapshot, Store
from ggrank.search.update import Changes as Changes
from ggrank.search.update import IndexProgress as IndexProgress
from ggrank.search.update import Update, remove
from ggrank.search.vectors import VectorType
from ggrank.search.where import conditions, unmatched
from ggrank.search.words import Asked, parse
from ggrank.search.writing import Writer, add_document, check_documents, check_id, copy_added
from ggrank.text.inputs import check_choice, check_count, check_text, check_threshold
from ggrank.types import Hybrid

MEMORY = ":memory:"

T = TypeVar("T")


class Index:
    """An index that is searched from several threads and processes, also while one of them updates it.

    Example:
        >>> from ggrank import Document, Index
        >>> documents = [Document("Llamas live in Peru.", id="llamas"), Document("Paris is a city.", id=7)]
        >>> with Index.open(":memory:") as index:
        ...     index.add(documents)
        ...     best = index.search("Where do llamas live?")[0]
        >>> best.id, best.words
        ('llamas', ('llamas', 'live'))
    """

    def __init__(self, generations: Generations) -> None:
        """Not called by users: `Index.open` is the way in."""
        self._generations = generations
        generations.check()

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        embedder: Embedder | None = None,
        vectors: VectorType | None = None,
        chunk_tokens: int | None = None,
        overlap: int | None = None,
        rebuild: bool = False,
    ) -> Index:
        """Opens the index in a folder, or a new one in memory. The first writing makes what is not there.

        Args:
            folder: of the index itself, not of the documents; ":memory:" for an index that is gone when it is
                closed.
            embedder: a loaded embedding model or a `RemoteEmbedder`, the same for the index's whole life.
                None loads the index's own model when it is needed; of a new index "all-minilm-l6-v2".
            vectors: how they are stored, "float32" (the default) or "int8", a quarter of the size.
            chunk_tokens: of a passage at most, special tokens and the model's prefix included; 200.
            overlap: tokens at most that a passage repeats of the one before; 40.
            rebuild: the first `update` makes the index anew beside the one that is there, and replaces it
                when it is done. Its paths, what was added, and the settings above that are not given stay the
                same where they can be read and fit the model.

        Raises:
            SearchIndexError: it is damaged, something else, or made with another model or settings.
            ModelModeError: the model is loaded to rerank.
            InputTypeError: it is no model.
            InputError: a number that cannot be used.
        """
        wanted = Wanted(vectors=vectors, chunk_tokens=chunk_tokens, overlap=overlap)
        path = None if os.fspath(folder) == MEMORY else Path(folder)
        return cls(Generations(path, embedder, wanted, rebuild=rebuild))

    # -- what is in it

    @property
    def settings(self) -> IndexSettings:
        """What it was made with. Raises SearchIndexError where it is not made yet."""
        return self._generations.store().settings

    @property
    def embedder(self) -> Embedder:
        """The model that it is searched and updated with; loaded now where it was not yet."""
        made = self._generations.is_made()
        return self._generations.model(self._generations.store().settings if made else None)

    @property
    def roots(self) -> list[str]:
        """Files and folders that `update` was given; absolute paths."""
        return self._generations.store().roots()

    @property
    def n_files(self) -> int:
        """Files in it, those that are read only in part included."""
        return self._read(lambda snapshot: int(snapshot.value("SELECT count(*) FROM file")))

    @property
    def n_documents(self) -> int:
        """Documents in it: files, rows of files, and what was added."""
        return self._read(lambda snapshot: int(snapshot.value("SELECT count(*) FROM document")))

    def __len__(self) -> int:
        """Passages in it, equal ones counted once."""
        return self._read(Snapshot.n_passages)

    @property
    def updated(self) -> datetime:
        """When it was written to last, in local time."""
        return datetime.fromtimestamp(self._read(lambda snapshot: snapshot.updated)).astimezone()

    def __contains__(self, id: object) -> bool:
        """Whether `get` knows a document, a file or a table by this name."""
        name = check_id(id)
        try:
            return self._read(lambda snapshot: find_document(snapshot, name)) is not None
        except InputError:
            return True

    def get(self, id: str | float) -> Document:
        """A document by its id, a file by its path, or either by a place that a search printed.

        A place is such as "notes/travel.md:12", and of a row "costs.csv:7" or "costs.xlsx, Prices, row 7". A
        number may be given as a text, and a path in any form that leads to the file.

        Raises:
            InputError: there is none, or it is a table.
            InputTypeError: it is neither a string nor a number.
        """
        return self.find(id)[0]

    def find(self, id: str | float) -> tuple[Document, int | None]:
        """What `get` gives, and the line of the document's text that a place names, None where it names none.

        Raises:
            InputError, InputTypeError: as `get`.
        """
        name = check_id(id)

        def find(snapshot: Snapshot) -> tuple[Document, int | None] | None:
            found = find_place(snapshot, name)
            return None if found is None else (read_document(snapshot, found[0]), found[1])

        found = self._read(find)
        if found is None:
            raise InputError(
                f"{id!r} is not in the index: give an id, a path, or a place that a search found"
            )
        return found

    def _read(self, function: Callable[[Snapshot], T]) -> T:
        def read(store: Store) -> T:
            with store.snapshot() as snapshot:
                return function(snapshot)

        return self._generations.read(read)

    # -- writing

    def add(
        self,
        documents: Iterable[str | Document],
        *,
        ids: Iterable[str | float | None] | None = None,
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> None:
        """Adds documents, each in place of the one with its id, if any. Every batch is committed.

        Args:
            documents: texts, or `Document`s with ids and metadata of their own.
            ids: one for each text.
            metadata: one mapping, or None, for each text.

        Raises:
            InputError: an id that stands twice, or ids or metadata of another number than documents; then
                nothing is added.
            InputTypeError: a document that is no string, an id that is neither string nor number, or metadata
                that JSON cannot hold; then nothing is added.
            SearchIndexError: another process updates the index, or it cannot be written.
        """
        new = check_documents(documents, ids, metadata)
        with self._generations.writing() as (store, _):
            writer = Writer(store, self._generations.model(store.settings))
            for one in new:
                add_document(writer, one)
            writer.flush()
            store.compact()

    def update(
        self,
        paths: Iterable[str | os.PathLike[str]] = (),
        *,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        max_file_size: int | None = None,
        prune: bool = False,
        on_progress: Callable[[IndexProgress], object] | None = None,
    ) -> Changes:
        """Brings the index up to date with files and folders; only what changed is embedded.

        A file is looked at again when its size or time changed, and read again when its bytes did. Files that
        are gone from a folder go from the index. Every batch is committed: after Ctrl-C, a crash or `kill -9`
        the same call goes on where this one ended.

        Args:
            paths: files and folders; none for all that were ever given.
            include: patterns as in ``.gitignore``; of these folders only files that match one are read,
                whatever their format. This and the next two are remembered until they are given anew.
            exclude: patterns of files and folders to leave out.
            max_file_size: bytes, 10 million; larger files are left out, except files of rows.
            prune: also where more than half of the files below a folder are gone, or cannot be read while the
                index is made anew.
            on_progress: called after each commit.

        Raises:
            InputError: a path that is not there, none was ever given, a pattern that is none, or too many
                files are gone; then all is as before.
            SearchIndexError: another process updates it, or it cannot be written.
        """
        given = absolute(paths)
        asked = (include, exclude, max_file_size)
        FileRules().changed(*asked)  # an error comes before anything is made
        generations = self._generations
        self._roots(given)  # an error comes before anything is made
        with generations.writing(anew=generations.rebuild) as (store, old):
            roots = self._roots(given)  # also what another process has just added
            model = generations.model(store.settings)
            if old is not None:
                copy_added(old, Writer(store, model))
            rules = (old or store).rules()
            rules |= {root: rules.get(root, FileRules()).changed(*asked) for root in roots}
            update = Update(store, model, old=old, on_progress=on_progress)
            changes = update.run(roots, rules=rules, prune=prune)
            store.compact()
        return changes

    def _roots(self, given: list[str]) -> list[str]:
        """The given paths, checked; all that were ever given where there are none."""
        before = self._generations.remembered()
        roots = given or list(before.roots)
        files = frozenset[str]() if given and self._generations.rebuild else before.files
        check_paths(roots, before.roots, files, folder=self._generations.folder)
        return roots

    def remove(
        self,
        *,
        ids: Iterable[str | float] = (),
        paths: Iterable[str | os.PathLike[str]] = (),
    ) -> int:
        """Takes documents, and files and folders with all below them, out of the index. Loads no model.

        A file need not be there any more. What is below a folder that stays in the index is left out of
        later updates too, until it is itself given to `update` again.

        Returns:
            How many documents and files went.

        Raises:
            InputError: an id or a path that the index does not have; then nothing is removed.
            SearchIndexError: there is no index, or another process updates it.
        """
        if isinstance(ids, (str, bytes)):
            raise InputTypeError("ids must be a list, found one string: put it in a list")
        names, gone = list(dict.fromkeys(map(check_id, ids))), absolute(paths)
        with self._generations.tables() as store:
            n_removed = remove(store, names, gone)
            store.compact()
        return n_removed

    # -- searching

    def search(
        self,
        query: str,
        *,
        top_n: int = 10,
        by: By = "both",
        reranker: Reranker | None = None,
        where: Mapping[str, Any] | None = None,
        retrieve_k: int = 20,
        min_score: float | None = None,
        fusion: Hybrid = "scores",
        paths: Sequence[str] = (),
        suffixes: Sequence[str] = (),
        since: datetime | None = None,
        one_per_file: bool = False,
        context: int = 0,
        plain: bool = False,
    ) -> list[Hit]:
        """The best passages for a query, equal texts once.

        Args:
            query: a question or words. A passage must have ``"a phrase"`` in quotes, and must not have
                ``-word`` or ``-"a phrase"``, whatever ``by`` is.
            top_n: how many.
            by: "meaning" compares vectors; "words" is BM25, which finds names and numbers that vectors blur,
                and needs no model; "both" fuses them.
            reranker: a loaded reranker (or a `RemoteReranker`) that reads the best ``retrieve_k`` and orders
                them, blended with the first stage where `Llama.blend` says so.
            where: what documents must have in their metadata: ``{"tags": "staff", "year": {">=": 2020}}``. A
                value means equal, or contained in a list; else one of ==, !=, <, <=, >, >=.
            retrieve_k: how many the reranker reads; ``top_n`` where that is more.
            min_score: leaves out hits whose ``score`` is below it.
            fusion: how "both" becomes one order: "scores" by standardised scores
                (`ggrank.scoring.score_fusion`), the best of what was measured; "rrf" by reciprocal rank.
            paths: only files that match one of these globs, such as "notes/*.md"; a folder's name is enough.
            suffixes: only files with one of these, such as "md" or "*.md".
            since: only files that were changed at this time or later.
            one_per_file: of each file only the best passage.
            context: gives each hit so many lines of its document ``before`` and ``after`` its text.
            plain: the query is any text, in which quotes and minus signs mean nothing.

        Raises:
            InputError: a query that is empty or says only what to leave out, a number below 1, or
                ``where``, ``by`` or ``fusion`` that is none.
            SearchIndexError: there is no index, or it cannot be read.
        """
        query = check_text(query, "the query")
        check_choice(by, "by", get_args(By))
        check_choice(fusion, "fusion", get_args(Hybrid))
        check_count(top_n, "top_n")
        check_count(retrieve_k, "retrieve_k")
        check_count(context, "context", least=0)
        check_threshold(min_score)
        if min_score is not None and not 0 <= min_score <= 1:
            raise InputError(f"min_score must be from 0 to 1, found {min_score}")
        check_reranker(reranker)
        asked = Asked(query) if plain else parse(query)
        if not asked.text.strip() and not asked.excluded:
            raise InputError("the query is empty: say what to look for")
        if asked.excluded and not asked.text:
            raise InputError(
                f"the query says only what to leave out: {', '.join(asked.excluded)}. Add what to look for, "
                "as in 'travel -draft'; write a literal minus sign as \\-"
            )
        condition, values = conditions(where, paths=paths, suffixes=suffixes, since=since)
        k = max(top_n, retrieve_k) if reranker or min_score is not None else top_n

        def search(store: Store) -> list[Hit]:
            vector = None
            if by != "words":
                model = self._generations.model(store.settings)
                vector = model.embed(asked.text, prefix=model.query_prefix)
            wanted = SearchQuery(
                **vars(asked),
                vector=vector,
                by=by,
                fusion=fusion,
                condition=condition,
                values=values,
                one_per_file=one_per_file,
                context=context,
            )
            with store.snapshot() as snapshot:
                return find(snapshot, wanted, k)

        hits = self._generations.read(search)
        if reranker is not None:
            hits = rerank(asked.text, hits, reranker)
        return [hit for hit in hits if min_score is None or hit.score >= min_score][:top_n]

    def unmatched(
        self,
        *,
        where: Mapping[str, Any] | None = None,
        paths: Sequence[str] = (),
        suffixes: Sequence[str] = (),
    ) -> list[str]:
        """Says of each of `search`'s filters by itself that nothing in the index meets it; [] if all do."""
        return self._read(lambda snapshot: unmatched(snapshot, where, paths, suffixes))

    def similar(self, id_or_text: str | float, *, top_n: int = 10) -> list[Hit]:
        """Passages of other documents that mean the same as a document's, or as a text.

        Args:
            id_or_text: what `get` takes, or any text.

        Raises:
            InputError: the document or text is empty.
        """
        check_count(top_n, "top_n")
        name = check_id(id_or_text)

        def search(store: Store) -> list[Hit]:
            with store.snapshot() as snapshot:
                number = find_document(snapshot, name)
                if number is not None:
                    others = f"document.id != {number}"
                    query = SearchQuery("", vector_of(snapshot, number), "meaning", condition=others)
                    return find(snapshot, query, top_n)
            vector = vector_of_text(str(name), self._generations.model(store.settings), store.settings)
            with store.snapshot() as snapshot:
                return find(snapshot, SearchQuery("", vector, "meaning"), top_n)

        return self._generations.read(search)

    # -- opening and closing

    def close(self) -> None:
        """Lets go of the files and of its own model; the next call opens them again. Memory is emptied."""
        self._generations.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Index({str(self._generations.folder or MEMORY)!r})"
