"""``ggrank rank``: documents in order of how well they answer a query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ggrank.cli.console import wants_table
from ggrank.cli.options import Inputs, ModelChoice, input_options, model_options, output_option
from ggrank.cli.ranking import echo_footer, echo_ranking_json, echo_ranking_table, rank_documents

if TYPE_CHECKING:
    from ggrank.types import ScoreScale, Truncate


@click.command(short_help="Order documents by how well they answer a query.")
@click.argument("query")
@input_options("DOCUMENTS")
@click.option("--top-n", "-n", type=click.IntRange(min=1), metavar="N", help="Only the N best.")
@click.option(
    "--threshold", type=float, metavar="X", help="Only scores of at least X, on the scale of --score."
)
@click.option(
    "--score",
    type=click.Choice(["auto", "logit", "sigmoid", "cosine"]),
    default="auto",
    show_default=True,
    help="The scale; auto is logit for a reranker, cosine for an embedding model.",
)
@click.option(
    "--truncate",
    type=click.Choice(["end", "error", "chunk"]),
    default="end",
    show_default=True,
    help="Longer than n_ctx: cut the end, refuse, or score windows and keep the best.",
)
@model_options
@output_option
def rank(
    query: str,
    inputs: Inputs,
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

    Each JSON line holds rank, index (from 0, in the input), id, score, logit, text and truncated.
    """
    documents = inputs.read()
    if not documents:
        click.echo("Note: there are no documents in the input.", err=True)
    with choice.load() as llama:
        ranking = rank_documents(
            llama,
            query,
            documents,
            top_n=top_n,
            threshold=threshold,
            score=score,
            truncate=truncate,
        )
        if wants_table(as_table):
            echo_ranking_table(ranking, documents)
            echo_footer(llama, ranking, len(documents))
        else:
            echo_ranking_json(ranking, documents)
