"""Pairs and passages -> candidate lists with the teachers' scores, for both students, in one file.

Every list is a query, the documents that the three embedders together, BM25 and chance find for it, and for
each of them the three cosines and the BM25 score.

    python training/prepare.py DATA work/lists.npz [--share 1.0]

``DATA`` also holds the folders of the two teachers that are not bundled. Vectors are kept beside the lists:
an interrupted run goes on after the last block of them.
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
from backbone import load_tokenizer, tokenize
from bm25s.stopwords import STOPWORDS_EN
from lexical import Lexical
from numpy.typing import NDArray

from ggrank import Llama, convert

SEED = 20261121
FROM_EMBEDDERS, FROM_BM25, AT_RANDOM = 24, 12, 4
"""Candidates of a query."""
WIDTH = 40
N_CTX = 256
"""Tokens of a text that the teachers read: all but the longest."""
BLOCK = 4096
"""Texts whose vectors are computed and saved together."""

SEARCH = "Represent this sentence for searching relevant passages: "
TEACHERS = {"all-minilm-l6-v2": "", "snowflake-arctic-embed-xs": SEARCH, "bge-small-en-v1.5": SEARCH}
"""The embedders, and the prefix of each for queries."""

PAIRS = {
    "sections": 14000,
    "medquad": 3500,
    "tldr": 1500,
    "msrd": 1500,
    "nq": 2128,
    "covidqa": 1235,
    "scifact_train": 622,
}
"""Labelled pairs taken of each source."""
PASSAGES = 11000
CLOZE = 6000
"""Passages of which a sentence becomes the query."""
SENTENCES, SENTENCE_QUERIES = 14000, 3000
LONG, LONG_QUERIES = 2500, 2500

NEEDS = (
    "I am looking for information about {}.",
    "what is known about {} .",
    "articles that deal with {} .",
    "How can one find out more about {}?",
)
"""Ways to say what is needed in a sentence."""
QUESTION = re.compile(r"(wh(o|at|en|ere|ich|y)|how|is|are|was|were|do|does|did|can|could|should)\b", re.I)


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


def as_people_write(query: str, rng: np.random.Generator) -> str:
    """The query as it is, as keywords, in lower case, or as a statement of need."""
    words = re.findall(r"[\w'-]+", query)
    kept = [word for word in words if word.lower() not in STOPWORDS_EN]
    turn = rng.random()
    if turn < 0.2 and len(kept) >= 2:
        first = int(rng.integers(max(1, len(kept) - 5)))
        return " ".join(kept[first : first + 6]).lower()
    if turn < 0.3:
        return query.lower()
    if turn < 0.4 and len(words) <= 10 and not query.endswith("?"):
        return str(rng.choice(NEEDS)).format(query.rstrip(".").lower())
    return query


def bm25_weight(query: str, pool: str) -> float:
    """BM25's weight in the teacher: low for questions over sentences, high for many words over passages."""
    if pool == "sentences":
        return 0.1
    if QUESTION.match(query) and len(query.split()) < 15:
        return 0.25
    return 0.6


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
            query = as_people_write(rows[row]["query"], rng)
            pool.ask(query, position(rows[row]["positive"]), source)
            for text in rows[row].get("negatives", [])[:2]:
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


def teach(pool: Pool, data: Path, output: Path) -> dict[str, NDArray[np.float16]]:
    """The teachers' vectors of a pool's documents and queries, one after the other: shape (n, 3 * 384)."""
    vectors = {"documents": [], "queries": []}
    for name, prefix in TEACHERS.items():
        folder = data / name
        model = convert_once(folder, output.parent) if folder.is_dir() else name
        with Llama.load(model, n_ctx=N_CTX) as llama:
            for kind, texts in (("documents", pool.documents), ("queries", pool.queries)):
                wanted = [prefix + text for text in texts] if kind == "queries" else texts
                blocks = [
                    block_of(llama, wanted[i : i + BLOCK], output, f"{pool.name}-{kind}-{name}-{i}")
                    for i in range(0, len(wanted), BLOCK)
                ]
                vectors[kind].append(np.concatenate(blocks))
    return {kind: np.concatenate(parts, axis=1) for kind, parts in vectors.items()}


def block_of(llama: Llama, texts: list[str], output: Path, name: str) -> NDArray[np.float16]:
    """Vectors of a block, computed or as an earlier run has saved them."""
    path = output.parent / "vectors" / f"{name}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors = llama.embed_many(texts).astype(np.float16)
        np.save(path.with_suffix(".part.npy"), vectors)
        path.with_suffix(".part.npy").replace(path)
        print(f"{path.stem}: {len(texts)} texts", flush=True)
    return np.load(path)


def convert_once(folder: Path, work: Path) -> Path:
    """A teacher as q8_0 GGUF."""
    path = work / f"{folder.name}-q8_0.gguf"
    return path if path.is_file() else convert(folder, path)


def mine(pool: Pool, vectors: dict[str, NDArray[np.float16]], rng: np.random.Generator) -> dict[str, NDArray]:
    """Candidates (n, WIDTH), cosines (n, WIDTH, 3) and BM25 scores.

    -1 fills up; column 0 is the positive, where there is one.
    """
    started, n_teachers = time.monotonic(), len(TEACHERS)
    documents = vectors["documents"].astype(np.float32).reshape(len(pool.documents), n_teachers, -1)
    queries = vectors["queries"].astype(np.float32).reshape(len(pool.queries), n_teachers, -1)
    lexical = Lexical(pool.documents)
    shape = (len(pool.queries), WIDTH)
    candidates = np.full(shape, -1, np.int32)
    cosines, bm25 = np.zeros((*shape, n_teachers), np.float32), np.zeros(shape, np.float32)
    spread = np.stack([(documents[:2000, k] @ queries[:500, k].T).std() for k in range(n_teachers)])
    for first in range(0, len(queries), 256):
        block = queries[first : first + 256]
        found_by = np.stack([block[:, k] @ documents[:, k].T for k in range(n_teachers)])
        together = np.tensordot(1 / spread, found_by, 1)
        for row, cosine in enumerate(together, start=first):
            words, positive = lexical.scores(pool.queries[row]), pool.positives[row]
            near, alike = best(cosine, FROM_EMBEDDERS), best(words, FROM_BM25)
            chance = rng.integers(len(documents), size=AT_RANDOM).tolist()
            ordered = dict.fromkeys([*([] if positive < 0 else [positive]), *near, *alike, *chance])
            found = np.array(list(ordered)[:WIDTH])
            candidates[row, : len(found)] = found
            cosines[row, : len(found)] = found_by[:, row - first, found].T
            bm25[row, : len(found)] = words[found]
    print(f"{pool.name}: mined in {time.monotonic() - started:.0f} s", flush=True)
    return {"candidates": candidates, "cosine": cosines, "bm25": bm25, "spread": spread}


def best(scores: NDArray[np.float32], n: int) -> list[int]:
    """Positions of the highest scores, the highest first."""
    top = np.argpartition(-scores, n)[:n]
    return top[np.argsort(-scores[top])].tolist()


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
    tokenizer = load_tokenizer()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    first = main_pool(arguments.data / "train", rng, arguments.share)
    pools = [first, sentence_pool(first, rng, arguments.share), long_pool(first, rng, arguments.share)]
    arrays: dict[str, NDArray] = {}
    for pool in pools:
        vectors = teach(pool, arguments.data, arguments.output)
        arrays.update({f"{pool.name}.{key}": value for key, value in mine(pool, vectors, rng).items()})
        for kind, texts in (("documents", pool.documents), ("queries", pool.queries)):
            ids, starts = packed(tokenize(tokenizer, texts, limit=500))
            arrays[f"{pool.name}.{kind}"], arrays[f"{pool.name}.{kind}_starts"] = ids, starts
            arrays[f"{pool.name}.{kind}_vectors"] = vectors[kind]
        arrays[f"{pool.name}.labelled"] = np.array(pool.positives) >= 0
        arrays[f"{pool.name}.sources"] = np.array(pool.sources)
        arrays[f"{pool.name}.bm25_weight"] = np.float32([bm25_weight(q, pool.name) for q in pool.queries])
    np.savez(arguments.output, **arrays)
    print({pool.name: (len(pool.documents), len(pool.queries)) for pool in pools})


if __name__ == "__main__":
    main()
