"""What a search by words costs over many passages, for queries of one word up to a pasted paragraph.

The passages have 150 made-up words each, whose frequencies follow Zipf's law. A query has words of half of a
passage and as many others. Prints milliseconds for each length of query. 300,000 passages take a minute to
write.

    python scripts/measure_words.py [PASSAGES]
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ggrank.search.lexical import create_words, search_words

N_WORDS, N_QUERIES, BATCH = 200_000, 30, 5_000
LENGTHS = (1, 3, 10, 30, 200)


def main() -> None:
    n_passages = int(sys.argv[1]) if len(sys.argv) > 1 else 300_000
    rng = np.random.default_rng(1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, size)) for size in rng.integers(3, 10, N_WORDS)])
    frequency = 1 / np.arange(1, N_WORDS + 1) ** 1.05
    cumulated = np.cumsum(frequency / frequency.sum())

    def draw(*shape: int) -> list[str]:
        found = words[np.searchsorted(cumulated, rng.random(shape)).clip(0, N_WORDS - 1)]
        return [" ".join(row) for row in found.tolist()]

    with tempfile.TemporaryDirectory() as folder:
        db = sqlite3.connect(Path(folder, "words.sqlite"))
        create_words(db)
        for first in range(0, n_passages, BATCH):
            rows = draw(BATCH, 150)
            db.executemany("INSERT INTO words (rowid, terms) VALUES (?, ?)", enumerate(rows, first))
        db.commit()
        halves = zip(rows, draw(N_QUERIES, 100), strict=False)
        queries = [" ".join(passage.split()[:100]) + " " + other for passage, other in halves]
        print("words  median ms  95 % within")
        for length in LENGTHS:
            times = []
            for query in queries:
                asked = " ".join(rng.permutation(query.split())[:length])
                start = time.perf_counter()
                search_words(db, asked, k=100)
                times.append(1000 * (time.perf_counter() - start))
            print(f"{length:5}  {np.median(times):9.0f}  {np.percentile(times, 95):11.0f}", flush=True)
        db.close()


if __name__ == "__main__":
    main()
