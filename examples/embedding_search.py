"""Search by meaning: embed the documents once, then each query is one product away.

    examples/run.sh embedding_search [MODEL]

MODEL is a preset, a .gguf file or a Hugging Face repo; without it the bundled one serves.
"""

from __future__ import annotations

import sys

import numpy as np

from ggrank import Llama

DOCUMENTS = [
    "Water the tomatoes in the morning, at the roots and not on the leaves.",
    "The night train to Vienna leaves at 22:10 from platform 4.",
    "To reset the router, hold the small button for ten seconds.",
    "Our office is closed on public holidays and on the last Friday of December.",
    "Knead the dough until it is smooth, then let it rest under a cloth for an hour.",
    "The warranty covers defects in material for two years after the purchase.",
]
QUERIES = ["my internet does not work", "how do I bake bread?", "what if the machine breaks after a year?"]


def main(model: str = "all-minilm-l6-v2") -> None:
    with Llama.load(model) as llama:
        # This array is the index: np.save("index.npy", index) keeps it.
        index = llama.embed_many(DOCUMENTS, prefix=llama.document_prefix)
        for query in QUERIES:
            cosines = index @ llama.embed(query, prefix=llama.query_prefix)
            best = int(np.argmax(cosines))
            print(f"{query}\n  {cosines[best]:.3f}  {DOCUMENTS[best]}\n")


if __name__ == "__main__":
    main(*sys.argv[1:2])
