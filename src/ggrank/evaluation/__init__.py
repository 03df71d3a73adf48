"""Proof on your own data: how well the embedder, BM25, their fusion and rerankers rank a test set.

    test set -> vectors -> runs of every system -> results (metrics, intervals) -> report (tables, files)

datasets    `read_test_set`, `read_run`: BEIR, MS MARCO, pairs, TREC runs
systems     every system over every query
results     metrics by ir-measures, lifts with their bootstrap, changed queries
report      tables, JSON, Markdown and the picture

Needs the extra ``eval`` (ir-measures; matplotlib for the plot).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ggrank import Llama
from ggrank.evaluation.datasets import GivenRun, TestSet
from ggrank.evaluation.results import SetResult, summarize
from ggrank.evaluation.systems import Advance, embed_documents, run_systems

DEPTHS = (10, 20, 50, 100)
"""How many of the embedder's documents are reranked."""

ProgressBar = Callable[..., AbstractContextManager[Advance]]
"""Shows how far it is: ``progress(n, label="...")`` gives a function that counts the steps."""


def evaluate(
    tests: Iterable[TestSet],
    embedder: Llama,
    rerankers: Mapping[str, Llama] | None = None,
    *,
    depths: Sequence[int] = DEPTHS,
    given: Sequence[GivenRun] = (),
    progress: ProgressBar | None = None,
) -> Iterator[SetResult]:
    """Every system on every set, one `SetResult` after the other.

    A reranker, by the name that tables give it, reads each of ``depths`` of the embedder's best documents.
    ``given`` are rankings of the one set by other systems: measured, and reranked as the embedder's is.
    """
    shown = progress or (lambda _n, label: nullcontext(lambda _done: None))
    for test in tests:
        with shown(len(test.documents), label=f"{test.name}: embedding") as advance:
            vectors = embed_documents(embedder, test.documents, advance=advance)
        options: Any = {"embedder": embedder, "rerankers": rerankers or {}, "depths": depths, "given": given}
        with shown(len(test.queries), label=f"{test.name}: ranking") as advance:
            runs = run_systems(test, vectors, advance=advance, **options)
        yield summarize(test, runs)
