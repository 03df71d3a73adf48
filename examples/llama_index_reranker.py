"""LlamaIndex: an index finds candidates, GgrankRerank puts the best one first. No LLM is needed.

    pip install 'ggrank[llama-index]'
    examples/run.sh llama_index_reranker [RERANKER]

RERANKER is a preset, a .gguf file or a Hugging Face repo; without it the bundled ggrank-reranker-mini.
"""

from __future__ import annotations

import sys

from llama_index.core import VectorStoreIndex
from llama_index.core.schema import TextNode

from ggrank.integrations.llama_index import GgrankEmbedding, GgrankRerank

QUERY = "How long may I keep cooked rice in the fridge?"
NODES = [
    TextNode(text="Uncooked white rice keeps for years in a dry, dark cupboard."),
    TextNode(text="Cooked rice keeps three to four days in the refrigerator."),
    TextNode(text="A refrigerator should be set to 4 degrees Celsius or below."),
    TextNode(text="Rinse rice until the water runs clear."),
]


def main(name: str = "ggrank-reranker-mini") -> None:
    index = VectorStoreIndex(NODES, embed_model=GgrankEmbedding(model_name="all-minilm-l6-v2"))
    found = index.as_retriever(similarity_top_k=4).retrieve(QUERY)
    rerank = GgrankRerank(model=name, top_n=2, keep_retrieval_score=True)
    print(f"Query: {QUERY}\n")
    for node in rerank.postprocess_nodes(found, query_str=QUERY):
        print(f"  {node.score:8.3f}  (cosine {node.metadata['retrieval_score']:.3f})  {node.text}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
