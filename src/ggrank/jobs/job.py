"""A job from its first row to its last: read, compute, write, in parts that are each done or not begun.

    sources -> rows -> blocks -> computed -> parts -> one file, where one was asked for

Knows the order of these steps, and what makes two jobs the same one.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import ggrank
from ggrank.errors import InputError
from ggrank.jobs.blocks import DEFAULT_PART_ROWS, BadRow, BlockReader
from ggrank.jobs.forms import Form, Format, JsonLines, check_sources, form_of, joined
from ggrank.jobs.outcome import Progress, Summary, counted, summed_up
from ggrank.jobs.parts import (
    JOB,
    SPOOL,
    PartRecord,
    Parts,
    check_same,
    job_folder,
    open_parts,
    read_json,
    remove,
)
from ggrank.jobs.rows import Place, RowReader
from ggrank.jobs.sources import Source, check_unchanged, stamp, with_facts, with_sums
from ggrank.jobs.steps import Step
from ggrank.jobs.workers import Compute, Done, compute_here, compute_in_workers, with_threads
from ggrank.jobs.writing import check_place, told, whole, write_json
from ggrank.loading.tuning import default_threads

_SUFFIXES: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl", ".npy": "npy"}

_NEEDS_ALL = (
    "; in a .npy only a row's number tells whose vector it is, so a bad row ends the job: .jsonl and "
    ".parquet can leave it out"
)


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        step: what is computed, by which model.
        sources: the rows, in order.
        output: a file that ends in .parquet, .jsonl or .npy; or a folder of parts.
        is_folder: the output is a folder, whatever its name ends in.
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
    is_folder: bool = False

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
        return not self.is_folder and self.output.suffix.lower() in _SUFFIXES

    @property
    def written(self) -> Format:
        """The format of what is written."""
        return _SUFFIXES[self.output.suffix.lower()] if self.is_file else self.format

    @property
    def folder(self) -> Path:
        """Where the parts are, at least until the job is done."""
        return self.beside(".parts") if self.is_file else self.output

    def beside(self, ending: str) -> Path:
        """A file beside the output."""
        output = self.output if self.output.name.strip(".") else self.output.resolve()  # "." has no name
        return output.with_name(output.name + ending)


def run(job: Job, *, on_progress: Callable[[Progress], object] = lambda progress: None) -> Summary:
    """Does a job, or what is left of it.

    Args:
        on_progress: called after each block.

    Returns:
        What came out. Where no row could be used nothing was written but the file of bad rows.

    Raises:
        InputError: what was asked for cannot be done, or a file cannot be read or written.
        GgrankError: whatever loading a model and computing raise.
    """
    started = perf_counter()
    if job.is_file:
        check_place(job.output)
        if job.output.exists() and not job.beside(".job.json").exists():
            raise InputError(
                f"{job.output} is there already, and no job made it; remove it, or name another --output"
            )
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
    engine = job.step.model.engine
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
    found = {name: counts[name] for name in ("rows", "bad_rows", "truncated", "tokens", "parts")}
    return summed_up(found, output="-", engine=engine, started=started, n_tokens=counts["tokens"])


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
        if self._is_done(mark, facts):
            return self._told(mark["summary"], facts, resumed_rows=mark["summary"]["rows"])
        form = form_of(job.written, job.sources, job.step)
        parts = self._parts(facts)
        resumed_rows = sum(record.rows for record in parts.records)
        self._compute(parts, form)
        counts = counted(parts.records)
        if counts["rows"]:
            self._finish(parts, form, facts, counts)
        else:  # nothing that should keep the command that is right from this output
            parts.discard()
            counts["parts"] = 0
        return self._told(counts, facts, resumed_rows=resumed_rows)

    def _is_done(self, mark: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
        """Whether nothing is left to do. Raises InputError where what is there is not what the job made."""
        job = self._job
        if not job.is_file:
            is_marked = "summary" in mark and mark.get("job") == facts
            return is_marked and len(self._parts(facts).records) == mark["summary"]["parts"]
        if not job.output.exists():
            return False  # a mark that is there may be of a job whose output was removed
        check_same(mark.get("job"), facts, f"{job.output} is of another job", "remove it and begin anew")
        size = job.output.stat().st_size
        if size != mark.get("size", size):
            raise InputError(
                f"{job.output} has {size:,} bytes instead of {mark['size']:,}; put it back, or remove it and "
                "begin anew"
            )
        return True

    def _parts(self, facts: Mapping[str, Any]) -> Parts:
        job = self._job
        return open_parts(
            job.folder,
            facts,
            suffix=f".{job.written}",
            bad=job.beside(".bad.jsonl"),
            sums={stamp(source): source.sha256 for source in job.sources},
        )

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
            hint=_NEEDS_ALL if job.written == "npy" else "",
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

    def _finish(self, parts: Parts, form: Form, facts: Mapping[str, Any], counts: Mapping[str, Any]) -> None:
        job = self._job
        if not job.is_file:
            parts.complete(counts)
            return
        with whole(job.output) as temporary:
            form.assemble(temporary, parts.paths())
            # Before the file has its name: a kill leaves no file that nobody knows.
            mark = {"job": facts, "summary": counts, "size": temporary.stat().st_size}
            write_json(job.beside(".job.json"), mark)

    def _told(self, counts: Mapping[str, Any], facts: Mapping[str, Any], *, resumed_rows: int) -> Summary:
        return summed_up(
            counts,
            output=str(self._job.output),
            engine=facts["model"]["engine"][0],
            started=self._started,
            n_tokens=self._n_tokens,
            resumed_rows=resumed_rows,
        )


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
