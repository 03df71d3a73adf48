"""``ggrank job embed`` and ``ggrank job score``: files of rows to the same rows with vectors or scores."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ggrank.cli.console import count, echo_json, progress_bar
from ggrank.cli.options import (
    BUNDLED_RERANKER,
    DEFAULT_MODEL,
    ENGINES,
    Command,
    ModelChoice,
    n_option,
    vector_options,
    with_options,
)
from ggrank.cli.ranking import LONG
from ggrank.errors import InputError

if TYPE_CHECKING:
    from ggrank.jobs import Job, Progress, Summary
    from ggrank.jobs.steps import Step, VectorDtype
    from ggrank.loading.params import LlamaParams
    from ggrank.types import ScoreScale

_STOPPED = "\nStopped. What is done is kept; the same command goes on."


@click.group(short_help="Embed or score whole files of rows.")
def job() -> None:
    """Embed or score files of rows: JSON lines, CSV, TSV or Parquet.

    After a stop the same command goes on; of a folder with new files it computes only these.
    """


def job_options(column: str, model: str) -> Callable[[Command], Command]:
    """The options of both jobs; a command passes them on to `_params` and `_run` as they come."""
    return with_options(
        click.argument("paths", nargs=-1, metavar="[PATH]..."),
        click.option(
            "--output",
            "-o",
            metavar="DIR|FILE",
            help="A folder (later runs add to it), or a .parquet or .jsonl file; default stdout.",
        ),
        click.option(
            "--format",
            "file_format",
            type=click.Choice(["auto", "jsonl", "csv", "tsv", "parquet", "text"]),
            default="auto",
            show_default=True,
            help="Format of the input; auto: by the suffix, else by the first line.",
        ),
        click.option(
            "--output-format",
            type=click.Choice(["parquet", "jsonl"]),
            default="parquet",
            show_default=True,
            help="Format of files in an output folder.",
        ),
        click.option("--column", default=column, show_default=True, metavar="NAME", help="The new column."),
        n_option(
            "--shard-rows",
            default=8192,
            show_default=True,
            help="Rows of a shard; a stop loses one at most.",
        ),
        n_option(
            "--workers",
            default=1,
            show_default=True,
            help="Processes that compute, each with its share of the cores.",
        ),
        click.option(
            "--ray", metavar="ADDRESS", help="Compute on a Ray cluster: local, auto, HOST:PORT, ray://..."
        ),
        click.option(
            "--model", "-m", default=model, show_default=True, metavar="NAME|PATH|REPO", help="The model."
        ),
        n_option("--n-ctx", help="Longest text or pair in tokens."),
        click.option(
            "--engine", type=click.Choice(ENGINES), default="auto", show_default=True, help="What computes."
        ),
    )


@job.command(short_help="Add a vector to each row.")
@job_options("embedding", DEFAULT_MODEL)
@click.option(
    "--text-column",
    "text_columns",
    multiple=True,
    metavar="NAME",
    help="Column to embed, default text after title; repeatable.",
)
@click.option("--prefix", help="Text to set before each text, in place of the model's own for documents.")
@vector_options
def embed(
    text_columns: tuple[str, ...],
    prefix: str | None,
    dtype: VectorDtype,
    dimensions: int | None,
    **choice: Any,
) -> None:
    """Embed the rows of files: each gets a vector.

    PATH is a file of JSON lines, CSV, TSV or Parquet, a folder of them, a pattern, or - for stdin.

    \b
    ggrank job embed corpus/ --output vectors/     again: only new and changed
    ggrank job embed corpus.jsonl --output corpus.parquet --dtype int8

    Rows keep their order and their other columns; embedding and embedding_truncated are new. Rows that cannot
    be used are left out, and go to a file of their own. The last line on stdout sums up, as JSON.
    """
    from ggrank.jobs import EmbedStep

    step = EmbedStep(_params(choice), text_columns, prefix, dtype, dimensions, choice["column"])
    _run(step, choice)


@job.command(short_help="Add a score to each pair.")
@job_options("score", BUNDLED_RERANKER)
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
def score(
    query_column: str,
    document_column: str,
    score: ScoreScale,
    truncate: Literal["end", "chunk"],
    **choice: Any,
) -> None:
    """Score pairs of a query and a document with a reranker: each row of the files gets a score.

    PATH is a file of JSON lines, CSV, TSV or Parquet, a folder of them, a pattern, or - for stdin.

    \b
    ggrank job score pairs.jsonl > scored.jsonl
    ggrank job score mined/ --output scored/       again: only new and changed

    Rows keep their order and their other columns; score and score_truncated are new. Rows that cannot be used
    are left out, and go to a file of their own. The last line on stdout sums up, as JSON.
    """
    from ggrank.jobs import ScoreStep

    step = ScoreStep(_params(choice), query_column, document_column, score, truncate, choice["column"])
    _run(step, choice)


def _params(choice: dict[str, Any]) -> LlamaParams:
    return ModelChoice(choice["model"], n_ctx=choice["n_ctx"], engine=choice["engine"]).params()


def _run(step: Step, choice: dict[str, Any]) -> None:
    from ggrank.jobs import Job, find_sources

    paths = choice["paths"]
    if not paths:
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError("No rows. Name files, folders or patterns, or pipe them in.")
        paths = ("-",)
    output, is_folder = _place(choice["output"])
    if choice["ray"] is not None and output is None:
        raise click.UsageError("--ray needs --output: the machines of a cluster write the rows themselves.")
    sources = find_sources(paths, output=output)
    options = {name: choice[name] for name in ("file_format", "shard_rows", "workers")}
    options |= {"format": choice["output_format"], "is_folder": is_folder, "tell": _note}
    asked = Job(step, sources, output or Path("-"), **options)
    summary = _stream(asked) if output is None else _write(asked, choice["ray"])
    if not summary.rows:
        names = ", ".join("stdin" if name == "-" else name for name in sources)
        found = "no row could be used of" if summary.bad_rows else "there are no rows in"
        raise InputError(f"{found} {names}")


def _place(output: str | None) -> tuple[Path | None, bool]:
    """Where rows go, and whether its name says that it is a folder."""
    if output in (None, "-"):
        return None, False
    path, is_folder = Path(output), output.endswith(("/", "\\"))
    if (
        path.suffix
        and path.suffix.lower() not in (".parquet", ".jsonl")
        and not is_folder
        and not path.is_dir()
    ):
        raise click.BadParameter(
            f"{output} does not end in .parquet or .jsonl; end the name of a folder with a slash",
            param_hint="'--output'",
        )
    return path, is_folder


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the job with a word; exit codes 130 and 143, as a shell has them."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        click.echo(_STOPPED, err=True)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _write(asked: Job, ray: str | None) -> Summary:
    from ggrank.jobs import run

    run_job: Callable[..., Summary] = run
    if ray is not None:
        from ggrank.integrations.ray import run_on_ray

        run_job = partial(run_on_ray, address=None if ray == "local" else ray)
    # Ray prints to stdout what it has to say of lost workers.
    with _stopped_by_signals(), _bar() as on_progress, redirect_stdout(sys.stderr):
        summary = run_job(asked, on_progress=on_progress)
    if summary.bad_rows:
        where = f"{asked.output}.bad.jsonl" if asked.is_file else f"{asked.output}/_part-*.bad"
        _warn(f"{count(summary.bad_rows, 'row')} left out; which and why: {where}")
    if summary.removed:
        more = f" and {len(summary.removed) - 3:,} more" if len(summary.removed) > 3 else ""
        _warn(f"{', '.join(summary.removed[:3])}{more}: gone since an earlier run; rows that were done stay")
    echo_json(asdict(summary))
    if sys.stderr.isatty() and summary.seconds > LONG:
        echo_hint(asked.step.params, summary.engine)
    return summary


def _stream(asked: Job) -> Summary:
    from ggrank.jobs import stream

    summary = stream(asked, partial(click.echo, nl=False))
    click.echo(json.dumps(asdict(summary)), err=True)  # stdout has the rows
    return summary


def _note(text: str) -> None:
    click.echo(f"Note: {text}", err=True)


def _warn(text: str) -> None:
    click.echo(f"Warning: {text}", err=True)


def echo_hint(params: LlamaParams, engine: str) -> None:
    """One line on what would be faster on this machine, if anything; to stderr, where the progress was."""
    from ggrank.hub import find_model
    from ggrank.loading.tuning import openvino_hint

    model = find_model(params.model, filename=params.filename, revision=params.revision).path
    if hint := openvino_hint(model, engine=engine):
        click.echo(hint, err=True)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """On a terminal's stderr: how much of the input is done, the time left, rows and tokens per second."""
    with progress_bar("rows") as show:

        def advance(progress: Progress) -> None:
            speed = progress.tokens / max(progress.seconds, 1e-3)
            note = f"{progress.rows:,} rows, {speed:,.0f} tokens/s"
            show(round(1000 * progress.fraction), 1000, note)

        yield advance
