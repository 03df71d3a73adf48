"""Pairs and passages -> candidate lists with the teacher's two scores, in one file.

Every list is a query, the documents that the embedder and BM25 find for it, and for each of them the
cosine and the BM25 score. Knows the sources and how queries are made of them; not how training uses them.

    python training/prepare.py DATA work/lists.npz [--share 1.0]
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from backbone import Bert, embed, load_tokenizer, tokenize
from lexical import Lexical
from numpy.typing import NDArray

SEED = 20261121
FROM_EMBEDDER, FROM_BM25 = 30, 12
"""Candidates of a query, by cosine and by BM25."""
WIDTH = 40
MINING_LENGTH = 160
"""Tokens of a document that the embedder reads here: enough for a teacher, in half the time."""

PAIRS = {
    "sections": 22000,
    "medquad": 6000,
    "tldr": 2500,
    "msrd": 1500,
    "nq": 2128,
    "covidqa": 1235,
    "scifact_train": 622,
}
"""Labelled pairs taken of each source."""
PASSAGES = 34000
CLOZE = 9000
"""Passages of which a sentence becomes the query."""
SENTENCES, SENTENCE_QUERIES = 30000, 4000
LONG, LONG_QUERIES = 6000, 4000


@dataclass
class Pool:
    """Documents that are searched together, and the queries asked of them."""

    name: str
    documents: list[str]
    queries: list[str] = field(default_factory=list)
    positives: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def ask(self, query: str, positive: int, source: str) -> None:
        """Adds a query; ``positive`` is the position of its document, -1 where only the teacher judges."""
        self.queries.append(query)
        self.positives.append(positive)
        self.sources.append(source)


def read(path: Path) -> Iterator[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def sentences(text: str) -> list[str]:
    """Sentences of 30 to 400 characters."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text) if 30 <= len(part) <= 400]


def without(text: str, sentence: str) -> str:
    return " ".join(text.replace(sentence, " ").split())


def main_pool(data: Path, rng: np.random.Generator, share: float) -> Pool:
    """Labelled pairs of all sources and cloze queries, one pool: negatives come from everywhere."""
    pool = Pool("main", [])
    place: dict[str, int] = {}

    def position(text: str) -> int:
        if text not in place:
            place[text] = len(pool.documents)
            pool.documents.append(text)
        return place[text]

    for source, count in PAIRS.items():
        rows = list(read(data / f"{source}.jsonl.gz"))
        for row in rng.permutation(len(rows))[: int(count * share)]:
            pool.ask(rows[row]["query"], position(rows[row]["positive"]), source)
            for text in rows[row].get("negatives", [])[:4]:
                position(text)
    rows = list(read(data / "passages.jsonl.gz"))
    for number, row in enumerate(rng.permutation(len(rows))[: int(PASSAGES * share)]):
        text, cloze = rows[row]["text"], number < CLOZE * share
        parts = sentences(text) if cloze else []
        if len(parts) < 3:
            position(text)
            continue
        first = int(rng.integers(len(parts)))
        taken = parts[first : first + (2 if rng.random() < 0.2 else 1)]
        rest = text
        if rng.random() < 0.9:  # else the sentence stays, as words of a query do in use
            for part in taken:
                rest = without(rest, part)
        pool.ask(" ".join(taken), position(rest), "cloze")
    return pool


def sentence_pool(main: Pool, rng: np.random.Generator, share: float) -> Pool:
    """Single sentences as documents, as lists of answers have them; the teacher judges alone."""
    documents, queries = [], []
    asked = ("sections", "nq", "covidqa", "medquad")
    questions = [row for row, source in enumerate(main.sources) if source in asked]
    for row in rng.permutation(questions)[: int(SENTENCE_QUERIES * share)]:
        documents += sentences(main.documents[main.positives[row]])
        queries.append(main.queries[row])
    for row in rng.permutation(len(main.documents)):
        if len(documents) >= SENTENCES * share:
            break
        documents += sentences(main.documents[row])[:6]
    pool = Pool("sentences", list(dict.fromkeys(documents)))
    for query in queries:
        pool.ask(query, -1, "sentences")
    return pool


def long_pool(main: Pool, rng: np.random.Generator, share: float) -> Pool:
    """Two documents run together, 250 to 500 tokens: what comes late counts as well."""
    asked = ("sections", "medquad", "nq", "cloze", "covidqa")
    rows = [row for row, source in enumerate(main.sources) if source in asked]
    chosen = rng.permutation(rows)[: int(LONG * share)]
    pool = Pool("long", [])
    for number, row in enumerate(chosen):
        own = main.documents[main.positives[row]]
        other = main.documents[int(rng.integers(len(main.documents)))]
        parts = [own, other] if rng.random() < 0.5 else [other, own]
        pool.documents.append(" ".join(parts))
        if number < LONG_QUERIES * share:
            pool.ask(main.queries[row], number, "long")
    return pool


def mine(pool: Pool, bert, tokenizer) -> dict[str, NDArray]:
    """Candidates (n, WIDTH) with cosines and BM25 scores; -1 fills up, column 0 is the positive."""
    started = time.monotonic()
    limit = 256 if pool.name == "long" else MINING_LENGTH
    documents = embed(bert, tokenize(tokenizer, pool.documents, limit=limit), limit=limit)
    queries = embed(bert, tokenize(tokenizer, pool.queries, limit=limit), limit=limit)
    seconds = time.monotonic() - started
    print(f"{pool.name}: embedded {len(documents)} + {len(queries)} after {seconds:.0f} s", flush=True)
    lexical = Lexical(pool.documents)
    shape = (len(pool.queries), WIDTH)
    candidates = np.full(shape, -1, np.int32)
    cosines, bm25 = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for row, (query, positive) in enumerate(zip(pool.queries, pool.positives, strict=True)):
        cosine, lexical_scores = documents @ queries[row], lexical.scores(query)
        near = np.argpartition(-cosine, FROM_EMBEDDER)[:FROM_EMBEDDER]
        alike = np.argpartition(-lexical_scores, FROM_BM25)[:FROM_BM25]
        near, alike = near[np.argsort(-cosine[near])], alike[np.argsort(-lexical_scores[alike])]
        first = [] if positive < 0 else [positive]
        found = np.array(list(dict.fromkeys([*first, *near.tolist(), *alike.tolist()]))[:WIDTH])
        candidates[row, : len(found)] = found
        cosines[row, : len(found)], bm25[row, : len(found)] = cosine[found], lexical_scores[found]
    print(f"{pool.name}: mined after {time.monotonic() - started:.0f} s", flush=True)
    return {"candidates": candidates, "cosine": cosines, "bm25": bm25}


def packed(ids: list[NDArray[np.int32]]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Sequences end to end, and where each begins (n + 1)."""
    return np.concatenate(ids), np.concatenate([[0], np.cumsum([len(row) for row in ids])])


def main() -> None:
    parser = argparse.ArgumentParser(description="Mine candidate lists for training.")
    parser.add_argument("data", type=Path, help="folder of the training pairs")
    parser.add_argument("output", type=Path, help="the .npz to write")
    parser.add_argument("--share", type=float, default=1.0, help="of the counts in this file")
    arguments = parser.parse_args()
    rng = np.random.default_rng(SEED)
    tokenizer, bert = load_tokenizer(), Bert().bfloat16().eval()
    first = main_pool(arguments.data, rng, arguments.share)
    pools = [first, sentence_pool(first, rng, arguments.share), long_pool(first, rng, arguments.share)]
    arrays: dict[str, NDArray] = {}
    for pool in pools:
        arrays.update({f"{pool.name}.{key}": value for key, value in mine(pool, bert, tokenizer).items()})
        for kind, texts in (("documents", pool.documents), ("queries", pool.queries)):
            ids, starts = packed(tokenize(tokenizer, texts, limit=500))
            arrays[f"{pool.name}.{kind}"], arrays[f"{pool.name}.{kind}_starts"] = ids, starts
        arrays[f"{pool.name}.labelled"] = np.array(pool.positives) >= 0
        arrays[f"{pool.name}.sources"] = np.array(pool.sources)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    np.savez(arguments.output, **arrays)
    print({pool.name: (len(pool.documents), len(pool.queries)) for pool in pools})


if __name__ == "__main__":
    main()
