"""Measures a search index: its scores, its size, and its speed at a million passages.

    python scripts/measure_search.py scores FOLDER     a test set in BEIR's form: corpus.jsonl, queries.jsonl
    python scripts/measure_search.py size [--notes 10000] [--words 400]
    python scripts/measure_search.py speed [--passages 1000000]

``scores`` compares the top scores of the set's own questions with those of fifty queries of random words. The
words come from the set's documents, each different word equally often, so that the index knows them. ``size``
and ``speed`` make up texts and vectors.
"""

from __future__ import annotations

import argparse
import random
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank import Document, Index, Llama
from ggrank.rows.reading import read_rows
from ggrank.search.ranking import By

BATCH = 10_000
BY: tuple[By, ...] = ("meaning", "words", "both")


def scores(folder: Path, reranker: str) -> None:
    """Prints for each kind of search what random words reach, and how many real questions stay below it."""
    documents = _records(folder, "corpus")
    questions = [record["text"] for record in _records(folder, "queries")]
    vocabulary = sorted({word for one in documents for word in re.findall(r"[a-z]{3,}", one["text"].lower())})
    rng = random.Random(0)
    nonsense = [" ".join(rng.sample(vocabulary, rng.randint(4, 12))) for _ in range(50)]
    with Llama.load(reranker) as second, Index.open(":memory:") as index:
        index.add([Document(one["text"], title=one.get("title") or None) for one in documents])
        print(f"{len(documents):,} documents, {len(questions)} questions")
        for name, options in (
            ("meaning", {"by": "meaning"}),
            ("words", {"by": "words"}),
            ("both", {}),
            ("both, reranked", {"reranker": second}),
        ):
            asked: dict[str, Any] = {**options, "top_n": 1}
            random_top, real = (
                np.array(
                    [hits[0].score if (hits := index.search(query, **asked)) else 0.0 for query in queries]
                )
                for queries in (nonsense, questions)
            )
            print(
                f"{name:15} random words: median {np.median(random_top):.3f}, most {random_top.max():.3f}; "
                f"questions: median {np.median(real):.3f}, 5 % below {np.quantile(real, 0.05):.3f}; "
                f"{np.mean(real > random_top.max()):.1%} above all random words"
            )


class RandomEmbedder(Llama):
    """The bundled model for queries, and random vectors for passages, which are too many to compute."""

    _rng = np.random.default_rng(0)

    def embed_many(self, texts: Any, **options: Any) -> NDArray[np.float32]:
        """Random vectors of length 1, shape (n, n_embd)."""
        vectors = self._rng.standard_normal((len(texts), self.n_embd), np.float32)
        found: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return found

    def tokenize(self, text: str) -> Any:
        """Words in place of tokens, whose number is all that is asked for."""
        return text.split()


def size(n_notes: int, n_words: int) -> None:
    """Prints the bytes of an index of notes."""
    with tempfile.TemporaryDirectory() as scratch:
        notes = Path(scratch, "notes")
        notes.mkdir()
        for i, text in enumerate(islice(_texts(n_words), n_notes)):
            (notes / f"{i}.md").write_text(f"# Note {i}\n\n{text}\n")
        with (
            RandomEmbedder.load("all-minilm-l6-v2") as embedder,
            Index.open(Path(scratch, "index"), embedder=embedder) as index,
        ):
            index.update([notes])
            n_passages = len(index)
        n_bytes = sum(path.stat().st_size for path in Path(scratch, "index").rglob("*") if path.is_file())
        n_read = sum(path.stat().st_size for path in notes.iterdir())
        print(f"{n_notes:,} notes of {n_read:,} bytes: {n_passages:,} passages, {n_bytes:,} bytes of index")


def speed(n_passages: int) -> None:
    """Prints how long searches take over generated passages of 80 words."""
    texts = _texts(80)
    with tempfile.TemporaryDirectory() as scratch, RandomEmbedder.load("all-minilm-l6-v2") as embedder:
        with Index.open(scratch, embedder=embedder) as index:
            started = time.perf_counter()
            for first in range(0, n_passages, BATCH):
                index.add(list(islice(texts, min(BATCH, n_passages - first))))
            print(f"{len(index):,} passages in {time.perf_counter() - started:,.0f} s")
            queries = [" ".join(text.split()[:10]) for text in islice(texts, 40)]
            for by in BY:
                index.search(queries[0], by=by)
                found = _milliseconds([partial(index.search, query, by=by) for query in queries])
                print(f"{by}: median {np.median(found):.0f} ms, p95 {np.quantile(found, 0.95):.0f} ms")
            for n_threads in (1, 4):
                started = time.perf_counter()
                with ThreadPoolExecutor(n_threads) as pool:
                    list(pool.map(index.search, queries))
                seconds = time.perf_counter() - started
                print(f"{len(queries)} searches on {n_threads} threads: {seconds:.1f} s")
        for path in sorted(path for path in Path(scratch).rglob("*") if path.is_file()):
            print(f"{path.name}: {path.stat().st_size:,} bytes")


def _milliseconds(calls: Sequence[Callable[[], object]]) -> list[float]:
    found = []
    for call in calls:
        started = time.perf_counter()
        call()
        found.append(1000 * (time.perf_counter() - started))
    return found


def _texts(n_words: int) -> Iterator[str]:
    """Texts of words whose frequencies follow Zipf's law, as those of natural texts do."""
    rng = np.random.default_rng(1)
    while True:
        for row in np.minimum(rng.zipf(1.3, (1_000, 8 * n_words)), 200_000):
            # The most frequent ones, which English has as stop words, would be in every text and query.
            yield " ".join(f"w{number}" for number in row[row > 100][:n_words])


def _records(folder: Path, name: str) -> list[Mapping[str, Any]]:
    path = next(folder.glob(f"{name}.jsonl*"))
    return [row.values for row in read_rows(path, "jsonl")]


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    command = commands.add_parser("scores")
    command.add_argument("folder", type=Path)
    command.add_argument("--reranker", default="ggrank-reranker-mini")
    command = commands.add_parser("size")
    command.add_argument("--notes", type=int, default=10_000)
    command.add_argument("--words", type=int, default=400)
    commands.add_parser("speed").add_argument("--passages", type=int, default=1_000_000)
    given = parser.parse_args()
    if given.command == "scores":
        scores(given.folder, given.reranker)
    elif given.command == "size":
        size(given.notes, given.words)
    else:
        speed(given.passages)


if __name__ == "__main__":
    main()
