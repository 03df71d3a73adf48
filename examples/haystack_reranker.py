"""Haystack: a pipeline that embeds the query, finds candidates and puts the best one first.

    pip install 'ggrank[haystack]'
    examples/run.sh haystack_reranker [RERANKER]

RERANKER is a preset, a .gguf file or a Hugging Face repo; without it the bundled ggrank-reranker-mini.
"""

from __future__ import annotations

import os
import sys

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read when haystack is imported

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

from ggrank.integrations.haystack import GgrankDocumentEmbedder, GgrankRanker, GgrankTextEmbedder

QUERY = "How long may I keep cooked rice in the fridge?"
DOCUMENTS = [
    Document(content="Uncooked white rice keeps for years in a dry, dark cupboard."),
    Document(content="Cooked rice keeps three to four days in the refrigerator."),
    Document(content="A refrigerator should be set to 4 degrees Celsius or below."),
    Document(content="Rinse rice until the water runs clear."),
]


def main(name: str = "ggrank-reranker-mini") -> None:
    store = InMemoryDocumentStore()
    store.write_documents(GgrankDocumentEmbedder().run(documents=DOCUMENTS)["documents"])

    pipeline = Pipeline()
    pipeline.add_component("embedder", GgrankTextEmbedder())
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=4))
    pipeline.add_component("ranker", GgrankRanker(model=name, top_k=2))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    pipeline.connect("retriever.documents", "ranker.documents")

    print(f"Query: {QUERY}\n")
    answer = pipeline.run({"embedder": {"text": QUERY}, "ranker": {"query": QUERY}})
    for document in answer["ranker"]["documents"]:
        print(f"  {document.score:6.3f}  {document.content}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
