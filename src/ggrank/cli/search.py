"""``ggrank search``: the passages of an index that answer a query."""

from __future__ import annotations

import os
import textwrap
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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
from ggrank.cli.indexes import index_option, load_embedder
from ggrank.cli.options import DEFAULT_MODEL, ModelChoice, engine_options, output_option
from ggrank.cli.ranking import cache_fact

if TYPE_CHECKING:
    from ggrank import Index, RankedDocument, Ranking
    from ggrank.types import Hybrid

NO_RERANKER = "none"
FUSIONS: dict[str, Hybrid | Literal[False]] = {"scores": "scores", "rrf": "rrf", "no": False}
_FIRST_STAGES = {
    "scores": "cosine and BM25, fused by scores",
    "rrf": "cosine and BM25, fused by rank",
    "no": "cosine",
}
INDENT = " " * 12
SNIPPET_LINES = 2


@click.command(short_help="Search an index.")
@click.argument("query")
@index_option
@click.option(
    "--top-n", "-n", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="The N best."
)
@click.option(
    "--retrieve-k",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="K",
    help="How many passages the reranker reads.",
)
@click.option(
    "--hybrid",
    type=click.Choice(["scores", "rrf", "no"]),
    is_flag=False,
    flag_value="rrf",
    default="scores",
    show_default=True,
    help="How cosine and BM25 are fused: by standardised scores, or by reciprocal rank (what --hybrid alone "
    "asks for); no: by cosine only.",
)
@click.option(
    "--reranker",
    default=NO_RERANKER,
    show_default=True,
    metavar="NAME|PATH|none",
    help="Orders what was found by reading it beside the query.",
)
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
    retrieve_k: int,
    hybrid: str,
    reranker: str,
    model: str,
    engine: str,
    cache: str | None,
    as_table: bool | None,
) -> None:
    """Search the index that ``ggrank index`` made.

    \b
    ggrank search "who pays for travel?"
    ggrank search "error E4711" --top-n 10 --hybrid=rrf
    ggrank search "who pays for travel?" --reranker ggrank-reranker-mini --json

    Each JSON line holds rank, score, logit, cosine, path, place, start and stop (characters in the file's
    text), id, text and snippet.
    """
    from ggrank import Index

    if not query.strip():
        raise click.UsageError('The query is empty: say what to look for, as in ggrank search "a question".')
    with ExitStack() as stack:
        choice = ModelChoice(model, engine=engine, cache=cache)
        embedder = stack.enter_context(load_embedder(folder, choice))
        second = None
        if reranker != NO_RERANKER:
            choice = replace(choice, model=reranker, pooling_type="rank")
            second = stack.enter_context(choice.load())
        opened = stack.enter_context(Index.open(folder, embedder=embedder))
        started = time.perf_counter()
        ranking = opened.search(
            query, retrieve_k=retrieve_k, top_n=top_n, hybrid=FUSIONS[hybrid], reranker=second
        )
        seconds = time.perf_counter() - started
        if not len(ranking):
            click.echo("Note: there is nothing in the index.", err=True)
        if wants_table(as_table):
            _echo_results(opened, query, ranking)
            found_by = f"{embedder.model_path.name}: {_FIRST_STAGES[hybrid]}"
            ordered_by = f"{second.model_path.name}: reranked, {ranking.scale}" if second else ""
            from_cache = [cache_fact(llama) for llama in (embedder, second) if llama]
            _echo_footer(opened, found_by, ordered_by, seconds, from_cache)
        else:
            _echo_json(opened, query, ranking)


def _echo_results(opened: Index, query: str, ranking: Ranking) -> None:
    """For each passage its rank, score and place, and below them the part of it that matches."""
    width = terminal_width() - len(INDENT)
    for rank, found in enumerate(ranking, 1):
        echo(f"{rank:>2}  {found.score:6.3f}  {shorten(_where(found), width)}", bold=True)
        part = one_line(opened.snippet(query, found, n_words=SNIPPET_LINES * width // 6))
        for line in textwrap.wrap(part, width, max_lines=SNIPPET_LINES, placeholder="..."):
            echo(f"{INDENT}{shorten(line, width)}")


def _where(found: RankedDocument) -> str:
    """The file as it is named from here, and the place in it: a record's id, a heading, page or line."""
    facts = found.metadata or {}
    return one_line(f"{_from_here(facts['path'])}, {facts['place'] if found.id is None else found.id}")


def _from_here(path: str) -> str:
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return path if relative.startswith(os.pardir) else relative


def _echo_footer(
    opened: Index, found_by: str, ordered_by: str, seconds: float, from_cache: list[str]
) -> None:
    size = f"{count(len(opened), 'passage')} of {count(opened.n_files, 'file')}"
    echo_facts(found_by, ordered_by, size, f"{1000 * seconds:,.0f} ms", *from_cache)


def _echo_json(opened: Index, query: str, ranking: Ranking) -> None:
    for rank, found in enumerate(ranking, 1):
        facts = found.metadata or {}
        echo_json(
            {
                "rank": rank,
                "score": _short(found.score),
                "logit": _short(found.logit),
                "cosine": _short(found.cosine),
                "path": facts["path"],
                "place": facts["place"],
                "start": facts["start"],
                "stop": facts["stop"],
                "id": found.id,
                "text": found.document,
                "snippet": opened.snippet(query, found),
            }
        )


def _short(value: float | None) -> float | None:
    """A float32 in the fewest digits that still are that float32."""
    return None if value is None else float(f"{value:.9g}")
