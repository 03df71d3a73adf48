"""A search over one committed state of an index: passages by meaning, by words or by both, then reranked."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ggrank.llama import Llama
from ggrank.scoring import (
    Fused,
    best_first,
    blend,
    reciprocal_rank_fusion,
    score_fusion,
    sigmoid,
    top_k,
)
from ggrank.search.chunking import embedded_text
from ggrank.search.hits import Explanation, Hit, Place
from ggrank.search.lexical import LexicalHit, count_words, held_words, search_words
from ggrank.search.models import Reranker
from ggrank.search.store import Snapshot
from ggrank.search.words import STOP_WORDS, holds, quoted, terms
from ggrank.types import Hybrid

By: TypeAlias = Literal["both", "meaning", "words"]

FUSION_DEPTH = 100
"""How far down both rankings are fused, at least; with fewer, ``retrieve_k`` would change the order."""

LEXICAL_DEPTH = 1_000
"""How many passages BM25 names, at least: those that the embedder found have their scores among them."""

MOST_READ = 4_000
"""Passages that are read at most to find ``k`` files: a few may have most of all passages."""

MOST_CONTEXT = 20_000
"""Characters of the lines before and after a hit, each: a file may be one long line."""

MOST_PLACES = 20
"""Places of an equal text that a hit names."""


@dataclass(frozen=True)
class SearchQuery:
    """What `Index.search` was asked for.

    ``text``, ``required`` and ``excluded`` are those of `ggrank.search.words.Asked`; ``vector`` is of shape
    (n_embd,), None in a search by words; ``condition`` is SQL over ``document`` and ``file``.
    """

    text: str
    vector: NDArray[np.float32] | None
    by: By
    fusion: Hybrid = "scores"
    condition: str = ""
    values: tuple[object, ...] = ()
    required: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    one_per_file: bool = False
    context: int = 0


def find(snapshot: Snapshot, query: SearchQuery, k: int) -> list[Hit]:
    """The ``k`` best hits with different texts, best first."""
    allowed = _allowed_rows(snapshot, query)
    cosines = np.empty(0, np.float32)
    if query.vector is not None:
        cosines = snapshot.vectors.cosines(query.vector, snapshot.n_rows)
        cosines[~allowed] = -np.inf
    counts: dict[str, int] = {}
    lexical: list[LexicalHit] = []
    if query.by != "meaning":
        counts = count_words(snapshot.db, query.text)
        is_filtered = np.count_nonzero(allowed) < snapshot.n_passages()
        rows = np.flatnonzero(allowed).tolist() if is_filtered else None
        search = partial(search_words, snapshot.db, query.text, counts=counts, rows=rows)
        lexical = search(k=max(k, LEXICAL_DEPTH))
    depth = k
    while True:
        if query.by == "words" and LEXICAL_DEPTH <= len(lexical) < depth:  # equal texts fill it
            lexical = search(k=depth)
        order = _order(query, cosines, lexical, depth)
        found = _different_texts(snapshot, query, order)
        is_enough = len(found) >= k or (query.one_per_file and depth > MOST_READ)
        if is_enough or len(order) < depth:
            break
        depth *= 4
    weights = word_weights(counts, n_passages=snapshot.n_passages())
    return _hits(snapshot, query, found[:k], cosines, lexical, weights)


def _allowed_rows(snapshot: Snapshot, query: SearchQuery) -> NDArray[np.bool_]:
    """Whether each row may be found: it is not free, and the condition and the phrases leave it."""
    allowed = np.ones(snapshot.n_rows, bool)
    allowed[snapshot.free_rows()] = False
    if query.condition:
        rows = snapshot.rows(f"SELECT DISTINCT passage {_PLACES} WHERE {query.condition}", *query.values)
        allowed &= _mask((row for (row,) in rows), len(allowed))
    for phrase in query.required:
        allowed &= _mask(_rows_with(snapshot, phrase, allowed), len(allowed))
    for phrase in query.excluded:
        allowed &= ~_mask(_rows_with(snapshot, phrase, allowed), len(allowed))
    return allowed


_PLACES = "FROM place JOIN document ON document.id = document LEFT JOIN file ON file.id = document.file"


def _mask(rows: Iterable[int], n_rows: int) -> NDArray[np.bool_]:
    mask = np.zeros(n_rows, bool)
    mask[np.fromiter(rows, np.int64)] = True
    return mask


def _rows_with(snapshot: Snapshot, phrase: str, allowed: NDArray[np.bool_]) -> Iterator[int]:
    """The allowed rows that have a phrase: those that have its stems, read again for the words themselves."""
    phrase = terms(phrase).strip()
    found = snapshot.rows("SELECT rowid FROM words WHERE words MATCH ?", quoted(phrase))
    rows = json.dumps([row for (row,) in found if allowed[row]])
    statement = (
        "SELECT passage, headings, text FROM place_text "
        "WHERE passage IN (SELECT value FROM json_each(?)) GROUP BY passage"
    )
    for row, headings, text in snapshot.db.execute(statement, (rows,)):
        if holds(terms(f"{headings}\n\n{text}"), phrase):
            yield row


def _order(
    query: SearchQuery, cosines: NDArray[np.float32], lexical: Sequence[LexicalHit], depth: int
) -> list[Fused]:
    """Rows, best first, each with the value that orders them."""
    if query.by == "words":
        return [Fused(hit.position, hit.score) for hit in lexical[:depth]]
    if query.by == "both":
        return fuse(cosines, lexical, k=depth, by=query.fusion)
    best = (i for i in top_k(cosines, depth).tolist() if cosines[i] > -np.inf)
    return [Fused(i, float(cosines[i])) for i in best]


@dataclass
class _Found:
    """A text that was found: the best row that has it, the document of its first place, and its places."""

    text: str
    row: int
    first_stage: float
    document: int
    places: list[Place]


def _different_texts(snapshot: Snapshot, query: SearchQuery, order: Sequence[Fused]) -> list[_Found]:
    """Texts in order; what has the same text below another heading is one more place."""
    texts: dict[str, _Found] = {}
    for one in order:
        text, document, places = _places(snapshot, query, one.position)
        found = texts.setdefault(text, _Found(text, one.position, one.score, document, []))
        found.places += places[: MOST_PLACES - len(found.places)]
    if not query.one_per_file:
        return list(texts.values())
    best: dict[str | int, _Found] = {}
    for found in texts.values():
        best.setdefault(found.places[0].path or found.document, found)
    return list(best.values())


def _places(snapshot: Snapshot, query: SearchQuery, passage: int) -> tuple[str, int, list[Place]]:
    """A passage's text, the document where it stands first, and all its places."""
    rows = snapshot.rows(
        "SELECT path, document.place, page, headings, line, start, stop, name, title, metadata, text, "
        "document FROM place_text AS place JOIN document ON document.id = document "
        "LEFT JOIN file ON file.id = document.file "
        f"WHERE passage = ? {'AND ' + query.condition if query.condition else ''} LIMIT {MOST_PLACES}",
        passage,
        *query.values,
    )
    places = []
    for path, row, page, headings, line, start, stop, name, title, metadata, *_ in rows:
        if row.startswith("line "):  # of a table or of JSON lines
            line = int(row.removeprefix("line "))
        id = path if name is None and not row else name
        facts = json.loads(metadata)
        places.append(Place(path or "", headings, page or row, line, start, stop, id, title, facts))
    return rows[0][-2], rows[0][-1], places


def _hits(
    snapshot: Snapshot,
    query: SearchQuery,
    texts: Sequence[_Found],
    cosines: NDArray[np.float32],
    lexical: Sequence[LexicalHit],
    weights: Mapping[str, float],
) -> list[Hit]:
    bm25 = {hit.position: (rank, hit.score) for rank, hit in enumerate(lexical, 1)}
    held = held_words(query.text, [embedded_text(one.places[0].headings, one.text) for one in texts])
    hits = []
    for found, words in zip(texts, held, strict=True):
        cosine = meaning = meaning_rank = None
        if len(cosines):
            cosine = float(cosines[found.row])
            meaning_rank = 1 + int((cosines > cosines[found.row]).sum())
            meaning = meaning_score(cosine, unrelated=snapshot.unrelated)
        share = None if query.by == "meaning" else words_score(words, weights)
        words_rank, score = bm25.get(found.row, (None, None))
        before, after = _context(snapshot, query, found)
        hits.append(
            Hit(
                **vars(found.places[0]),
                text=found.text,
                score=first_score(meaning, share),
                cosine=cosine,
                words=tuple(words),
                others=tuple(found.places[1:]),
                explanation=Explanation(meaning_rank, words_rank, score, found.first_stage),
                before=before,
                after=after,
            )
        )
    return hits


def _context(snapshot: Snapshot, query: SearchQuery, found: _Found) -> tuple[str, str]:
    """The lines before and after a text, and what else is in its own first and last line."""
    if not query.context:
        return "", ""
    text, place = snapshot.text_of(found.document), found.places[0]
    before, after = text[: place.start].split("\n"), text[place.stop :].removesuffix("\n").split("\n")
    before, after = before[-query.context - 1 :], after[: query.context + 1]
    return "\n".join(before)[-MOST_CONTEXT:], "\n".join(after)[:MOST_CONTEXT]


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


# -- the order and the scores: pure functions of cosines, BM25 scores and logits


def fuse(cosines: NDArray[np.float32], hits: Sequence[LexicalHit], *, k: int, by: Hybrid) -> list[Fused]:
    """The ``k`` best of a ranking by cosine and one by BM25, whose first `LEXICAL_DEPTH` hits are given.

    ``cosines`` are those of every document, shape (n,), -inf for one that may not be found.
    """
    depth = max(k, FUSION_DEPTH)
    by_cosine = [i for i in top_k(cosines, depth).tolist() if cosines[i] > -np.inf]
    by_words = [hit.position for hit in hits[:depth]]
    if by == "rrf":
        return reciprocal_rank_fusion([by_cosine, by_words])[:k]
    pool = np.array(sorted({*by_cosine, *by_words}), np.int64)
    # What is below the last hit scores as that one, or 0 where every passage with a word is a hit.
    floor = hits[-1].score if len(hits) >= LEXICAL_DEPTH else 0.0
    scores = {hit.position: hit.score for hit in hits}
    lexical = np.array([scores.get(position, floor) for position in pool.tolist()], np.float32)
    fused = score_fusion(cosines[pool], lexical)
    return [Fused(int(pool[i]), float(fused[i])) for i in best_first(fused)[:k].tolist()]


def meaning_score(cosine: float, *, unrelated: float) -> float:
    """How far a cosine is on the way from what unrelated texts reach (0) to equal texts (1).

    Example:
        >>> meaning_score(0.625, unrelated=0.25), meaning_score(0.1, unrelated=0.25)
        (0.5, 0.0)
    """
    return min(max((cosine - unrelated) / (1.0 - unrelated), 0.0), 1.0)


def word_weights(counts: Mapping[str, int], *, n_passages: int) -> dict[str, float]:
    """BM25's inverse document frequency of each word, from how many passages have it, never below 0.

    Stop words have none: a query of them alone says nothing, however many a passage holds.
    """
    return {
        word: math.log(1 + (n_passages - n + 0.5) / (n + 0.5))
        for word, n in counts.items()
        if word not in STOP_WORDS
    }


def words_score(held: Collection[str], weights: Mapping[str, float]) -> float:
    """How much of a query's words a passage holds, by their weights: 1.0 for all, 0.0 for none or one.

    The share of the weights that is held, without the heaviest word, because nearly every query of several
    words has a passage that holds one of them. The more is held, the less that word is missing from the sum
    of all weights, so that all words make 1.0; the power was chosen to keep the scores of random words low. A
    query of one word is held, 1.0, or not.

    Example:
        >>> weights = {"llamas": 3.0, "live": 1.0, "peru": 2.0}
        >>> round(words_score(["llamas", "peru"], weights), 2), words_score(["peru"], weights)
        (0.44, 0.0)
    """
    if len(weights) == 1:
        return float(len(held))
    found = [weights[word] for word in held if word in weights]
    if not found:
        return 0.0
    held_weight, all_weight, heaviest = sum(found), sum(weights.values()), max(found)
    return (held_weight - heaviest) / (all_weight - heaviest * (held_weight / all_weight) ** 4)


def first_score(meaning: float | None, words: float | None) -> float:
    """One score of the first stage; of both kinds the mean, words weighing half as in `score_fusion`."""
    if meaning is None or words is None:
        return (meaning or 0.0) + (words or 0.0)
    return (2 * meaning + words) / 3
