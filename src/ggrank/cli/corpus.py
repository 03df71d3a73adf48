"""What `embed` and `score` share when they are jobs over files of rows: options, progress, the summary.

Knows flags and the terminal; `ggrank.jobs` does the work.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import wraps
from glob import glob, has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click
from click.core import ParameterSource

from ggrank.cli.console import echo_json
from ggrank.cli.options import Command, ModelChoice
from ggrank.cli.ranking import LONG
from ggrank.errors import InputError

if TYPE_CHECKING:
    from ggrank.jobs import BadRow, Format, Job, Progress, Source, Summary
    from ggrank.jobs.sources import Kind
    from ggrank.jobs.steps import Step
    from ggrank.jobs.workers import Compute
    from ggrank.loading.params import LlamaParams

SUFFIXES = (".parquet", ".jsonl", ".npy")

_OWN = {
    "output_format": "--output-format",
    "output_column": "--output-column",
    "part_rows": "--part-rows",
    "workers": "--workers",
    "is_strict": "--strict",
}


@dataclass(frozen=True)
class JobChoice:
    """Where rows go, and how a job is done; ``where`` gives who computes, if not this machine."""

    output: str | None
    output_format: Literal["parquet", "jsonl", "npy"]
    output_column: str | None
    part_rows: int
    workers: int
    is_strict: bool
    where: Callable[[], AbstractContextManager[Compute | None]] = nullcontext

    @property
    def path(self) -> Path | None:
        """Where rows go; None for stdout."""
        return None if self.output is None else Path(self.output)

    @property
    def is_folder(self) -> bool:
        """Whether the name says so, with a slash at its end."""
        return self.output is not None and self.output.endswith(("/", "\\"))

    @property
    def asked_for_by(self) -> str:
        """An option that only a job has, where one was given; else ""."""
        if self.where is not nullcontext:
            return "--engine ray or --address"
        return next((option for name, option in _OWN.items() if _is_given(name)), "")


class Rows(click.Path):
    """A file, a folder, ``-``, or a pattern that matches something; a string."""

    def __init__(self) -> None:
        super().__init__(exists=True, allow_dash=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Checks that something is there."""
        if isinstance(value, str) and has_magic(value) and not Path(value).exists():
            if not glob(value, recursive=True):  # noqa: PTH207  (as find_sources reads it)
                self.fail(f"No file matches {value!r}.", param, ctx)
            return value
        return super().convert(value, param, ctx)


def job_options(command: Command) -> Command:
    """--output and how a job is done, as the keyword ``to``."""

    @click.option(
        "--output",
        "-o",
        metavar="FILE|DIR",
        help="A file (.parquet, .jsonl or .npy), or a folder/ of parts; else stdout.",
    )
    @click.option(
        "--output-format",
        type=click.Choice(["parquet", "jsonl", "npy"]),
        default="parquet",
        show_default=True,
        help="Of the parts in a folder.",
    )
    @click.option("--output-column", metavar="NAME", help="The new column.")
    @click.option(
        "--part-rows",
        type=click.IntRange(min=1),
        default=8192,
        show_default=True,
        metavar="N",
        help="Rows of a part: what is done again after a kill.",
    )
    @click.option(
        "--workers",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        metavar="N",
        help="Processes that compute, each with its share of the cores.",
    )
    @click.option("--strict", "is_strict", is_flag=True, help="Stop at the first bad row.")
    @wraps(command)
    def collected(
        *,
        output: str | None,
        output_format: Format,
        output_column: str | None,
        part_rows: int,
        workers: int,
        is_strict: bool,
        **rest: Any,
    ) -> None:
        to = JobChoice(output, output_format, output_column, part_rows, workers, is_strict)
        command(to=to, **rest)

    return cast(Command, collected)


def _is_given(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT


def check_output(output: str) -> None:
    """Wrong usage where a name is neither that of a file to write nor of a folder."""
    path = Path(output)
    if path.suffix and path.suffix.lower() not in SUFFIXES and not path.is_dir() and output[-1] not in "/\\":
        raise click.BadParameter(
            f"{output} does not end in {', '.join(SUFFIXES)}; end the name of a folder with a slash",
            param_hint="'--output'",
        )


def job_params(choice: ModelChoice) -> LlamaParams:
    """The model of a job."""
    if choice.cache is not None:
        raise click.UsageError("--cache is not for jobs: what a job has done is in its output, and is kept.")
    return choice.params()


def run_job(
    files: tuple[str, ...], to: JobChoice, step: Step, *, kind: Kind | None, otherwise: Kind | None = None
) -> None:
    """Does a job, and tells what came out in a JSON line."""
    from ggrank.jobs import Job, find_sources

    if not files:
        if sys.stdin is None or sys.stdin.isatty():
            raise click.UsageError("No rows. Name files, folders or patterns, or pipe them in.")
        files = ("-",)
    if to.output is not None:
        check_output(to.output)
    _check_format(to)
    sources = find_sources(files, kind=kind, otherwise=otherwise, output=to.path)
    with to.where() as compute:
        job = Job(
            step,
            sources,
            to.path or Path("-"),
            format=to.output_format,
            part_rows=to.part_rows,
            workers=to.workers,
            is_strict=to.is_strict,
            compute=compute,
            is_folder=to.is_folder,
        )
        summary, first_bad = _stream(job) if to.output is None else _write(job)
    if not summary.rows:
        raise InputError(_why_nothing(first_bad, sources))


def _check_format(to: JobChoice) -> None:
    """Wrong usage where --output-format says another format than the output has."""
    if not _is_given("output_format") or to.is_folder or (to.path is not None and to.path.is_dir()):
        return
    suffix = ".jsonl" if to.path is None else to.path.suffix.lower()
    if suffix in SUFFIXES and suffix != f".{to.output_format}":
        what = "stdout gets JSON lines" if to.path is None else f"{to.output} is to be {suffix}"
        raise click.BadParameter(
            f"{what}, and not {to.output_format}; leave out one of the two, or name a folder/ of parts",
            param_hint="'--output-format'",
        )


def _why_nothing(bad: BadRow | None, sources: Sequence[Source]) -> str:
    if bad is None:
        return f"there are no rows in {', '.join(source.shown for source in sources)}"
    # Only then it may be another kind of file than its name says.
    hint = "; --format says what the files are, if they are something else"
    is_other = bad.reason.startswith("not JSON")
    return f"no row could be used; the first: {bad.file}:{bad.line}: {bad.reason}{hint if is_other else ''}"


def _write(job: Job) -> tuple[Summary, BadRow | None]:
    """Does the job; what came out, and the first bad row."""
    from ggrank.jobs import BadRow, run

    try:
        with _bar() as on_progress:
            summary = run(job, on_progress=on_progress)
    except KeyboardInterrupt:
        click.echo("\nStopped. What is done is kept; the same command goes on.", err=True)
        raise
    first_bad = None
    if summary.bad_rows:
        with job.beside(".bad.jsonl").open("rb") as lines:
            first_bad = BadRow(**json.loads(lines.readline()))
        rows = "1 row was" if summary.bad_rows == 1 else f"{summary.bad_rows:,} rows were"
        click.echo(f"Warning: {rows} left out: {job.beside('.bad.jsonl')} says which and why", err=True)
    echo_json(asdict(summary))
    if sys.stderr.isatty() and summary.seconds > LONG:
        echo_hint(job.step.params, summary.engine)
    return summary, first_bad


def echo_hint(params: LlamaParams, engine: str) -> None:
    """One line on what would be faster on this machine, if anything; to stderr, where the progress was."""
    from ggrank.hub import find_model
    from ggrank.loading.tuning import openvino_hint

    model = find_model(params.model, filename=params.filename, revision=params.revision).path
    if hint := openvino_hint(model, engine=engine):
        click.echo(hint, err=True)


def _stream(job: Job) -> tuple[Summary, BadRow | None]:
    """As `_write`, to stdout."""
    from ggrank.jobs import stream

    first_bad: list[BadRow] = []

    def tell(bad: BadRow) -> None:
        first_bad[:] = first_bad or [bad]
        click.echo(f"Warning: {bad.file}:{bad.line}: left out: {bad.reason}", err=True)

    lines = stream(job, on_bad=tell)
    while True:
        try:
            line = next(lines)
        except StopIteration as end:
            summary: Summary = end.value
            click.echo(json.dumps(asdict(summary)), err=True)  # stdout has the rows
            return summary, next(iter(first_bad), None)
        click.echo(line.encode("utf-8"), nl=False)


@contextmanager
def _bar() -> Iterator[Callable[[Progress], None]]:
    """On stderr, if that is a terminal: how far of the input's bytes, time left, rows, tokens per second."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return

    def facts(progress: Progress | None) -> str:
        if progress is None or not progress.seconds:
            return ""
        return f"{progress.rows:,} rows, {progress.n_tokens / progress.seconds:,.0f} tokens/s"

    with click.progressbar(length=1, label="rows", file=sys.stderr, item_show_func=facts) as bar:

        def show(progress: Progress) -> None:
            # Only what this run has to do: the time left would else count what others did as its own speed.
            bar.length = max(progress.n_bytes_total - progress.n_bytes_before, 1)
            bar.update(progress.n_bytes - progress.n_bytes_before - bar.pos, progress)

        yield show


def column_of(to: JobChoice, default: str) -> str:
    """The new column's name."""
    if to.output_column == "":
        raise InputError("--output-column needs a name")
    return to.output_column or default
