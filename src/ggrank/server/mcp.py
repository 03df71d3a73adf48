"""``ggrank mcp``: indexes as tools for agents, over the Model Context Protocol; needs the extra ``mcp``.

A model is loaded at the first call that needs it, and let go after some idle minutes. Only what is indexed
can be read, whatever path is asked for.
"""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ggrank.errors import GgrankError, InputError
from ggrank.llama import Llama
from ggrank.search.hits import printed_place
from ggrank.search.index import Index
from ggrank.search.lookup import check_no_path, lines_of
from ggrank.types import PoolingType

if TYPE_CHECKING:
    from mcp.server import MCPServer

    from ggrank.search.hits import Hit

MOST_HITS = 50
MOST_CHARACTERS = 1_200
"""Of a passage in an answer."""
MOST_LINES, MOST_TEXT = 400, 20_000
"""Lines and characters of a document in an answer."""
MOST_FACTS, MOST_NAME = 2_000, 400
"""Characters of a document's metadata as JSON, and of its title, headings or id, in an answer."""

INSTRUCTIONS = (
    "Searches the user's own files and notes, which are indexed on this machine. Call `search` with a "
    "question or with keywords, then `get` to read around a hit (its `place`)."
)


@dataclass(frozen=True)
class IndexedPassage:
    """A passage that was found. ``score`` is 0..1 and means the same in every search."""

    text: str
    score: float
    place: str
    path: str
    line: int
    headings: str
    page: str
    title: str
    id: str | int | float | None
    metadata: dict[str, Any]
    index: str


@dataclass(frozen=True)
class Found:
    """The answer of `search` and `similar`, best first."""

    passages: list[IndexedPassage]


@dataclass(frozen=True)
class Lines:
    """Some lines of a document; ``n_lines`` is how many it has. ``is_cut``: the last of these goes on."""

    text: str
    first_line: int
    last_line: int
    n_lines: int
    is_cut: bool
    title: str
    metadata: dict[str, Any]
    index: str


@dataclass(frozen=True)
class IndexFacts:
    """What an index holds."""

    index: str
    folder: str
    files: int
    documents: int
    passages: int
    model: str


@dataclass(frozen=True)
class Status:
    """The answer of `status`."""

    indexes: list[IndexFacts]


By = Literal["both", "meaning", "words"]
T = TypeVar("T")


class Shelf:
    """The indexes that an agent may search, and a reranker; models are unloaded when idle.

    Args:
        folders: of indexes, by the name that the agent sees.
        reranker: a preset, path or repo id; None refuses ``rerank``.
        idle_seconds: after the last call; None keeps models.

    Raises:
        SearchIndexError: a folder holds no index.
    """

    def __init__(
        self, folders: Mapping[str, Path], *, reranker: str | None = None, idle_seconds: float | None = None
    ) -> None:
        self._indexes = {name: Index.open(folder) for name, folder in folders.items()}
        self._folders = dict(folders)
        for index in self._indexes.values():
            index.settings  # noqa: B018  (raises where there is no index)
        self._reranker_name = reranker
        self._reranker: Llama | None = None
        self._idle_seconds = idle_seconds
        self._state = threading.Condition()
        self._n_calls, self._last_call, self._closed = 0, time.monotonic(), False
        if idle_seconds is not None:
            threading.Thread(target=self._let_go_when_idle, daemon=True, name="ggrank-idle").start()

    def search(self, index: str | None, top_n: int, ask: Callable[[Index], list[Hit]]) -> Found:
        """The best passages of the named index in its own order; of several their best by score."""
        if not 1 <= top_n <= MOST_HITS:
            raise InputError(f"top_n must be from 1 to {MOST_HITS}, found {top_n}")
        names = self._names(index)
        with self._call():
            found = [(name, hit) for name in names for hit in ask(self._indexes[name])]
        if len(names) > 1:
            found.sort(key=lambda pair: -pair[1].score)
        return Found(passages=[_passage(name, hit) for name, hit in found[:top_n]])

    def get(self, document: str | float, *, index: str | None) -> tuple[str, Any, int | None]:
        """An indexed document by its place, path or id, its index's name, and the line that a place names.

        Raises InputError for any other.
        """
        name = self.holder(document, index=index)
        if name is not None:
            with self._call():
                return name, *self._indexes[name].find(document)
        raise InputError(
            f"{document!r} is not indexed. Expected the `place`, `path` or `id` of a passage that `search` "
            "found."
        )

    def holder(self, document: str | float, *, index: str | None) -> str | None:
        """The name of the first index that has a document, None where none has."""
        with self._call():
            return next((name for name in self._names(index) if document in self._indexes[name]), None)

    def facts(self) -> list[IndexFacts]:
        """What each index holds."""
        with self._call():
            return [
                IndexFacts(
                    index=name,
                    folder=str(self._folders[name]),
                    files=one.n_files,
                    documents=one.n_documents,
                    passages=len(one),
                    model=one.settings.model,
                )
                for name, one in self._indexes.items()
            ]

    def close(self) -> None:
        """Lets go of everything."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        self._let_go()

    def _names(self, index: str | None) -> Sequence[str]:
        if index is None:
            return list(self._indexes)
        if index not in self._indexes:
            raise InputError(f"there is no index {index!r}; there is {', '.join(self._indexes)}")
        return [index]

    def reranker(self) -> Llama:
        """Loaded now where it was not yet."""
        if self._reranker_name is None:
            raise InputError(
                "no reranker here: start `ggrank mcp` with --reranker NAME, or leave out `rerank`"
            )
        with self._state:
            if self._reranker is None:
                self._reranker = Llama.load(self._reranker_name, pooling_type=PoolingType.RANK)
            return self._reranker

    @contextmanager
    def _call(self) -> Iterator[None]:
        with self._state:
            self._n_calls += 1
        try:
            yield
        finally:
            with self._state:
                self._n_calls -= 1
                self._last_call = time.monotonic()
                self._state.notify_all()

    def _let_go_when_idle(self) -> None:
        idle = self._idle_seconds or 0.0
        with self._state:
            while not self._closed:
                left = self._last_call + idle - time.monotonic()
                if self._n_calls == 0 and left <= 0:
                    self._let_go()
                    self._state.wait()
                else:
                    self._state.wait(None if self._n_calls else left)

    def _let_go(self) -> None:
        with self._state:
            for index in self._indexes.values():
                index.close()
            if self._reranker is not None:
                self._reranker.close()
                self._reranker = None


def build_server(shelf: Shelf) -> MCPServer[Any]:
    """The server with its tools `search`, `get`, `similar` and `status`."""
    from mcp.server import MCPServer
    from mcp.types import ToolAnnotations

    import ggrank

    server = MCPServer("ggrank", instructions=INSTRUCTIONS, version=ggrank.__version__, log_level="WARNING")
    reads_only = ToolAnnotations(read_only_hint=True, open_world_hint=False)

    def search(
        query: str,
        top_n: int = 5,
        by: By = "both",
        path: str | None = None,
        where: dict[str, Any] | None = None,
        min_score: float | None = None,
        rerank: bool = False,
        index: str | None = None,
    ) -> Found:
        """Find passages of the user's indexed files that answer a query.

        Args:
            query: a question or keywords; "a phrase" in quotes must be in a passage, -word must not.
            top_n: how many passages, 1 to 50.
            by: "both" (default), "meaning" (vectors) or "words" (exact names, error codes, numbers).
            path: a glob or a folder that files must match, such as "notes/*.md".
            where: metadata that documents must have, such as {"tags": "staff", "year": {">=": 2020}}.
            min_score: leave out passages with a lower score (0..1).
            rerank: read the candidates again with a cross-encoder; slower and better.
            index: the name of one index; all are searched without it (`status` lists them).
        """

        def ask(one: Index) -> list[Hit]:
            return one.search(
                query,
                top_n=top_n,
                by=by,
                where=where,
                paths=[path] if path else (),
                min_score=min_score,
                reranker=shelf.reranker() if rerank else None,
            )

        return _answered(lambda: shelf.search(index, top_n, ask))

    def similar(document: str | int | float, top_n: int = 5, index: str | None = None) -> Found:
        """Find passages of other documents that mean the same as a document or a text.

        Args:
            document: the place, path or id of an indexed document, or any text.
            top_n: how many passages, 1 to 50.
            index: the name of one index.
        """

        def find() -> Found:
            holder = shelf.holder(document, index=index)
            if holder is None:
                check_no_path(str(document))
            return shelf.search(holder or index, top_n, lambda one: one.similar(document, top_n=top_n))

        return _answered(find)

    def get(
        document: str | int | float,
        first_line: int | None = None,
        n_lines: int = 100,
        index: str | None = None,
    ) -> Lines:
        """Read lines of an indexed document.

        Args:
            document: its place, path or id, as `search` gives it. Files that are not indexed cannot be read.
            first_line: from 1; without it that of the place.
            n_lines: at most 400; the answer also ends with the last line that fits in 20,000 characters.
            index: the name of one index.
        """
        return _answered(lambda: _lines(shelf, document, first_line, n_lines, index))

    def status() -> Status:
        """List the indexes: how many files, documents and passages, and the embedding model."""
        return _answered(lambda: Status(indexes=shelf.facts()))

    for tool in (search, get, similar, status):
        server.add_tool(tool, annotations=reads_only, structured_output=True)
    return server


def _answered(compute: Callable[[], T]) -> T:
    """What is computed; an error of ggrank reaches the agent as a message that it can act upon."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        return compute()
    except GgrankError as error:
        raise ToolError(_short(str(error), MOST_CHARACTERS)) from error


def _passage(index: str, hit: Hit) -> IndexedPassage:
    return IndexedPassage(
        text=_short(hit.text, MOST_CHARACTERS),
        score=round(hit.score, 4),
        place=printed_place(hit),
        path=hit.path,
        line=hit.line,
        headings=_short(hit.headings, MOST_NAME),
        page=_short(hit.page, MOST_NAME),
        title=_short(hit.title, MOST_NAME),
        id=_short(hit.id, MOST_NAME) if isinstance(hit.id, str) and hit.id != hit.path else hit.id,
        metadata=_facts(hit.metadata),
        index=index,
    )


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + " ..."


def _facts(metadata: Mapping[str, Any] | None) -> dict[str, Any]:
    """Metadata as far as there is room: long texts are cut, and fields that do not fit are left out."""
    facts: dict[str, Any] = {}
    room = MOST_FACTS
    for name, value in (metadata or {}).items():
        value = _short(value, MOST_NAME) if isinstance(value, str) else value
        size = len(json.dumps({name: value}))
        if size <= room:
            facts[name] = value
            room -= size
    return facts


def _lines(
    shelf: Shelf, document: str | float, first_line: int | None, n_lines: int, index: str | None
) -> Lines:
    if (first_line is not None and first_line < 1) or not 1 <= n_lines <= MOST_LINES:
        raise InputError(
            f"first_line must be at least 1 and n_lines from 1 to {MOST_LINES}; found {first_line}, {n_lines}"
        )
    name, found, line = shelf.get(document, index=index)
    first_line = first_line or max(line or 1, 1)
    lines = lines_of(found.text)
    asked = lines[first_line - 1 : first_line - 1 + n_lines]
    n_whole = bisect_right(list(accumulate(map(len, asked))), MOST_TEXT)
    is_cut = bool(asked) and not n_whole  # one line has more than an answer may hold
    return Lines(
        text=asked[0][:MOST_TEXT] if is_cut else "".join(asked[:n_whole]),
        first_line=first_line,
        last_line=first_line + max(0, n_whole - 1),
        n_lines=len(lines),
        is_cut=is_cut,
        title=_short(found.title or "", MOST_NAME),
        metadata=_facts(found.metadata),
        index=name,
    )
