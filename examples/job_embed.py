"""Embed a file of rows as a job that can be stopped, then score pairs of them.

    examples/run.sh job_embed

What `ggrank job embed passages.jsonl --output vectors/` and `ggrank job score pairs.jsonl` do, from Python.
Needs no extra; for Parquet `pip install 'ggrank[corpus]'`, and leave `format` out.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from ggrank import LlamaParams
from ggrank.jobs import EmbedStep, Job, ScoreStep, find_sources, run

PASSAGES = [
    "Bees dance to tell each other where flowers are.",
    "Cars rust where salt is strewn on the roads.",
    "Llamas graze on the Altiplano.",
]
QUERY = "how do bees talk?"


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = write(folder / "passages.jsonl", [{"id": i, "text": t} for i, t in enumerate(PASSAGES)])

        step = EmbedStep(LlamaParams("all-minilm-l6-v2"), dtype="int8")
        job = Job(step, find_sources([str(source)]), folder / "vectors", format="jsonl", shard_rows=2)
        summary = run(job)
        print(f"embedded {summary.rows} rows into {summary.shards} shards")
        print(f"again: {run(job).new_rows} rows were computed")

        pairs = write(folder / "pairs.jsonl", [{"query": QUERY, "document": text} for text in PASSAGES])
        scoring = ScoreStep(LlamaParams("ggrank-reranker-mini"), score="sigmoid")
        run(Job(scoring, find_sources([str(pairs)]), folder / "scored.jsonl"))
        print(f"\n{QUERY}")
        for line in (folder / "scored.jsonl").read_text().splitlines():
            row = json.loads(line)
            print(f"{row['score']:.3f}  {row['document']}")


if __name__ == "__main__":
    main()
