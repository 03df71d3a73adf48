"""One query, both ways: cosine of two vectors, and logits of a model that reads query and document together.

    examples/run.sh reranker [RERANKER] [EMBEDDER]

Each is a preset, a .gguf file or a Hugging Face repo; without them the bundled models.
"""

from __future__ import annotations

import sys

from ggrank import Llama, Ranking

QUERY = "safe systems programming language"
DOCUMENTS = [
    "Rust is a systems programming language focused on safety and performance.",
    "Paris is the capital and most populous city of France.",
    "Bananas are rich in potassium and easy to digest.",
]


def show(title: str, ranking: Ranking) -> None:
    print(f"{title} ({ranking.scale})")
    for found in ranking:
        print(f"  {found.score:8.3f}  {found.document}")


def main(reranker: str = "ggrank-reranker-mini", embedder: str = "all-minilm-l6-v2") -> None:
    print(f"Query: {QUERY}\n")
    with Llama.load(embedder) as llama:
        show(embedder, llama.rank(QUERY, DOCUMENTS))
    print()
    with Llama.load(reranker) as llama:
        show(reranker, llama.rank(QUERY, DOCUMENTS))


if __name__ == "__main__":
    main(*sys.argv[1:3])
