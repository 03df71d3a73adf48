"""Chroma with ggrank: a collection on disk, embedded by a bundled model, its answers reranked by another.

    examples/run.sh chroma_search

Needs chromadb: pip install 'ggrank[chroma]'
"""

from __future__ import annotations

import tempfile

import chromadb
from chromadb.config import Settings

from ggrank import Llama
from ggrank.integrations.chroma import GgrankEmbeddingFunction

QUERY = "How long may I keep cooked rice in the fridge?"
DOCUMENTS = [
    "Uncooked white rice keeps for years in a dry, dark cupboard.",
    "Cooked rice keeps three to four days in the refrigerator, in a closed box.",
    "Rinse rice until the water runs clear, then cook it with twice its volume of water.",
    "A refrigerator should be set to 4 degrees Celsius or a little below.",
    "The Mekong delta grows about half of Vietnam's rice.",
    "Potatoes should not lie beside onions.",
]


def main() -> None:
    print(f"Query: {QUERY}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        client = chromadb.PersistentClient(folder, settings=Settings(anonymized_telemetry=False))
        collection = client.create_collection("kitchen", embedding_function=GgrankEmbeddingFunction())
        collection.add(ids=[str(i) for i in range(len(DOCUMENTS))], documents=DOCUMENTS)

        # Whoever has imported ggrank.integrations.chroma opens it without saying which model made it.
        found = client.get_collection("kitchen").query(query_texts=[QUERY], n_results=4)
        print(f"1. found by cosine, 4 of {collection.count()}")
        for distance, document in zip(found["distances"][0], found["documents"][0], strict=True):
            print(f"  {1 - distance:8.3f}  {document}")

        with Llama.load("ggrank-reranker-mini") as reranker:
            print("2. reranked (logit)")
            for hit in reranker.rank(QUERY, found["documents"][0], top_n=2):
                print(f"  {hit.score:8.3f}  {hit.document}")


if __name__ == "__main__":
    main()
