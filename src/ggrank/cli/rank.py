"""``ggrank rank``: documents in order of how well they answer a query."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from ggrank.cli.console import count, wants_table
from ggrank.cli.documents import Format, read_documents
from ggrank.cli.options import ModelChoice, input_options, model_options, n_option, output_option
from ggrank.cli.ranking import echo_footer, echo_ranking_json, echo_ranking_table, rank_documents

if TYPE_CHECKING:
    from ggrank.types import ScoreScale, Truncate


@click.command(short_help="Order documents by how well they answer a query.")
@click.argument("query")
@input_options("DOCUMENTS")
@n_option("--top-n", "-n", help="Print only the N best.")
@click.option(
    "--threshold", type=float, metavar="X", help="Print only scores of at least X, on the scale of --score."
)
@click.option(
    "--score",
    type=click.Choice(["auto", "logit", "sigmoid", "cosine"]),
    default="auto",
    show_default=True,
    help="The scale; auto: logit for a reranker, cosine for an embedding model.",
)
@click.option(
    "--truncate",
    type=click.Choice(["end", "error", "chunk"]),
    default="end",
    show_default=True,
    help="What to do with a text that is too long: cut its end, stop with an error, or score it in chunks "
    "and keep the best score (rerankers only).",
)
@model_options
@output_option
def rank(
    query: str,
    texts: tuple[str, ...],
    files: tuple[str, ...],
    file_format: Format,
    top_n: int | None,
    threshold: float | None,
    score: ScoreScale,
    truncate: Truncate,
    choice: ModelChoice,
    as_table: bool | None,
) -> None:
    """Order documents by how well they answer QUERY, best first.

    \b
    ggrank rank "storing energy" "a battery" "a banana"
    ggrank rank "storing energy" --file documents.jsonl --top-n 3
    cat lines.txt | ggrank rank "storing energy" --model bge-reranker-base

    A JSON line has rank, index (position in the input, from 0), id, score, logit, text and truncated.
    """
    documents = read_documents(texts, files, file_format=file_format)
    if not documents:
        click.echo("Note: there are no documents in the input.", err=True)
    with choice.load() as llama:
        started = time.perf_counter()
        ranking = rank_documents(
            llama, query, documents, top_n=top_n, threshold=threshold, score=score, truncate=truncate
        )
        seconds = time.perf_counter() - started
        if documents and not ranking:
            click.echo(f"Note: no document scores at least {threshold}.", err=True)
        if wants_table(as_table):
            echo_ranking_table(ranking, documents)
            echo_footer(llama, [ranking], seconds, count(len(documents), "document"))
        else:
            echo_ranking_json(ranking, documents)
