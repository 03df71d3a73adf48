"""Two stages: an embedding model finds a few candidates fast, a reranker puts the best one first.

    examples/run.sh two_stage [RERANKER]

RERANKER is a preset, a .gguf file or a Hugging Face repo; without it bge-reranker-base, if it is here.
"""

from __future__ import annotations

import sys

from ggrank import Llama, ModelNotFoundError, Pipeline

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
DEFAULT = "bge-reranker-base"


def main(reranker: str | None = None) -> None:
    print(f"Query: {QUERY}\n")
    with Llama.load("all-minilm-l6-v2") as embedder:
        found = Pipeline(embedder)
        found.add(DOCUMENTS)
        print(f"1. retrieved by cosine, {N_CANDIDATES} of {len(DOCUMENTS)}")
        for hit in found.search(QUERY, top_n=N_CANDIDATES):
            print(f"  {hit.score:8.3f}  {hit.document}")
        rerank(embedder, reranker or DEFAULT, may_download=reranker is not None)


def rerank(embedder: Llama, name: str, *, may_download: bool) -> None:
    """Both stages at once; each hit knows its logit and its cosine."""
    try:
        # Without an argument nothing is downloaded behind your back.
        llama = Llama.load(name, local_files_only=not may_download)
    except ModelNotFoundError:
        if may_download:
            raise
        print("\nNo reranker is here yet. This brings stage two (about 220 MB):")
        print(f"  ggrank models download {name}")
        return
    with llama:
        pipeline = Pipeline(embedder, llama)
        pipeline.add(DOCUMENTS)
        ranking = pipeline.search(QUERY, retrieve_k=N_CANDIDATES, top_n=3)
    print(f"\n2. reranked by {name} ({ranking.scale}; cosine beside it)")
    for hit in ranking:
        print(f"  {hit.score:8.3f}  {hit.cosine:6.3f}  {hit.document}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
