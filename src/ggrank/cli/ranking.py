"""Ranks documents in steps, and prints a ranking as a table or as JSON lines, for `rank` and `demo`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ggrank.cli.console import Column, bar, count, echo_facts, echo_json, echo_table, progress
from ggrank.cli.documents import Document, name_of

if TYPE_CHECKING:
    from ggrank import Llama, RankedDocument, Ranking
    from ggrank.cli.console import Cell

BAR_WIDTH = 8

LONG = 20
"""Seconds of work after which a command says how it could be faster."""

STEP = 64
"""Documents between two steps of the progress bar."""


def rank_documents(
    llama: Llama, query: str, documents: Sequence[Document], *, top_n: int | None, **options: Any
) -> Ranking:
    """The same as one `Llama.rank` over all documents, with a progress bar on a terminal.

    Each distinct text is ranked once, so that equal documents have equal scores and keep their order: a
    quantized model's score of a text differs a little with the other texts of its micro-batch.
    """
    from ggrank import Ranking

    texts = list(dict.fromkeys(document.text for document in documents))
    found: dict[str, RankedDocument] = {}
    n_tokens = 0
    with progress(len(texts), label="ranking", at_least=STEP) as advance:
        for first in range(0, max(len(texts), 1), STEP):
            step = texts[first : first + STEP]
            part = llama.rank(query, step, **options)
            found.update((step[ranked.index], ranked) for ranked in part)
            n_tokens += part.n_tokens
            advance(len(step))
    ranked = [
        replace(found[document.text], index=i)
        for i, document in enumerate(documents)
        if document.text in found
    ]
    ranked.sort(key=lambda document: -(document.score if document.logit is None else document.logit))
    return Ranking(tuple(ranked[:top_n]), part.scale, n_tokens)


def echo_ranking_json(ranking: Ranking, documents: Sequence[Document]) -> None:
    """A JSON line for each ranked document, with the API's field names."""
    for rank, found in enumerate(ranking, 1):
        echo_json(
            {
                "rank": rank,
                "index": found.index,
                "id": documents[found.index].id,
                "score": _short(found.score),
                "logit": None if found.logit is None else _short(found.logit),
                "text": found.document,
                "truncated": found.truncated,
            }
        )


def _short(value: float) -> float:
    """A float32 with the fewest digits that give the same float32."""
    return float(f"{value:.9g}")


def echo_ranking_table(ranking: Ranking, documents: Sequence[Document], *, id_width: int = 0) -> None:
    """Rank, score, bar, id (or index) and the beginning of each document."""
    if not ranking:
        return
    has_ids = any(document.id is not None for document in documents)
    columns = [
        Column("rank", align="right"),
        Column("score", align="right"),
        Column("", least=BAR_WIDTH),
        Column("id" if has_ids else "index", align="left" if has_ids else "right", least=id_width),
        Column("document", stretch=True),
    ]
    rows: list[list[Cell]] = [
        [
            str(rank),
            f"{found.score:.3f}",
            bar(_fraction(found.score, ranking.scale), width=BAR_WIDTH),
            name_of(documents[found.index], found.index),
            found.document,
        ]
        for rank, found in enumerate(ranking, 1)
    ]
    echo_table(columns, rows)


def _fraction(score: float, scale: str) -> float:
    """How much of the bar is filled: by the score, or by the sigmoid of a logit."""
    return 0.5 * (1.0 + math.tanh(0.5 * score)) if scale == "logit" else score


def echo_footer(llama: Llama, rankings: Sequence[Ranking], seconds: float, *facts: str) -> None:
    """Model, mode, scale, device, the given facts, tokens, milliseconds, and how many texts were cut."""
    n_cut = sum(found.truncated for ranking in rankings for found in ranking)
    echo_facts(
        llama.model_path.name,
        f"{llama.mode}, {rankings[0].scale}",
        f"runs on {llama.device} ({llama.engine})",
        *facts,
        count(sum(ranking.n_tokens for ranking in rankings), "token"),
        f"{1000 * seconds:,.0f} ms",
        f"{n_cut} cut to {llama.n_ctx} tokens" if n_cut else "",
        cache_fact(llama),
    )


def speed_hint(llama: Llama) -> str:
    """What to install to be faster with this model on this machine; "" if nothing."""
    from ggrank.loading.tuning import openvino_hint

    return openvino_hint(llama.model_path, engine=llama.engine, device=llama.device)


def cache_fact(llama: Llama) -> str:
    """What the cache had: "from the cache: 18 of 20 pairs"; "" without one."""
    if llama.cache_counts is None:
        return ""
    asked = count(llama.cache_counts.n_asked, "pair" if llama.mode == "rerank" else "vector")
    return f"from the cache: {llama.cache_counts.n_found:,} of {asked}"
