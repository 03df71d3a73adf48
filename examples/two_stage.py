"""Two stages: an embedding model finds a few candidates fast, a reranker puts the best one first.

    examples/run.sh two_stage [RERANKER]

RERANKER is a preset, a .gguf file or a Hugging Face repo; without it bge-reranker-base, if it is here.
"""

from __future__ import annotations

import sys

from ggrank import Llama, ModelNotFoundError

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


def main(reranker: str | None = None) -> None:
    print(f"Query: {QUERY}\n")
    with Llama.load("all-minilm-l6-v2") as llama:
        candidates = llama.rank(QUERY, DOCUMENTS, top_n=N_CANDIDATES)
    print(f"1. retrieved by cosine, {N_CANDIDATES} of {len(DOCUMENTS)}")
    for found in candidates:
        print(f"  {found.score:8.3f}  {found.document}")

    name = reranker or "bge-reranker-base"
    try:
        # Without an argument nothing is downloaded behind your back.
        with Llama.load(name, local_files_only=reranker is None) as llama:
            ranking = llama.rank(QUERY, [found.document for found in candidates])
    except ModelNotFoundError:
        if reranker is not None:
            raise
        print("\nNo reranker is here yet. This brings stage two (about 220 MB):")
        print("  ggrank models download bge-reranker-base")
        return
    print(f"\n2. reranked by {name} ({ranking.scale})")
    for found in ranking:
        print(f"  {found.score:8.3f}  {found.document}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
