"""LangChain: a vector store finds candidates, GgrankReranker puts the best one first.

    pip install 'ggrank[langchain]' langchain-classic
    examples/run.sh langchain_reranker [RERANKER]

RERANKER is a preset, a .gguf file or a Hugging Face repo; without it the bundled ggrank-reranker-mini.
"""

from __future__ import annotations

import sys

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from ggrank.integrations.langchain import GgrankEmbeddings, GgrankReranker

QUERY = "How long may I keep cooked rice in the fridge?"
DOCUMENTS = [
    Document("Uncooked white rice keeps for years in a dry, dark cupboard.", metadata={"page": 3}),
    Document("Cooked rice keeps three to four days in the refrigerator.", metadata={"page": 4}),
    Document("A refrigerator should be set to 4 degrees Celsius or below.", metadata={"page": 7}),
    Document("Rinse rice until the water runs clear.", metadata={"page": 9}),
]


def main(name: str = "ggrank-reranker-mini") -> None:
    store = InMemoryVectorStore.from_documents(DOCUMENTS, GgrankEmbeddings("all-minilm-l6-v2"))
    retriever = ContextualCompressionRetriever(
        base_retriever=store.as_retriever(search_kwargs={"k": 4}),
        base_compressor=GgrankReranker(model=name, top_n=2),
    )
    print(f"Query: {QUERY}\n")
    for document in retriever.invoke(QUERY):
        score, page = document.metadata["rerank_score"], document.metadata["page"]
        print(f"  {score:8.3f}  page {page}: {document.page_content}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
