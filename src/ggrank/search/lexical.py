"""BM25 on SQLite's full-text index FTS5, which gets the terms of a text and stems them as English."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from ggrank.errors import EngineError
from ggrank.search.words import holds, is_beginning, parse, query_words, quoted, terms, words_of

ENOUGH = 20_000
"""Passages that BM25 scores for a query of up to ten words, about; fewer for a longer one, which takes longer
for each. Where more passages have one of its words, the rarest words choose, and all words score."""

MOST_WORDS = 32
"""Distinct words of a query that count: those that are rare, and that the query says often. Over 300,000
passages a pasted paragraph of 200 words takes 0.3 seconds, and without this limit 4. nDCG@10 on CISI, whose
queries have up to 131 words, is 0.359 with it and 0.347 without."""

_SPACE = re.compile(r"\s+")
_MOST_SHOWN = 200


@dataclass(frozen=True)
class LexicalHit:
    """The position of a text in the input, or a passage's row, and its BM25: comparable within one search."""

    position: int
    score: float


class Bm25:
    """BM25 over texts in memory (k1 1.2, b 0.75); their words are kept, not they themselves."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._db = sqlite3.connect(":memory:")
        create_words(self._db)
        rows = enumerate(map(terms, texts))
        self._db.executemany("INSERT INTO words (rowid, terms) VALUES (?, ?)", rows)

    def search(self, query: str, *, k: int) -> list[LexicalHit]:
        """The ``k`` best texts that share a word with the query, best first, ties in input order."""
        return search_words(self._db, query, k=k)


def create_words(db: sqlite3.Connection) -> None:
    """Creates the FTS5 table ``words`` with one column, ``terms``, which keeps no text.

    A row goes in with ``INSERT INTO words (rowid, terms) VALUES (?, terms(?))`` and out with
    ``INSERT INTO words (words, rowid, terms) VALUES ('delete', ?, terms(?))``, by the same text.
    """
    add_functions(db)
    try:
        db.execute("CREATE VIRTUAL TABLE words USING fts5(terms, content='', tokenize='porter ascii')")
    except sqlite3.OperationalError as error:
        if "no such module" not in str(error):
            raise
        found = f"SQLite {sqlite3.sqlite_version} has no FTS5"
        raise EngineError(
            f"BM25 needs SQLite's FTS5; this Python's {found}. Use a Python from python.org, uv, conda "
            "or your system, all of which have it"
        ) from error


def add_functions(db: sqlite3.Connection) -> None:
    """Gives a connection the SQL function ``terms``, which it needs to write to ``words``."""
    db.create_function("terms", 1, terms, deterministic=True)


def count_words(db: sqlite3.Connection, query: str) -> dict[str, int]:
    """For each word of a query how many passages hold it, counted as far as a search needs to know."""
    words = query_words(query)
    statement = "SELECT count(*) FROM (SELECT rowid FROM words WHERE words MATCH ? LIMIT ?)"
    most = _enough(words) + 1
    return {word: db.execute(statement, (quoted(word), most)).fetchone()[0] for word in words}


def search_words(
    db: sqlite3.Connection,
    query: str,
    *,
    k: int,
    counts: Mapping[str, int] | None = None,
    rows: Sequence[int] | None = None,
) -> list[LexicalHit]:
    """What `Bm25.search` gives, from the table ``words`` of any database.

    No character of the query is an operator. ``counts`` are those of `count_words`, where they are known;
    ``rows`` those that may be found, None for all.
    """
    counts = count_words(db, query) if counts is None else counts
    expression, times = _expression(db, query_words(query), counts)
    if not expression:
        return []
    # Without the plus sign FTS5 would search once for each row that may be found: 5 seconds for 2,000 rows.
    rule, values = ("", []) if rows is None else ("AND +rowid IN (SELECT value FROM json_each(?))", [rows])
    # FTS5's bm25() is negative: the smaller, the better. https://sqlite.org/fts5.html#the_bm25_function
    found = db.execute(
        f"SELECT rowid, bm25(words) FROM words WHERE words MATCH ? {rule} ORDER BY 2, 1 LIMIT ?",
        (expression, *map(json.dumps, values), min(k, 2**62)),
    )
    return [LexicalHit(row, -score / times) for row, score in found]


def held_words(query: str, texts: Sequence[str]) -> list[list[str]]:
    """For each text the query's words that it holds."""
    words = query_words(query)
    held = [terms(text).split() for text in texts]
    stems = _stems([*words, *chain(*held)])
    found = []
    for text in held:
        known = {stems[term] for term in text}
        found.append([word for word in words if _is_held(word, stems[word], known)])
    return found


def find_words(query: str, text: str) -> list[tuple[int, int]]:
    """Where the query's words stand in a text: spans of its characters, in order, for highlighting."""
    words = [*query_words(parse(query).text)][:_MOST_SHOWN]
    places = list(words_of(text))
    stems = _stems([*words, *chain.from_iterable(term.split() for _, _, term in places)])
    spans: list[tuple[int, int]] = []
    for start, end, term in places:
        known = {stems[part] for part in term.split()}
        if any(_is_held(word, stems[word], known) for word in words):
            if spans and start < spans[-1][1]:  # pairs of characters overlap
                start = spans.pop()[0]
            spans.append((start, end))
    return spans


def find_phrases(query: str, text: str) -> list[tuple[int, int]]:
    """Where the phrases that a query has in quotes stand in a text: spans of its characters, in order."""
    places, spans = list(words_of(text)), []
    for phrase in (terms(phrase).split() for phrase in parse(query).required):
        last = phrase[-1]
        for i in range(len(places) - len(phrase) + 1):
            found = places[i : i + len(phrase)]
            if holds(" ".join(term for _, _, term in found), " ".join(phrase)):
                start, end, _ = found[-1]
                spans.append((found[0][0], start + len(last) if is_beginning(last) else end))
    return sorted(spans)


def _stems(words: Iterable[str]) -> dict[str, str]:
    """The stem of each word, by the stemmer that the search uses: FTS5's."""
    different = list(dict.fromkeys(words))
    with closing(sqlite3.connect(":memory:")) as db:
        create_words(db)
        db.executemany("INSERT INTO words (rowid, terms) VALUES (?, ?)", enumerate(different))
        db.execute("CREATE VIRTUAL TABLE stem USING fts5vocab (words, instance)")
        return {different[row]: stem for row, stem in db.execute("SELECT doc, term FROM stem")}


def _is_held(word: str, stem: str, known: Collection[str]) -> bool:
    return any(term.startswith(word) for term in known) if is_beginning(word) else stem in known


def best_window(text: str, spans: Sequence[tuple[int, int]], *, n_characters: int) -> tuple[int, int]:
    """The span of a text, of about ``n_characters``, that has most different ones of the given spans."""

    def n_different(first: int) -> int:
        inside = (text[a:b].casefold() for a, b in spans[first:] if b <= spans[first][0] + n_characters)
        return len(set(inside))

    best = spans[max(range(len(spans)), key=n_different)][0] if spans else 0
    start = max(0, min(best - n_characters // 4, len(text) - n_characters))
    end = min(len(text), start + n_characters)
    if start and (space := _SPACE.search(text, start, best)):
        start = space.end()
    if end < len(text) and (last := text.rfind(" ", best, end)) > 0:
        end = last
    return start, end


def _enough(words: Counter[str]) -> int:
    return ENOUGH * 10 // max(10, min(len(words), MOST_WORDS))


def _expression(db: sqlite3.Connection, words: Counter[str], counts: Mapping[str, int]) -> tuple[str, int]:
    """``rare OR rare OR common`` for FTS5, from the words that the table knows, and how often it counts each.

    With more than `ENOUGH` passages it becomes ``(rare OR rare) AND (rare OR rare OR common OR common)``:
    only passages with a rare word are scored, and every word counts twice. Over a million passages that
    is 3 times as fast (at the ninety-fifth percentile), and gave the same 20 best.
    """
    enough = _enough(words)
    counted = sorted(_most_telling(db, words, counts))
    rare: list[str] = []
    total = 0
    for n, word in counted:
        total += n
        if rare and total > enough:
            break
        rare.append(word)
    common = [word for _, word in counted[len(rare) :]]
    if not common:
        return " OR ".join(rare), 1
    return f"({' OR '.join(rare)}) AND ({' OR '.join(rare + common + common)})", 2


def _most_telling(
    db: sqlite3.Connection, words: Counter[str], counts: Mapping[str, int]
) -> list[tuple[int, str]]:
    """The `MOST_WORDS` words with the most weight: how many passages have each, and the word."""
    counted = [(counts[word], quoted(word), times) for word, times in words.items() if counts[word]]
    if len(counted) > MOST_WORDS:
        n_passages = db.execute("SELECT count(*) FROM words_docsize").fetchone()[0]
        counted.sort(key=lambda one: -one[2] * math.log(1 + n_passages / one[0]))
    return [(n, word) for n, word, _ in counted[:MOST_WORDS]]
