"""One query, both ways: cosine of two vectors, and logits of a model that reads query and document together.

    examples/run.sh reranker [RERANKER]

RERANKER is a preset, a .gguf file or a Hugging Face repo; without it bge-reranker-base, if it is here.
"""

from __future__ import annotations

import sys

from ggrank import Llama, ModelNotFoundError, Ranking

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


def main(reranker: str | None = None) -> None:
    print(f"Query: {QUERY}\n")
    with Llama.load("all-minilm-l6-v2") as llama:
        show("all-minilm-l6-v2", llama.rank(QUERY, DOCUMENTS))

    name = reranker or "bge-reranker-base"
    try:
        # Without an argument nothing is downloaded behind your back.
        with Llama.load(name, local_files_only=reranker is None) as llama:
            print()
            show(name, llama.rank(QUERY, DOCUMENTS))
    except ModelNotFoundError:
        if reranker is not None:
            raise
        print("\nNo reranker is here yet. This brings the logits (about 220 MB):")
        print("  ggrank models download bge-reranker-base")


if __name__ == "__main__":
    main(*sys.argv[1:2])
