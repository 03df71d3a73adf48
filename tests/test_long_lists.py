"""Long lists: the query is read once for all documents, and memory does not grow with their number."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import tiny_models
from command_line import ENVIRONMENT
from ggrank import Llama
from ggrank.types import TokenIds


@pytest.mark.parametrize("kind", ["bert-reranker", "xlmr-reranker"])
def test_each_document_is_tokenised_once_and_the_query_once_for_all_of_them(
    kind: str, tmp_path: Path
) -> None:
    texts: list[str] = []
    documents = [f"document {i}" for i in range(2500)]  # more than are tokenised at a time
    with Llama.load(tiny_models.write(kind, tmp_path), engine="llama.cpp") as llama:
        tokenize = llama._engine.tokenize

        def noting_tokenize(text: str) -> TokenIds:
            texts.append(text)
            return tokenize(text)

        llama._engine.tokenize = noting_tokenize  # type: ignore[assignment, method-assign]
        llama.rerank("the query", documents)
    assert texts == ["the query", *documents]


CHILD = """
    import resource, sys
    from ggrank import Llama

    class Text(str):
        pass

    def documents(n):
        for i in range(n):
            text = Text(f"document {i // 4}")  # what is equal is computed once
            text.weight = bytes(10_000)  # lives as long as the document
            yield text

    with Llama.load(sys.argv[1], engine=sys.argv[2], flash_attn=True) as llama:
        llama.rerank("q", documents(5_000))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        n_logits = len(llama.rerank("q", documents(100_000)))
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(n_logits, (after - before) * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.parametrize(
    ("engine", "most_bytes"),
    [("llama.cpp", 15_000_000), ("openvino", 60_000_000)],  # OpenVINO keeps a kernel for each shape
)
def test_memory_stays_flat_over_100_000_documents_from_a_generator(
    engine: str, most_bytes: int, tmp_path: Path
) -> None:
    pytest.importorskip("resource")
    model = tiny_models.write("bert-reranker", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), model, engine],
        env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
        capture_output=True,
        text=True,
        check=True,
    )
    n_logits, n_bytes = map(int, done.stdout.split())
    assert n_logits == 100_000
    assert n_bytes < most_bytes  # the documents are 1 GB
