"""A job from its first row to its last: read, compute, write; stopped at any moment, the same job goes on.

sources -> units -> shards -> computed -> written beside and renamed -> one file, where one was asked for
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from ggrank.errors import InputError
from ggrank.jobs.output import (
    Folder,
    Format,
    assemble,
    beside,
    check_input,
    check_place,
    finished,
    is_same,
    joined,
    json_lines,
)
from ggrank.jobs.shards import SHARD_ROWS, Shard, shards_of
from ggrank.jobs.sources import STDIN
from ggrank.jobs.steps import Computed, Item, Step
from ggrank.jobs.workers import compute_all
from ggrank.rows.parquet import check_pyarrow
from ggrank.rows.reading import FileFormat

_FORMATS: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl"}


def _silent(_message: str) -> None:
    pass


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        step: what is computed, by which model.
        sources: the files of rows, in order, or ("-",) for stdin; see `find_sources`.
        output: a folder of shards, which can grow; or one file that ends in .parquet or .jsonl.
        file_format: of the sources; "auto" as `ggrank.rows.reading.read_rows` has it.
        format: of a folder's shards.
        shard_rows: rows of a shard at most.
        workers: processes that compute; 1 is this one alone.
        is_folder: the output is a folder, whatever its name ends in.
        tell: is called with what the user should know of how a file is read.

    Raises:
        InputError: there are no sources, or a number is below 1.
    """

    step: Step
    sources: tuple[str, ...]
    output: Path
    file_format: FileFormat = "auto"
    format: Format = "parquet"
    shard_rows: int = SHARD_ROWS
    workers: int = 1
    is_folder: bool = False
    tell: Callable[[str], object] = _silent

    def __post_init__(self) -> None:
        if not self.sources:
            raise InputError("a job needs rows: name a file, a folder, a pattern, or - for stdin")
        for name in ("shard_rows", "workers"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; found {getattr(self, name)}")

    @property
    def is_file(self) -> bool:
        """Whether the shards become one file."""
        return not self.is_folder and self.output.suffix.lower() in _FORMATS

    @property
    def written(self) -> Format:
        """The format of what is written."""
        return _FORMATS[self.output.suffix.lower()] if self.is_file else self.format

    @property
    def folder(self) -> Folder:
        """Where the shards are, at least until the job is done."""
        path = beside(self.output, ".shards") if self.is_file else self.output
        return Folder(path, self.written, self.step)

    def facts(self) -> dict[str, Any]:
        """What makes two jobs the same one; loads the model."""
        return {**self.step.facts(), "format": self.written, "shard_rows": self.shard_rows}

    def shards(self, sources: Sequence[str], *, all_columns: bool) -> Iterator[Shard]:
        """The shards of some of the sources."""
        return shards_of(
            sources,
            self.step,
            file_format=self.file_format,
            shard_rows=self.shard_rows,
            all_columns=all_columns,
            tell=self.tell,
        )


@dataclass(frozen=True)
class Progress:
    """How far this run is.

    Attributes:
        rows, tokens: that it computed and read.
        fraction: of its input, about, 0 to 1.
        seconds: since it began.
    """

    rows: int
    tokens: int
    fraction: float
    seconds: float


@dataclass(frozen=True)
class Summary:
    """What came out.

    Attributes:
        output: as it was asked for.
        rows, bad_rows, shards: of the whole output, left out of it, and how many shards it has or had.
        new_rows, truncated, tokens: computed by this run, cut by it, and read by it.
        removed: files that earlier runs had and that are gone; the rows of those that were done stay.
        engine: that computed, "llama.cpp" or "openvino".
        seconds: of this run.
        tokens_per_second: of this run; None where it computed nothing.
    """

    output: str
    rows: int
    bad_rows: int
    shards: int
    new_rows: int
    truncated: int
    tokens: int
    removed: tuple[str, ...]
    engine: str
    seconds: float
    tokens_per_second: float | None


class Tally:
    """Counts what one run computes, and reports its progress."""

    def __init__(self, on_progress: Callable[[Progress], object] = lambda progress: None) -> None:
        self._on_progress, self._started = on_progress, perf_counter()
        self.rows = self.tokens = self.truncated = 0
        self.size_done, self.size = 0, 1

    def __call__(self, computed: Computed) -> None:
        """Takes a block that was computed."""
        _, truncated = computed.columns.values()
        self.add(rows=len(truncated), truncated=int(truncated.sum()), tokens=computed.n_tokens)

    def add(self, *, rows: int, truncated: int, tokens: int) -> None:
        """Counts what was computed, here or elsewhere."""
        self.rows += rows
        self.truncated += truncated
        self.tokens += tokens
        fraction = min(1.0, self.size_done / self.size)
        self._on_progress(Progress(self.rows, self.tokens, fraction, perf_counter() - self._started))

    def summary(self, output: str, counts: Mapping[str, int], engine: str, removed: Sequence[str]) -> Summary:
        """What came out of the run."""
        seconds = perf_counter() - self._started
        return Summary(
            output,
            **{name: counts[name] for name in ("rows", "bad_rows", "shards")},
            new_rows=self.rows,
            truncated=self.truncated,
            tokens=self.tokens,
            removed=tuple(removed),
            engine=engine,
            seconds=round(seconds, 3),
            tokens_per_second=round(self.tokens / seconds, 1) if self.tokens else None,
        )


Units = list[tuple[int, list[str]]]
"""Units with their numbers."""


def run(
    job: Job,
    *,
    on_progress: Callable[[Progress], object] = lambda progress: None,
    compute: Callable[[Job, Units, Tally], None] | None = None,
) -> Summary:
    """Does a job, or what is left of it.

    Args:
        on_progress: called after each block of rows.
        compute: does `compute_units` of the units that it is given somewhere else; None for here.

    Returns:
        What came out. Where no row could be used, only bad rows were written.

    Raises:
        InputError: what was asked for cannot be done, or a file cannot be read or written.
        GgrankError: whatever loading a model and computing raise.
    """
    tally = Tally(on_progress)
    if job.is_file:
        check_place(job.output)
    if job.written == "parquet":
        check_pyarrow()
    try:
        facts = job.facts()  # what is wrong with the model is said before anything is written
        engine = facts["model"]["engine"][0]
        folder = job.folder
        if job.is_file and (mark := finished(job.output, job.sources, facts)):
            if job.sources == (STDIN,):  # read to its end, to compare it
                all(True for _ in _checked(_shards(job, job.sources), mark, job.output))
            return tally.summary(str(job.output), mark["counts"], engine, ())
        with folder.held():
            if job.is_file:
                check_input(job.output, job.sources, folder)
            units, removed = folder.plan(job.sources, facts, job.file_format)
            todo = [
                (number, names)
                for number, names in enumerate(units)
                if folder.counts(number) is None or STDIN in names  # a stream is compared again
            ]
            (compute or _compute_here)(job, todo, tally)
            found = [folder.counts(number) or {} for number in range(len(units))]
            counts = {name: sum(one.get(name, 0) for one in found) for name in ("rows", "bad_rows")}
            counts["shards"] = len(folder.shard_paths())
            if job.is_file:
                assemble(job.output, folder, counts)
    finally:
        job.step.close()
    if job.is_file:
        shutil.rmtree(folder.path, ignore_errors=True)
    return tally.summary(str(job.output), counts, engine, removed)


def _compute_here(job: Job, todo: Units, tally: Tally) -> None:
    files = [Path(name) for _, names in todo for name in names if name != STDIN]
    tally.size = max(1, sum(path.stat().st_size for path in files))
    for _ in compute_units(job, todo, tally):
        pass


@dataclass
class _Unit:
    """A unit at work: what is recorded of it, and what it has so far."""

    number: int
    record: dict[str, Any]
    shards: list[int] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    """Good rows by file."""
    n_bad: int = 0


_Piece = tuple[_Unit, "Shard | None"]


def compute_units(job: Job, units: Units, tally: Tally) -> Iterator[int]:
    """Computes and writes the shards of units that are missing; yields each unit's number when it is done."""
    folder = job.folder
    _ = folder.origins  # as long as the model is loaded here
    work = _pieces(job, folder, units)
    for (unit, shard), computed in compute_all(work, job.step, tally, workers=job.workers):
        if shard is None:
            found = {"shards": unit.shards, "rows": dict(unit.rows), "bad_rows": unit.n_bad}
            folder.record(unit.number, unit.record | found)
            yield unit.number
        else:
            tally.size_done += shard.size
            _finish(folder, unit, shard, computed)


def _pieces(job: Job, folder: Folder, units: Units) -> Iterator[tuple[_Piece, list[list[Item]]]]:
    """Each shard of each unit with the blocks that are to be computed, and after them the unit's end."""
    for number, names in units:
        unit = _Unit(number, folder.begin(number, names))
        shards = _shards(job, names)
        if STDIN in names:
            shards = _checked(shards, unit.record, job.output)
        for shard in shards:
            shard.is_done = shard.is_done and folder.shard_path(number, shard.number).exists()
            yield (unit, shard), ([] if shard.is_done else shard.blocks())
        yield (unit, None), []


def _shards(job: Job, names: Sequence[str]) -> Iterator[Shard]:
    return job.shards(names, all_columns=job.written == "jsonl")


def _checked(shards: Iterable[Shard], record: Mapping[str, Any], output: Path) -> Iterator[Shard]:
    """The shards of a stream, compared with the checksum that an earlier run recorded. Those after it are not
    done; they get the checksum of all rows so far.
    """
    last, expected = record.get("checked") or (-1, "")
    checksum, number = hashlib.sha256(), -1
    other = InputError(
        f"stdin is another stream than the one that {output} was begun with; give the same again, or name "
        "another --output"
    )
    for number, shard in enumerate(shards):
        for row in shard.rows:
            checksum.update(repr(row.values).encode("utf-8", "surrogatepass"))
        for row in shard.bad:
            checksum.update(repr((row.line, row.problem)).encode("utf-8", "surrogatepass"))
        if number == last and checksum.hexdigest() != expected:
            raise other
        if number > last:
            if "rows" in record or "counts" in record:
                raise other
            shard.is_done, shard.checksum = False, checksum.hexdigest()
        yield shard
    if number < last:
        raise other


def _finish(folder: Folder, unit: _Unit, shard: Shard, computed: Sequence[Computed]) -> None:
    """Writes a shard where it is not done, and counts its rows."""
    for name, facts in unit.record["files"].items():
        if facts and not is_same(name, facts):
            raise InputError(f"{name} was changed while it was read; start the same command again")
    read = Counter(row.file for row in (*shard.rows, *shard.bad))
    if not shard.is_done:
        folder.write(unit.number, shard, computed)
    if shard.checksum:
        unit.record["checked"] = [shard.number, shard.checksum]
        folder.record(unit.number, unit.record)
    bad = Counter(row["file"] for row in folder.bad_rows(unit.number, shard.number))
    unit.n_bad += bad.total()
    unit.rows.update(read - bad)
    if shard.rows:
        unit.shards.append(shard.number)


def stream(job: Job, write: Callable[[bytes], object]) -> Summary:
    """Computes the rows and writes them as JSON lines, shard by shard; nothing is kept.

    Args:
        job: whose output is not looked at; its ``tell`` is called for each row that is left out.
        write: called with each line.
    """
    tally, n_bad = Tally(), 0
    engine = job.step.model.engine
    work = ((shard, shard.blocks()) for shard in job.shards(job.sources, all_columns=True))
    try:
        for shard, computed in compute_all(work, job.step, tally, workers=job.workers):
            n_bad += len(shard.bad)
            for row in shard.bad:
                job.tell(f"{row.file}:{row.line}: left out: {row.problem}")
            for line in json_lines(shard.rows, joined(computed)):
                write(line)
    finally:
        job.step.close()
    return tally.summary("-", {"rows": tally.rows, "bad_rows": n_bad, "shards": 0}, engine, ())
