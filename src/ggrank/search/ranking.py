"""A search over one committed state of an index: passages by meaning, by words or by both, then reranked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.llama import Llama
from ggrank.rows.documents import Document
from ggrank.scoring import Fused, best_first, blend, l2_normalize, sigmoid, top_k
from ggrank.search.chunking import embedded_text
from ggrank.search.hits import Explanation, Hit, Place
from ggrank.search.lexical import ENOUGH, Bm25, LexicalHit, search_words
from ggrank.search.models import Reranker
from ggrank.search.stages import (
    LEXICAL_DEPTH,
    first_score,
    fuse,
    meaning_score,
    word_weights,
    words_score,
)
from ggrank.search.store import Snapshot
from ggrank.search.words import query_words, quoted
from ggrank.types import Hybrid

By: TypeAlias = Literal["both", "meaning", "words"]

MOST_PLACES = 20
"""Places of an equal text that a hit names."""


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        text: as it was asked.
        vector: of the text, shape (n_embd,), L2-normalised; None in a search by words.
        by: "both", "meaning" or "words".
        fusion: how both become one order.
        condition: SQL over ``document`` and ``file`` that a place must meet, and its values.
    """

    text: str
    vector: NDArray[np.float32] | None
    by: By
    fusion: Hybrid = "scores"
    condition: str = ""
    values: tuple[object, ...] = ()


def find(snapshot: Snapshot, query: Query, k: int) -> list[Hit]:
    """The ``k`` best hits with different texts, best first."""
    cosines = _cosines(snapshot, query)
    lexical = _lexical(snapshot, query, k) if query.by != "meaning" else []
    depth = k
    while True:
        order = _order(query, cosines, lexical, depth)
        texts = _different_texts(snapshot, query, order)
        if len(texts) >= k or len(order) < depth:
            break
        depth *= 4
    return _hits(snapshot, query, list(texts.items())[:k], cosines, lexical)


def _cosines(snapshot: Snapshot, query: Query) -> NDArray[np.float32]:
    """Of every row; -inf for one that is free, or not asked for."""
    if query.vector is None:
        return np.empty(0, np.float32)
    cosines = snapshot.vectors.cosines(query.vector, snapshot.n_rows)
    if not query.condition:
        cosines[snapshot.free_rows()] = -np.inf
        return cosines
    rows = snapshot.db.execute(f"SELECT DISTINCT passage {_PLACES} WHERE {query.condition}", query.values)
    allowed = np.fromiter((row for (row,) in rows), np.int64)
    kept = np.full_like(cosines, -np.inf)
    kept[allowed] = cosines[allowed]
    return kept


_PLACES = "FROM place JOIN document ON document.id = document LEFT JOIN file ON file.id = document.file"


def _lexical(snapshot: Snapshot, query: Query, k: int) -> list[LexicalHit]:
    among = f"SELECT passage {_PLACES} WHERE {query.condition}" if query.condition else ""
    return search_words(snapshot.db, query.text, k=max(k, LEXICAL_DEPTH), among=among, values=query.values)


def _order(
    query: Query, cosines: NDArray[np.float32], lexical: Sequence[LexicalHit], depth: int
) -> list[Fused]:
    """Rows, best first, each with the value that orders them."""
    if query.by == "words":
        return [Fused(hit.position, hit.score) for hit in lexical[:depth]]
    if query.by == "both":
        return fuse(cosines, lexical, k=depth, by=query.fusion)
    best = (i for i in top_k(cosines, depth).tolist() if cosines[i] > -np.inf)
    return [Fused(i, float(cosines[i])) for i in best]


@dataclass
class _Text:
    """A text that was found, the first row that has it, and its places."""

    headings: str
    first: Fused
    places: list[Place]


def _different_texts(snapshot: Snapshot, query: Query, order: Sequence[Fused]) -> dict[str, _Text]:
    """Texts in order; what has the same text below another heading is one more place."""
    texts: dict[str, _Text] = {}
    for one in order:
        text, places = _places(snapshot, query, one.position)
        found = texts.setdefault(text, _Text(places[0].headings, one, []))
        found.places += places[: MOST_PLACES - len(found.places)]
    return texts


def _places(snapshot: Snapshot, query: Query, passage: int) -> tuple[str, list[Place]]:
    """A passage's text, and where it stands."""
    rows = snapshot.rows(
        "SELECT path, document.place, page, headings, line, start, stop, name, title, metadata, text "
        "FROM place_text AS place JOIN document ON document.id = document "
        "LEFT JOIN file ON file.id = document.file "
        f"WHERE passage = ? {'AND ' + query.condition if query.condition else ''} LIMIT {MOST_PLACES}",
        passage,
        *query.values,
    )
    return rows[0][-1], [_place(*row[:-1]) for row in rows]


def _place(
    path: str | None,
    row: str,
    page: str,
    headings: str,
    line: int,
    start: int,
    stop: int,
    name: str | float | None,
    title: str,
    metadata: str,
) -> Place:
    if row.startswith("line "):  # of a table or of JSON lines
        line = int(row.removeprefix("line "))
    id = path if name is None and not row else name
    facts = json.loads(metadata)
    return Place(path or "", headings, page or row, line, start, stop, id, title, facts)


def _hits(
    snapshot: Snapshot,
    query: Query,
    texts: Sequence[tuple[str, _Text]],
    cosines: NDArray[np.float32],
    lexical: Sequence[LexicalHit],
) -> list[Hit]:
    bm25 = {hit.position: (rank, hit.score) for rank, hit in enumerate(lexical, 1)}
    by_meaning = _ranks(cosines, [text.first.position for _, text in texts])
    held, weights = _held_words(
        snapshot, query.text, [embedded_text(found.headings, text) for text, found in texts]
    )
    hits = []
    for i, (text, found) in enumerate(texts):
        row = found.first.position
        cosine = float(cosines[row]) if len(cosines) else None
        meaning = None if cosine is None else meaning_score(cosine, unrelated=snapshot.unrelated)
        words = None if query.by == "meaning" else words_score(held[i], weights)
        words_rank, score = bm25.get(row, (None, None))
        hits.append(
            Hit(
                **vars(found.places[0]),
                text=text,
                score=first_score(meaning, words),
                cosine=cosine,
                logit=None,
                words=tuple(held[i]),
                others=tuple(found.places[1:]),
                explanation=Explanation(by_meaning.get(row), words_rank, score, found.first.score),
            )
        )
    return hits


def _ranks(cosines: NDArray[np.float32], rows: Sequence[int]) -> dict[int, int]:
    """The rank by cosine of some rows, from 1."""
    return {row: 1 + int((cosines > cosines[row]).sum()) for row in rows} if len(cosines) else {}


def _held_words(
    snapshot: Snapshot, query: str, texts: Sequence[str]
) -> tuple[list[list[str]], dict[str, float]]:
    """For each text the query's words that it holds, and what each word weighs."""
    counts = _count_passages(snapshot, query)
    weights = word_weights(counts, n_passages=snapshot.n_passages())
    bm25 = Bm25(texts)
    with_word = {word: {hit.position for hit in bm25.search(word, k=max(1, len(texts)))} for word in counts}
    held = [[word for word in counts if i in with_word[word]] for i in range(len(texts))]
    return held, weights


def _count_passages(snapshot: Snapshot, query: str) -> dict[str, int]:
    """For each word of a query the passages that hold it; beyond `ENOUGH` they are not counted."""
    statement = "SELECT count(*) FROM (SELECT rowid FROM words WHERE words MATCH ? LIMIT ?)"
    return {word: snapshot.value(statement, quoted(word), ENOUGH) for word in query_words(query)}


def stored_document(snapshot: Snapshot, id: str | float) -> tuple[int, Document] | None:
    """A document by its id, or a file by its path, and its row; None where there is none."""
    fields = "SELECT id, name, title, metadata FROM document WHERE"
    row = snapshot.row(f"{fields} name = ? ORDER BY file LIMIT 1", id) or snapshot.row(
        f"{fields} file = (SELECT id FROM file WHERE path = ?) AND place = '' ORDER BY version DESC LIMIT 1",
        id,
    )
    if row is None:
        return None
    number, name, title, metadata = row
    own = id if name is None else name
    return number, Document(snapshot.text_of(number), own, json.loads(metadata), title or None)


def vector_of(snapshot: Snapshot, document: int) -> NDArray[np.float32]:
    """The mean of a document's passages, of length 1: shape (n_embd,)."""
    rows = [row for (row,) in snapshot.rows("SELECT passage FROM place WHERE document = ?", document)]
    vectors = snapshot.vectors.unpack(snapshot.vectors.read(np.array(rows, np.int64)))
    return l2_normalize(vectors.sum(axis=0))


def rerank(query: str, hits: Sequence[Hit], reranker: Reranker) -> list[Hit]:
    """Hits in the order of both stages; a score becomes the reranker's, 0..1."""
    if not hits:
        return []
    texts = [embedded_text(hit.headings, hit.text) for hit in hits]
    ranking = reranker.rank(query, texts)
    found = sorted(ranking, key=lambda one: one.index)
    raw = np.array([one.score if one.logit is None else one.logit for one in found], np.float32)
    scores = raw if ranking.scale in ("probability", "sigmoid") else sigmoid(raw)
    weight = reranker.blend if isinstance(reranker, Llama) else 0.0
    first = np.array([hit.explanation.first_stage for hit in hits], np.float32)
    values = blend(raw, first, weight=weight) if weight else raw
    return [
        replace(
            hits[i],
            score=float(scores[i]),
            logit=float(raw[i]),
            explanation=replace(hits[i].explanation, reranked=float(values[i])),
        )
        for i in best_first(values).tolist()
    ]


def check_count(value: object, name: str) -> int:
    """Raises InputError unless it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} must be a whole number of at least 1; found {value!r}")
    return value


def check_by(by: object) -> By:
    """Raises InputError unless it is one of the three."""
    if by not in get_args(By):
        raise InputError(f"by must be 'both', 'meaning' or 'words'; found {by!r}")
    return cast(By, by)


def check_fusion(fusion: object) -> Hybrid:
    """Raises InputError unless it is one of the two."""
    if fusion not in get_args(Hybrid):
        raise InputError(f"fusion must be 'scores' or 'rrf'; found {fusion!r}")
    return cast(Hybrid, fusion)
