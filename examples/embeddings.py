"""Texts become vectors; texts that mean the same point the same way.

    examples/run.sh embeddings [MODEL]

MODEL is a preset, a .gguf file or a Hugging Face repo; without it the bundled one serves.
"""

from __future__ import annotations

import sys

from ggrank import Llama

TEXTS = [
    "The cat sleeps on the warm window sill.",
    "A kitten naps in the sun by the window.",
    "Interest rates rose by a quarter of a percent.",
]


def main(model: str = "all-minilm-l6-v2") -> None:
    with Llama.load(model) as llama:
        vectors = llama.embed_many(TEXTS)
        print(f"{model}: {len(vectors)} vectors of {llama.n_embd} numbers, on {llama.device}\n")

    # The vectors have length 1, so that their products are cosines.
    cosines = vectors @ vectors.T
    for text, row in zip(TEXTS, cosines, strict=True):
        print("  ".join(f"{cosine:.3f}" for cosine in row), "", text)


if __name__ == "__main__":
    main(*sys.argv[1:2])
