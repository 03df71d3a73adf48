"""BM25: passages by the words that they share with a query, on SQLite's full-text index FTS5.

Knows words and SQL tables; no vectors and no models. `Bm25` holds texts in memory; a store on disk keeps
the same table beside its documents, and so writes both in one transaction.

Words are compared without case and accents, English ones by their Porter stem; numbers are words. Scripts
without spaces between words (Chinese, Japanese, Thai) are not parted, so only whole runs of them match.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from ggrank.errors import EngineError, InputError
from ggrank.text.inputs import check_text, check_texts

ENOUGH = 50_000
"""Passages that BM25 scores for one query, about: each takes a microsecond. Where more hold one of its
words, the rarest words choose the passages, and all words score them."""

MOST_WORDS = 200
"""Distinct words of a query that count, the first ones: FTS5's expressions have a limit."""

LONGEST_WORD = 1_000
"""Characters; more is no word."""

_WORD = re.compile(r"(?:[^\W_]|[\u0300-\u036f])+")

# Snowball's English list (https://snowballstem.org/algorithms/english/stop.txt, BSD) without the words that
# have an apostrophe. Left out of a query unless it has no others. On four test sets nDCG@10 was higher by
# 0.002 to 0.012 than with all words.
_STOP_WORDS = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers
herself it its itself they them their theirs themselves what which who whom this that these those am is are
was were be been being have has had having do does did doing would should could ought a an the and but if or
because as until while of at by for with about against between into through during before after above below
to from up down in out on off over under again further then once here there when where why how all any both
each few more most other some such no nor not only own same so than too very
"""


@dataclass(frozen=True)
class LexicalHit:
    """A passage that shares a word with the query.

    Attributes:
        position: its place in the input, from 0; in a store, its row.
        score: BM25, above 0, higher is better; comparable within one search only.
    """

    position: int
    score: float


class Bm25:
    """BM25 over texts in memory (k1 1.2, b 0.75), safe to use from several threads.

    Args:
        texts: any number of strings, also from a generator; their words are kept, not they themselves.

    Raises:
        InputTypeError: an item is not a string.
        EngineError: this Python's SQLite has no FTS5.

    Example:
        >>> from ggrank.search.lexical import Bm25
        >>> bm25 = Bm25(["Llamas graze.", "Paris is a city.", "Bread is baked."])
        >>> [hit.position for hit in bm25.search("grazing llama", k=2)]
        [0]
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._size = 0
        create_words(self._db)
        self.add(texts)

    def add(self, texts: Iterable[str]) -> None:
        """Adds texts behind those that are there; all of them, or none where one is no string."""
        checked = check_texts(texts, "text")
        with self._lock, self._db:
            rows = enumerate(checked, self._size)
            added = self._db.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", rows)
            self._size += max(added.rowcount, 0)

    def search(self, query: str, *, k: int) -> list[LexicalHit]:
        """The ``k`` best texts that share a word with the query, best first, ties in input order.

        Args:
            query: any string; none of its characters is an operator. Of a long one the first
                `MOST_WORDS` distinct words count.

        Raises:
            InputError: ``k`` is not a whole number of at least 1.
            InputTypeError: the query is not a string.
        """
        with self._lock:
            return search_words(self._db, query, k=k)


def create_words(db: sqlite3.Connection, *, content: str = "") -> None:
    """Creates the FTS5 table ``words`` with one column, ``text``.

    Args:
        content: a table with a column ``text`` whose rows are indexed; none is kept without it.

    Raises:
        EngineError: this Python's SQLite has no FTS5.
    """
    tokens = "porter unicode61 remove_diacritics 2"
    try:
        db.execute(f"CREATE VIRTUAL TABLE words USING fts5(text, content='{content}', tokenize='{tokens}')")
    except sqlite3.OperationalError as error:
        if "no such module" not in str(error):
            raise
        found = f"SQLite {sqlite3.sqlite_version} has no FTS5"
        raise EngineError(
            f"BM25 needs SQLite's FTS5; this Python's {found}. Use a Python from python.org, uv, conda "
            "or your system, all of which have it"
        ) from error


def search_words(db: sqlite3.Connection, query: str, *, k: int) -> list[LexicalHit]:
    """What `Bm25.search` gives, from the table ``words`` of any database."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k must be a whole number of at least 1; found {k!r}")
    expression = _expression(db, query_words(check_text(query, "the query")))
    if not expression.text:
        return []
    # FTS5's bm25() is negative: the smaller, the better. https://sqlite.org/fts5.html#the_bm25_function
    rows = db.execute(
        "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ? ORDER BY bm25(words), rowid LIMIT ?",
        (expression.text, min(k, 2**62)),
    )
    return [LexicalHit(row, score / expression.times) for row, score in rows]


def snippet(db: sqlite3.Connection, query: str, *, row: int, n_words: int) -> str:
    """The part of a row's text that has most of the query's words; "" where it has none.

    Args:
        n_words: how long, 64 at most.
    """
    expression = " OR ".join(f'"{word}"' for word in query_words(query))
    if not expression:
        return ""
    found = db.execute(
        "SELECT snippet(words, 0, '', '', '...', ?) FROM words WHERE words MATCH ? AND rowid = ?",
        (min(n_words, 64), expression, row),
    ).fetchone()
    return found[0] if found else ""


def query_words(query: str) -> list[str]:
    """The distinct words of a query, in order, in lower case, stop words left out.

    Example:
        >>> query_words("What is the AND of 'bits'?"), query_words("To be or not to be")
        (['bits'], ['to', 'be', 'or', 'not'])
    """
    found = (match[0].lower() for match in _WORD.finditer(unicodedata.normalize("NFC", query)))
    sensible = (word for word in islice(found, 100 * MOST_WORDS) if len(word) <= LONGEST_WORD)
    words = list(dict.fromkeys(sensible))[:MOST_WORDS]
    stop_words = _STOP_WORDS.split()
    return [word for word in words if word not in stop_words] or words


@dataclass(frozen=True)
class _Expression:
    """What FTS5 is asked, "" for nothing, and how many times it counts each word."""

    text: str
    times: int = 1


def _expression(db: sqlite3.Connection, words: list[str]) -> _Expression:
    """``rare OR rare OR common`` for FTS5, from the words that the table knows.

    With more than `ENOUGH` passages it becomes ``(rare OR rare) AND (rare OR rare OR common OR common)``:
    only passages with a rare word are scored, and every word counts twice. Over a million passages that
    is 3 times as fast (at the ninety-fifth percentile), and gave the same 20 best.
    """
    counted = sorted((n, word) for word in words if (n := _count(db, word)))
    rare: list[str] = []
    total = 0
    for n, word in counted:
        total += n
        if rare and total > ENOUGH:
            break
        rare.append(f'"{word}"')
    common = [f'"{word}"' for _, word in counted[len(rare) :]]
    if not common:
        return _Expression(" OR ".join(rare))
    return _Expression(f"({' OR '.join(rare)}) AND ({' OR '.join(rare + common + common)})", times=2)


def _count(db: sqlite3.Connection, word: str) -> int:
    """Passages with the word."""
    count: int = db.execute("SELECT count(*) FROM words WHERE words MATCH ?", (f'"{word}"',)).fetchone()[0]
    return count
