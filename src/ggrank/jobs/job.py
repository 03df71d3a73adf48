"""A job from its first row to its last: read, compute, write; stopped at any moment, the same job goes on.

sources -> units -> shards -> computed -> written beside and renamed -> one file, where one was asked for
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

from ggrank.errors import InputError
from ggrank.jobs.output import Folder, Format, is_same, joined, json_lines
from ggrank.jobs.shards import SHARD_ROWS, Shard, shards_of
from ggrank.jobs.sources import STDIN
from ggrank.jobs.steps import Computed, Item, Step
from ggrank.jobs.workers import compute_all
from ggrank.rows.parquet import check_pyarrow
from ggrank.rows.reading import FileFormat

_FORMATS: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl"}


def _silent(_told: object) -> None:
    pass


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        step: what is computed, by which model.
        sources: the files of rows, in order, or ("-",) for stdin; see `find_sources`.
        output: a folder of shards, which can grow; or one file that ends in .parquet or .jsonl.
        file_format: of the sources; "auto" goes by their names, or else by how they begin.
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
        return Folder(self.output, self.written, self.step, is_file=self.is_file)

    def shards(self, sources: Sequence[str], *, written: Format) -> Iterator[Shard]:
        """The shards of some of the sources."""
        options: Any = {"file_format": self.file_format, "shard_rows": self.shard_rows, "tell": self.tell}
        return shards_of(sources, self.step, all_columns=written == "jsonl", **options)


class Progress(NamedTuple):
    """How far a run is: rows and tokens that it computed, about which fraction of its input, and seconds."""

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

    def __init__(self, on_progress: Callable[[Progress], object] = _silent) -> None:
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
            **counts,
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
    on_progress: Callable[[Progress], object] = _silent,
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
    tally, folder = Tally(on_progress), job.folder
    if job.written == "parquet":
        check_pyarrow()
    try:
        # What is wrong with the model is said before anything is written.
        facts = {**job.step.facts(), "format": job.written, "shard_rows": job.shard_rows}
        with folder.held():
            units, removed = folder.plan(job.sources, facts, job.file_format)
            # A stream is read again even when it is done: it could be another one.
            todo = [(n, names) for n, names in enumerate(units) if STDIN in names or not folder.is_done(n)]
            (compute or _compute_here)(job, todo, tally)
            counts = folder.counts(len(units))
            folder.finish()
    finally:
        job.step.close()
    return tally.summary(str(job.output), counts, facts["model.engine"][0], removed)


def _compute_here(job: Job, todo: Units, tally: Tally) -> None:
    files = [Path(name) for _, names in todo for name in names if name != STDIN]
    tally.size = max(1, sum(path.stat().st_size for path in files))
    compute_units(job, todo, tally)


@dataclass
class _Unit:
    """A unit at work: its record, and its shards, good rows by file and bad rows so far."""

    number: int
    record: dict[str, Any]
    shards: list[int] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    n_bad: int = 0


_Piece = tuple[_Unit, "Shard | None"]


def compute_units(job: Job, units: Units, tally: Tally) -> None:
    """Computes and writes the shards of units that are missing."""
    folder = job.folder
    _ = folder.origins  # as long as the model is loaded here
    work = _pieces(job, folder, units)
    for (unit, shard), computed in compute_all(work, job.step, tally, workers=job.workers):
        if shard is not None:
            tally.size_done += shard.size
            _finish(folder, unit, shard, computed)
        elif "rows" not in unit.record:
            found = {"shards": unit.shards, "rows": dict(unit.rows), "bad_rows": unit.n_bad}
            folder.record(unit.number, unit.record | found)


def _pieces(job: Job, folder: Folder, units: Units) -> Iterator[tuple[_Piece, list[list[Item]]]]:
    """Each shard of each unit with the blocks that are to be computed, and after them the unit's end."""
    for number, names in units:
        unit = _Unit(number, folder.begin(number, names))
        shards = job.shards(names, written=job.written)
        if STDIN in names:
            shards = _checked(shards, unit.record, job.output)
        for shard in shards:
            there = folder.is_finished or folder.shard_path(number, shard.number).exists()
            shard.is_done = shard.is_done and there
            yield (unit, shard), ([] if shard.is_done else shard.blocks())
        yield (unit, None), []


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
        for row in (*shard.rows, *shard.bad):
            checksum.update(repr((row.values, row.problem)).encode("utf-8", "surrogatepass"))
        if number == last and checksum.hexdigest() != expected:
            raise other
        if number > last:
            if "rows" in record:
                raise other
            shard.is_done, shard.checksum = False, checksum.hexdigest()
        yield shard
    if number < last:
        raise other


def _finish(folder: Folder, unit: _Unit, shard: Shard, computed: Sequence[Computed]) -> None:
    """Writes a shard where it is not done, and counts its rows."""
    for name, facts in unit.record["files"].items():
        if not is_same(name, facts):
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
    work = ((shard, shard.blocks()) for shard in job.shards(job.sources, written="jsonl"))
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
