"""Search a folder: its files are indexed on disk, and only what changes is embedded again.

    examples/run.sh search_folder [FOLDER [QUERY]]

FOLDER may hold text, Markdown, HTML, PDF, JSONL and CSV files, and its index stays in .ggrank in the working
directory; without it ggrank's own docs serve.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ggrank import Index, Llama

DOCS = Path(__file__).resolve().parent.parent / "docs"
QUERY = "Why does a build for AMX crash?"


def search(folder: Path, query: str, *, kept_in: Path) -> None:
    with Llama.load("all-minilm-l6-v2") as embedder, Index.open(kept_in, embedder=embedder) as index:
        changes = index.update([folder])
        print(f"{changes.added} files added, {changes.unchanged} unchanged: {len(index)} passages")

        # By meaning and by words; by="words" needs no model, reranker= takes a loaded cross-encoder.
        print(f"\n{query}")
        for hit in index.search(query, top_n=3):
            print(f"\n{hit.score:.3f}  {Path(hit.path).name}:{hit.line}  {hit.headings}")
            print(f"       {hit.snippet(query, n_characters=100)}")


def main(folder: str | None = None, query: str = QUERY) -> None:
    if folder is not None:
        search(Path(folder), query, kept_in=Path(".ggrank"))
        return
    with tempfile.TemporaryDirectory() as scratch:
        search(DOCS, query, kept_in=Path(scratch))


if __name__ == "__main__":
    main(*sys.argv[1:3])
