"""A job from its first row to its last: read, compute, write, in parts that are each done or not begun.

    sources -> rows -> blocks -> computed -> parts -> one file, where one was asked for

Knows the order of these steps, and what makes two jobs the same one.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import ggrank
from ggrank.corpus.blocks import DEFAULT_PART_ROWS, BadRow, BlockReader
from ggrank.corpus.forms import Form, Format, JsonLines, check_sources, form_of, joined
from ggrank.corpus.parts import JOB, PartRecord, Parts, check_same, job_folder, open_parts, read_json, remove
from ggrank.corpus.rows import Place, RowReader
from ggrank.corpus.sources import Source, check_unchanged, stamp, with_facts, with_sums
from ggrank.corpus.steps import Step
from ggrank.corpus.workers import Compute, Done, compute_here, compute_in_workers, with_threads
from ggrank.corpus.writing import check_place, told, whole, write_json
from ggrank.errors import InputError
from ggrank.tuning import default_threads

_SUFFIXES: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl", ".npy": "npy"}

SPOOL = "_stdin"
"""Where stdin is kept while a job reads it: its columns are looked at first, its rows afterwards."""


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        step: what is computed, by which model.
        sources: the rows, in order.
        output: a file that ends in .parquet, .jsonl or .npy; or a folder of parts.
        format: of a folder's parts.
        part_rows: rows of a part at most.
        workers: processes that compute; 1 is this one alone.
        is_strict: the first bad row is an error.
        compute: who computes, instead of ``workers``: `ggrank.integrations.ray_jobs.on_ray` gives one.
    """

    step: Step
    sources: tuple[Source, ...]
    output: Path
    format: Format = "parquet"
    part_rows: int = DEFAULT_PART_ROWS
    workers: int = 1
    is_strict: bool = False
    compute: Compute | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError("a job needs rows: name a file, a folder, a pattern, or - for stdin")
        for name in ("part_rows", "workers"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; found {getattr(self, name)}")
        if self.written == "npy" and not self.is_strict:
            # A row's number is all that tells whose vector it is.
            object.__setattr__(self, "is_strict", True)

    @property
    def is_file(self) -> bool:
        """Whether the parts become one file."""
        return self.output.suffix.lower() in _SUFFIXES

    @property
    def written(self) -> Format:
        """The format of what is written."""
        return _SUFFIXES.get(self.output.suffix.lower(), self.format)

    @property
    def folder(self) -> Path:
        """Where the parts are, at least until the job is done."""
        return self.beside(".parts") if self.is_file else self.output

    def beside(self, ending: str) -> Path:
        """A file beside the output."""
        return self.output.with_name(self.output.name + ending)


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        rows: done, those of earlier runs included.
        n_bytes, n_bytes_total: of the sources.
        n_bytes_before: done by earlier runs.
        n_tokens, seconds: of this run.
    """

    rows: int
    n_bytes: int
    n_bytes_total: int
    n_bytes_before: int
    n_tokens: int
    seconds: float


@dataclass(frozen=True)
class Summary:
    """What came out; the same however often the job was stopped, but for the last three.

    Attributes:
        output: as it was asked for.
        rows, bad_rows, truncated: how many were written, left out, and cut.
        tokens: that the model read.
        parts: that were written.
        resumed_rows: of ``rows``, those that were there when this run began.
        seconds: of this run.
        tokens_per_second: of this run; None where it computed nothing.
    """

    output: str
    rows: int
    bad_rows: int
    truncated: int
    tokens: int
    parts: int
    resumed_rows: int = 0
    seconds: float = 0.0
    tokens_per_second: float | None = None

    def lasting(self) -> dict[str, Any]:
        """What does not depend on when the job was stopped."""
        return {name: value for name, value in asdict(self).items() if name not in _OF_THE_RUN}


_OF_THE_RUN = ("output", "resumed_rows", "seconds", "tokens_per_second")


def run(job: Job, *, on_progress: Callable[[Progress], object] = lambda progress: None) -> Summary:
    """Does a job, or what is left of it.

    Args:
        on_progress: called after each block.

    Raises:
        InputError: what was asked for cannot be done, or a file cannot be read or written.
        GgrankError: whatever loading a model and computing raise.
    """
    started = perf_counter()
    if job.is_file:
        check_place(job.output)
    try:
        job.step.settings()  # loads the model: what is wrong with it is told before anything is written
        with job_folder(job.folder):
            try:
                summary = _Run(job, on_progress, started).to_end()
            finally:
                (job.folder / SPOOL).unlink(missing_ok=True)
    finally:
        job.step.close()
    if job.is_file:
        remove(job.folder)
    return summary


def stream(job: Job, *, on_bad: Callable[[BadRow], object]) -> Generator[str, None, Summary]:
    """The rows with their new columns as JSON lines, as soon as they are computed; nothing is kept.

    Args:
        job: whose output is not looked at.
        on_bad: called with each row that is left out.

    Returns:
        What came out.
    """
    started, counts = perf_counter(), Counter[str]()
    check_sources(job.sources, job.step)
    reader = RowReader(job.sources, job.step.read)
    blocks = BlockReader(reader, job.step, part=0, part_rows=job.part_rows, is_strict=job.is_strict)
    try:
        for done in _computed(blocks, job):
            for bad in done.block.bad:
                on_bad(bad)
            yield from JsonLines().lines(done.block.rows, done.computed.columns)
            cut = done.computed.columns[f"{job.step.column}_truncated"]
            counts.update(rows=len(cut), bad_rows=len(done.block.bad), truncated=int(cut.sum()))
            counts.update(tokens=done.computed.n_tokens)
    finally:
        job.step.close()
    counted = {name: counts[name] for name in ("rows", "bad_rows", "truncated", "tokens")}
    return _timed({**counted, "parts": 0}, "-", counts["tokens"], started)


class _Run:
    """One run of a job; the folder's lock is held."""

    def __init__(self, job: Job, on_progress: Callable[[Progress], object], started: float) -> None:
        self._job, self._on_progress, self._started = job, on_progress, started
        self._n_tokens = 0

    def to_end(self) -> Summary:
        """Everything that is left to do."""
        job = self._job
        facts = {**job.step.settings(), "model": job.step.model.identity()}
        job = self._job = replace(job, sources=self._summed())
        facts = _facts(job, facts)
        mark = read_json(job.beside(".job.json")) if job.is_file else read_json(job.folder / JOB)
        if mark.get("job") == facts and "summary" in mark and (not job.is_file or job.output.is_file()):
            return self._told(mark["summary"], resumed_rows=mark["summary"]["rows"])
        if "job" in mark and job.is_file and job.output.is_file():
            check_same(mark["job"], facts, f"{job.output} is of another job", "remove it and begin anew")
        form = form_of(job.written, job.sources, job.step)
        parts = open_parts(
            job.folder,
            facts,
            suffix=form.suffix,
            bad=job.beside(".bad.jsonl"),
            sums={stamp(source): source.sha256 for source in job.sources},
        )
        resumed_rows = sum(record.rows for record in parts.records)
        self._compute(parts, form)
        summary = _counted(job, parts.records)
        self._finish(parts, form, facts, summary)
        return self._told(summary.lasting(), resumed_rows=resumed_rows)

    def _summed(self) -> tuple[Source, ...]:
        """The sources with their sums; stdin is kept first."""
        sources = self._job.sources
        if sources[0].path is None:
            spool = self._job.folder / SPOOL
            with told(spool), spool.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
            sources = (with_facts(replace(sources[0], spool=str(spool))),)
        return with_sums(sources, read_json(self._job.folder / JOB).get("sums", {}))

    def _compute(self, parts: Parts, form: Form) -> None:
        job = self._job
        last = parts.records[-1] if parts.records else None
        start = last.after if last else Place()
        reader = RowReader(job.sources, job.step.read, start)
        blocks = BlockReader(
            reader,
            job.step,
            part=len(parts.records),
            part_rows=job.part_rows,
            is_strict=job.is_strict,
        )
        rows_before = sum(record.rows + record.bad_rows for record in parts.records)
        waiting: list[Done] = []
        begun = start
        n_rows = rows_before
        for done in _computed(blocks, job):
            waiting.append(done)
            n_rows += done.block.n_rows
            self._n_tokens += done.computed.n_tokens
            if done.block.ends_part:
                for source in job.sources[begun.source : done.block.after.source + 1]:
                    check_unchanged(source)
                _commit(parts, form, waiting, column=job.step.column)
                waiting, begun = [], done.block.after
            self._report(n_rows, done.block.after, start)

    def _report(self, rows: int, after: Place, start: Place) -> None:
        total = sum(source.size for source in self._job.sources)
        self._on_progress(
            Progress(
                rows=rows,
                n_bytes=self._n_bytes(after),
                n_bytes_total=total,
                n_bytes_before=self._n_bytes(start),
                n_tokens=self._n_tokens,
                seconds=perf_counter() - self._started,
            )
        )

    def _n_bytes(self, place: Place) -> int:
        """Of the sources, before a place; of compressed ones in whole files."""
        sources = self._job.sources
        before = sum(source.size for source in sources[: place.source])
        here = sources[place.source]
        return before + (0 if here.is_compressed else min(place.offset, here.size))

    def _finish(self, parts: Parts, form: Form, facts: Mapping[str, Any], summary: Summary) -> None:
        job = self._job
        if not job.is_file:
            parts.complete(summary.lasting())
            return
        with whole(job.output) as temporary:
            form.assemble(temporary, parts.paths())
        write_json(job.beside(".job.json"), {"job": facts, "summary": summary.lasting()})

    def _told(self, lasting: Mapping[str, Any], *, resumed_rows: int) -> Summary:
        timed = _timed(lasting, str(self._job.output), self._n_tokens, self._started)
        return replace(timed, resumed_rows=resumed_rows)


def _timed(lasting: Mapping[str, Any], output: str, n_tokens: int, started: float) -> Summary:
    """A summary of what came out, with the speed of this run."""
    seconds = perf_counter() - started
    speed = round(n_tokens / seconds, 1) if n_tokens else None
    return Summary(output=output, **lasting, seconds=round(seconds, 3), tokens_per_second=speed)


def _facts(job: Job, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What makes two jobs the same one."""
    return {
        **facts,
        "ggrank": ggrank.__version__,
        "format": job.written,
        "part_rows": job.part_rows,
        "strict": job.is_strict,
        "files": [source.shown for source in job.sources],
        "input": {
            source.shown: {"kind": source.kind, "bytes": source.size, "sha256": source.sha256}
            for source in job.sources
        },
    }


def _computed(blocks: BlockReader, job: Job) -> Iterator[Done]:
    """Blocks with their new columns, in order, by as many processes as were asked for."""
    if job.compute is not None:
        return job.compute(blocks, job.step)
    if job.workers == 1:
        return compute_here(blocks, job.step)
    job.step.close()  # it said what had to be known; here nothing is computed any more
    each = max(1, (job.step.params.n_threads or default_threads()) // job.workers)
    step = with_threads(job.step, each)
    return compute_in_workers(blocks, step, workers=job.workers)


def _commit(parts: Parts, form: Form, done: list[Done], *, column: str) -> None:
    rows = [row for one in done for row in one.block.rows]
    columns = joined([one.computed.columns for one in done])
    bad = [bad for one in done for bad in one.block.bad]
    record = PartRecord(
        part=done[0].block.part,
        rows=len(rows),
        bad_rows=len(bad),
        truncated=int(columns[f"{column}_truncated"].sum()),
        n_tokens=sum(one.computed.n_tokens for one in done),
        after=done[-1].block.after,
    )
    parts.commit(record, write=lambda path: form.write(path, rows, columns), bad=bad)


def _counted(job: Job, records: list[PartRecord]) -> Summary:
    return Summary(
        output=str(job.output),
        rows=sum(record.rows for record in records),
        bad_rows=sum(record.bad_rows for record in records),
        truncated=sum(record.truncated for record in records),
        tokens=sum(record.n_tokens for record in records),
        parts=len(records),
    )
