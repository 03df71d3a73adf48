"""Two stages: an embedding model finds a few candidates fast, a reranker puts the best one first.

    examples/run.sh two_stage [RERANKER]

RERANKER is a preset, a .gguf file or a Hugging Face repo; without it the bundled ggrank-reranker-mini.
"""

from __future__ import annotations

import sys

from ggrank import Llama, Pipeline

QUERY = "How long may I keep cooked rice in the fridge?"
DOCUMENTS = [
    "Cooked rice keeps three to four days in the refrigerator, in a closed box.",
    "Uncooked white rice keeps for years in a dry, dark cupboard.",
    "Rinse rice until the water runs clear, then cook it with twice its volume of water.",
    "A refrigerator should be set to 4 degrees Celsius or a little below.",
    "Cooked pasta can be frozen for two months.",
    "Risotto is stirred while hot broth is added little by little.",
    "The Mekong delta grows about half of Vietnam's rice.",
    "Potatoes should not lie beside onions.",
]
N_CANDIDATES = 4


def main(name: str = "ggrank-reranker-mini") -> None:
    print(f"Query: {QUERY}\n")
    with Llama.load("all-minilm-l6-v2") as embedder, Llama.load(name) as reranker:
        pipeline = Pipeline(embedder)
        pipeline.add(DOCUMENTS)
        print(f"1. retrieved by cosine, {N_CANDIDATES} of {len(pipeline)}")
        for hit in pipeline.search(QUERY, top_n=N_CANDIDATES):
            print(f"  {hit.cosine:8.3f}  {hit.text}")

        pipeline = Pipeline(embedder, reranker)
        pipeline.add(DOCUMENTS)
        print(f"\n2. reranked by {name} (logit; cosine beside it)")
        for hit in pipeline.search(QUERY, retrieve_k=N_CANDIDATES, top_n=3):
            print(f"  {hit.logit:8.3f}  {hit.cosine:6.3f}  {hit.text}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
