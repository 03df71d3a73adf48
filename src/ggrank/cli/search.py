"""``ggrank search``: the passages of an index that answer a query."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggrank.cli.console import (
    count,
    echo,
    echo_facts,
    echo_json,
    one_line,
    shorten,
    terminal_width,
    wants_table,
)
from ggrank.cli.indexes import Filters, filter_options, found_index_option, load_embedder
from ggrank.cli.options import DEFAULT_MODEL, ModelChoice, engine_options, output_option
from ggrank.cli.ranking import cache_fact

if TYPE_CHECKING:
    from ggrank import Llama
    from ggrank.search.hits import Hit, Place
    from ggrank.search.ranking import By

NO_RERANKER = "none"
_FOUND_BY = {"both": "cosine and BM25, fused", "meaning": "cosine", "words": "BM25"}
INDENT = " " * 12
SNIPPET_LINES = 2


@click.command(short_help="Search an index.")
@click.argument("query")
@found_index_option
@click.option(
    "--top-n", "-n", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="The N best."
)
@click.option(
    "--by",
    type=click.Choice(["both", "meaning", "words"]),
    default="both",
    show_default=True,
    help="Meaning compares vectors; words is BM25, which finds names and numbers and loads no model.",
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    metavar="SCORE",
    help="Leaves out what scores less; a score means the same in every query.",
)
@click.option(
    "--reranker",
    default=NO_RERANKER,
    show_default=True,
    metavar="NAME|PATH|none",
    help="Orders what was found by reading it beside the query.",
)
@click.option(
    "--retrieve-k",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="K",
    help="How many passages the reranker reads.",
)
@filter_options
@click.option("--explain", is_flag=True, help="Shows how the order came about.")
@click.option(
    "--model",
    "-m",
    default=DEFAULT_MODEL,
    metavar="NAME|PATH",
    help="The embedder, where the index's own is not found any more.",
)
@engine_options
@output_option
def search(
    query: str,
    folder: Path,
    top_n: int,
    by: By,
    min_score: float | None,
    reranker: str,
    retrieve_k: int,
    filters: Filters,
    explain: bool,
    model: str,
    engine: str,
    cache: str | None,
    as_table: bool | None,
) -> None:
    """Search the index that ``ggrank index`` made.

    \b
    ggrank search "who pays for travel?"
    ggrank search "error E4711" --by words --path logs --since 2026-01-31
    ggrank search "who pays for travel?" --reranker ggrank-reranker-mini --json

    Each JSON line holds rank, path, headings, page, line, start and stop (characters in the document's text),
    id, title, metadata, text, score (0 to 1), cosine, logit, words (of the query that the passage holds),
    others (where else the same text stands) and snippet.
    """
    from ggrank import Index

    if not query.strip():
        raise click.UsageError('The query is empty: say what to look for, as in ggrank search "a question".')
    with ExitStack() as stack:
        choice = ModelChoice(model, engine=engine, cache=cache)
        embedder = None if by == "words" else stack.enter_context(load_embedder(folder, choice))
        second = None
        if reranker != NO_RERANKER:
            second = stack.enter_context(replace(choice, model=reranker, pooling_type="rank").load())
        opened = stack.enter_context(Index.open(folder, embedder=embedder))
        started = time.perf_counter()
        hits = opened.search(
            query,
            top_n=top_n,
            by=by,
            reranker=second,
            retrieve_k=retrieve_k,
            min_score=min_score,
            **vars(filters),
        )
        seconds = time.perf_counter() - started
        n_passages, n_files = len(opened), opened.n_files
        if not n_passages:
            click.echo("Note: there is nothing in the index.", err=True)
        show_hits(query, hits, as_table=as_table, explain=explain)
        if not wants_table(as_table):
            return
        if not hits:
            echo("Nothing found.")
        echo_facts(
            " ".join(filter(None, [_name(embedder), _FOUND_BY[by]])),
            f"{_name(second)} reranked" if second else "",
            f"{count(n_passages, 'passage')} of {count(n_files, 'file')}",
            f"{1000 * seconds:,.0f} ms",
            *(cache_fact(llama) for llama in (embedder, second) if llama),
        )


def show_hits(query: str, hits: Sequence[Hit], *, as_table: bool | None, explain: bool = False) -> None:
    """Hits for people, or a JSON line each."""
    for rank, hit in enumerate(hits, 1):
        if wants_table(as_table):
            _echo_hit(query, rank, hit, explain=explain)
        else:
            echo_json(_record(query, rank, hit, explain=explain))


def _name(llama: Llama | None) -> str:
    return f"{llama.model_path.name}:" if llama else ""


def _echo_hit(query: str, rank: int, hit: Hit, *, explain: bool) -> None:
    """Rank, score and place, and below them the part of the passage that matches."""
    width = terminal_width() - len(INDENT)
    echo(f"{rank:>2}  {hit.score:6.3f}  {shorten(_where(hit), width)}", bold=True)
    part = one_line(hit.snippet(query, n_characters=min(SNIPPET_LINES * width, 300)))
    for line in textwrap.wrap(part, width, max_lines=SNIPPET_LINES, placeholder="..."):
        echo(f"{INDENT}{shorten(line, width)}")
    others = [_where(place) for place in hit.others]
    if others:
        echo(f"{INDENT}{shorten('also ' + ', '.join(others), width)}", dim=True)
    if explain:
        echo(f"{INDENT}{_explanation(hit)}", dim=True)


def _explanation(hit: Hit) -> str:
    """Such as "cosine 0.512 (rank 1), BM25 3.20 (rank 2: pays, travel), fused 2.093, logit 1.7"."""
    how = hit.explanation
    facts = []
    if hit.cosine is not None:
        facts.append(f"cosine {hit.cosine:.3f} (rank {how.meaning_rank})")
    if how.bm25 is not None:
        facts.append(f"BM25 {how.bm25:.2f} (rank {how.words_rank}: {', '.join(hit.words)})")
    if len(facts) == 2:
        facts.append(f"fused {how.first_stage:.3f}")
    if hit.logit is not None and how.reranked is not None:
        facts.append(f"logit {hit.logit:.3f}")
        if how.reranked != hit.logit:
            facts.append(f"blended {how.reranked:.3f}")
    return one_line(", ".join(facts))


def _where(place: Place) -> str:
    """The file as it is named from here, its line or page, and what stands over the passage."""
    path = _from_here(place.path) if place.path else str(place.id or "")
    at = (
        f"{path}, {place.page}"
        if place.page and not place.page.startswith("line")
        else f"{path}:{place.line}"
    )
    name = str(place.id) if place.path and place.id not in (None, place.path) else ""
    return one_line(", ".join(filter(None, [at, name, place.headings])))


def _from_here(path: str) -> str:
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return path if relative.startswith(os.pardir) else relative


def _record(query: str, rank: int, hit: Hit, *, explain: bool) -> dict[str, Any]:
    record = {"rank": rank, **asdict(hit), "snippet": hit.snippet(query)}
    for name in ("score", "cosine", "logit"):
        record[name] = _short(record[name])
    if not explain:
        del record["explanation"]
    return record


def _short(value: float | None) -> float | None:
    """A float32 in the fewest digits that still are that float32."""
    return None if value is None else float(f"{value:.9g}")
