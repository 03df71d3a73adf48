"""The three drop-in faces: code for other reranking libraries, with another import and no PyTorch.

    examples/run.sh compat [RERANKER]

RERANKER is an original's name (BAAI/bge-reranker-base), a preset or a .gguf file; without it the bundled one.
"""

from __future__ import annotations

import sys

from ggrank.compat import CrossEncoder, FlagReranker, Reranker

QUERY = "safe systems programming language"
DOCUMENTS = [
    "Paris is the capital and most populous city of France.",
    "Rust is a systems programming language focused on safety and performance.",
    "Bananas are rich in potassium and easy to digest.",
]


def sentence_transformers(model: str) -> None:
    print("CrossEncoder, as in sentence-transformers: the sigmoid of logits")
    for result in CrossEncoder(model, max_length=512).rank(QUERY, DOCUMENTS, return_documents=True):
        print(f"  {result['score']:8.3f}  {result['text']}")


def flag_embedding(model: str) -> None:
    print("FlagReranker, as in FlagEmbedding: logits, in input order")
    reranker = FlagReranker(model, use_fp16=True)
    scores = reranker.compute_score([[QUERY, document] for document in DOCUMENTS])
    for score, document in sorted(zip(scores, DOCUMENTS, strict=True), reverse=True):
        print(f"  {score:8.3f}  {document}")


def rerankers(model: str) -> None:
    print("Reranker, as in rerankers: logits")
    results = Reranker(model, verbose=0).rank(query=QUERY, docs=DOCUMENTS, doc_ids=["paris", "rust", "fruit"])
    for result in results.top_k(3):
        print(f"  {result.score:8.3f}  {result.text}  ({result.doc_id})")


def main(model: str = "ggrank-reranker-mini") -> None:
    print(f"Query: {QUERY}")
    for face in (sentence_transformers, flag_embedding, rerankers):
        print()
        face(model)


if __name__ == "__main__":
    main(*sys.argv[1:2])
