"""A search over one committed state of an index: passages by meaning, by words or by both, then reranked."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
from ggrank.search.lexical import Bm25, LexicalHit, count_words, search_words
from ggrank.search.models import Reranker
from ggrank.search.store import Snapshot
from ggrank.search.words import query_words
from ggrank.types import Hybrid

By: TypeAlias = Literal["both", "meaning", "words"]

FUSION_DEPTH = 100
"""How far down both rankings are fused, at least; with fewer, ``retrieve_k`` would change the order."""

LEXICAL_DEPTH = 1_000
"""How many passages BM25 names, at least: those that the embedder found have their scores among them."""

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
    counts = count_words(snapshot.db, query.text) if query.by != "meaning" else {}
    depth, n_lexical = k, max(k, LEXICAL_DEPTH)
    lexical = _lexical(snapshot, query, counts, n_lexical)
    while True:
        if query.by == "words" and depth > n_lexical == len(lexical):  # texts that are equal fill it
            n_lexical = depth
            lexical = _lexical(snapshot, query, counts, n_lexical)
        order = _order(query, cosines, lexical, depth)
        texts = _different_texts(snapshot, query, order)
        if len(texts) >= k or len(order) < depth:
            break
        depth *= 4
    found = list(texts.items())[:k]
    weights = word_weights(counts, n_passages=snapshot.n_passages())
    return _hits(snapshot, query, found, cosines, lexical, weights)


def _lexical(snapshot: Snapshot, query: Query, counts: Mapping[str, int], k: int) -> list[LexicalHit]:
    if query.by == "meaning":
        return []
    among = f"SELECT passage {_PLACES} WHERE {query.condition}" if query.condition else ""
    return search_words(snapshot.db, query.text, k=k, counts=counts, among=among, values=query.values)


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
    places = []
    for path, row, page, headings, line, start, stop, name, title, metadata, _ in rows:
        if row.startswith("line "):  # of a table or of JSON lines
            line = int(row.removeprefix("line "))
        id = path if name is None and not row else name
        facts = json.loads(metadata)
        places.append(Place(path or "", headings, page or row, line, start, stop, id, title, facts))
    return rows[0][-1], places


def _hits(
    snapshot: Snapshot,
    query: Query,
    texts: Sequence[tuple[str, _Text]],
    cosines: NDArray[np.float32],
    lexical: Sequence[LexicalHit],
    weights: Mapping[str, float],
) -> list[Hit]:
    bm25 = {hit.position: (rank, hit.score) for rank, hit in enumerate(lexical, 1)}
    read = [embedded_text(found.headings, text) for text, found in texts]
    held = _held_words(query.text, read)
    hits = []
    for i, (text, found) in enumerate(texts):
        row = found.first.position
        cosine = meaning = meaning_rank = None
        if len(cosines):
            cosine, meaning_rank = float(cosines[row]), 1 + int((cosines > cosines[row]).sum())
            meaning = meaning_score(cosine, unrelated=snapshot.unrelated)
        words = None if query.by == "meaning" else words_score(held[i], weights)
        words_rank, score = bm25.get(row, (None, None))
        hits.append(
            Hit(
                **vars(found.places[0]),
                text=text,
                score=first_score(meaning, words),
                cosine=cosine,
                words=tuple(held[i]),
                others=tuple(found.places[1:]),
                explanation=Explanation(meaning_rank, words_rank, score, found.first.score),
            )
        )
    return hits


def _held_words(query: str, texts: Sequence[str]) -> list[list[str]]:
    """For each text the query's words that it holds."""
    bm25 = Bm25(texts)
    with_word = {
        word: {hit.position for hit in bm25.search(word, k=len(texts))}
        for word in (query_words(query) if texts else ())
    }
    return [[word for word, rows in with_word.items() if i in rows] for i in range(len(texts))]


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
    """The ``k`` best of a ranking by cosine and one by BM25.

    Args:
        cosines: of every document, shape (n,); -inf for a row that is none.
        hits: the first `LEXICAL_DEPTH` or more; positions in ``cosines``.
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

    Args:
        unrelated: of the model, see `ggrank.search.models.unrelated_cosine`.

    Example:
        >>> meaning_score(0.625, unrelated=0.25), meaning_score(0.1, unrelated=0.25)
        (0.5, 0.0)
    """
    return min(max((cosine - unrelated) / (1.0 - unrelated), 0.0), 1.0)


def word_weights(counts: Mapping[str, int], *, n_passages: int) -> dict[str, float]:
    """What each word of a query weighs: BM25's inverse document frequency, in the form that is never below 0.

    Args:
        counts: passages with each word; 0 for a word that the index does not have, which weighs most.
    """
    return {word: math.log(1 + (n_passages - n + 0.5) / (n + 0.5)) for word, n in counts.items()}


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
    found = [weights[word] for word in held]
    if not found:
        return 0.0
    held_weight, all_weight, heaviest = sum(found), sum(weights.values()), max(found)
    return (held_weight - heaviest) / (all_weight - heaviest * (held_weight / all_weight) ** 4)


def first_score(meaning: float | None, words: float | None) -> float:
    """One score of the first stage; of both kinds the mean, words weighing half as in `score_fusion`."""
    if meaning is None or words is None:
        return (meaning or 0.0) + (words or 0.0)
    return (2 * meaning + words) / 3
