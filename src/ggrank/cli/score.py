"""``ggrank score``: (query, document) pairs from files of rows to the same rows with a score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from ggrank.cli.corpus import JobChoice, Rows, column_of, job_options, job_params, run_job
from ggrank.cli.options import BUNDLED_RERANKER, ModelChoice
from ggrank.cli.ray import model_or_ray_options

if TYPE_CHECKING:
    from ggrank.jobs.sources import Kind
    from ggrank.types import ScoreScale


@click.command(
    short_help="Score query and document pairs of files.",
    context_settings={"default_map": {"model": BUNDLED_RERANKER}},
)
@click.argument("files", nargs=-1, type=Rows(), metavar="[PATH]...")
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["auto", "jsonl", "csv", "parquet"]),
    default="auto",
    show_default=True,
    help="Of the files; auto goes by the suffix, and takes stdin for JSON lines.",
)
@click.option("--query-column", default="query", show_default=True, metavar="NAME", help="The pair's query.")
@click.option(
    "--document-column", default="document", show_default=True, metavar="NAME", help="The pair's document."
)
@click.option(
    "--score",
    type=click.Choice(["auto", "logit", "sigmoid"]),
    default="auto",
    show_default=True,
    help="The scale; auto is the model's own, mostly logit.",
)
@click.option(
    "--truncate",
    type=click.Choice(["end", "chunk"]),
    default="end",
    show_default=True,
    help="Longer than n_ctx: cut the end, or score windows and keep the best.",
)
@job_options
@model_or_ray_options
def score(
    files: tuple[str, ...],
    file_format: Literal["auto", "jsonl", "csv", "parquet"],
    query_column: str,
    document_column: str,
    score: ScoreScale,
    truncate: Literal["end", "chunk"],
    to: JobChoice,
    choice: ModelChoice,
) -> None:
    """Score pairs of a query and a document with a reranker: each row of the files gets a score.

    PATH is a file of JSON lines, CSV or Parquet, a folder of them, a pattern, or - for stdin.

    \b
    ggrank score pairs.jsonl > scored.jsonl
    ggrank score mined/*.parquet --output scored/          again after a stop: goes on
    ggrank score pairs.csv --query-column question --output scored.parquet

    Rows keep their order and their other columns; score and score_truncated are new. Bad rows go to
    OUTPUT.bad.jsonl. The last line on stdout sums up, as JSON; without --output it is on stderr.
    """
    from ggrank.jobs import ScoreStep

    step = ScoreStep(
        job_params(choice),
        query_column=query_column,
        document_column=document_column,
        score=score,
        truncate=truncate,
        column=column_of(to, "score"),
    )
    kind: Kind | None = None if file_format == "auto" else file_format
    run_job(files, to, step, kind=kind)
