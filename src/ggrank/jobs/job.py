"""A job from its first row to its last: read, compute, write; stopped at any moment, the same job goes on.

sources -> units -> shards -> computed -> written beside and renamed -> one file, where one was asked for
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

from ggrank.errors import InputError
from ggrank.jobs.output import (
    JOB,
    LOCK,
    Folder,
    assemble_file,
    beside,
    check_input,
    check_place,
    finished,
    is_same,
)
from ggrank.jobs.shards import SHARD_ROWS, BadRow, Shard, shards_of
from ggrank.jobs.sources import STDIN, Source
from ggrank.jobs.steps import Computed, Item, Step
from ggrank.jobs.tables import Format, joined, json_lines
from ggrank.jobs.workers import compute_here, compute_in_workers, with_threads
from ggrank.loading.tuning import default_threads
from ggrank.rows.parquet import check_pyarrow
from ggrank.rows.writing import locked, write_errors

T = TypeVar("T")

_FORMATS: dict[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl"}


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Attributes:
        step: what is computed, by which model.
        sources: the rows, in order.
        output: a folder of shards, which can grow; or one file that ends in .parquet or .jsonl.
        format: of a folder's shards.
        shard_rows: rows of a shard at most.
        workers: processes that compute; 1 is this one alone.
        is_folder: the output is a folder, whatever its name ends in.
    """

    step: Step
    sources: tuple[Source, ...]
    output: Path
    format: Format = "parquet"
    shard_rows: int = SHARD_ROWS
    workers: int = 1
    is_folder: bool = False

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
        removed: files that earlier runs had and that are gone; their rows stay.
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
        self.bytes_read, self.bytes_total = 0, 1

    def __call__(self, computed: Computed) -> None:
        """Takes a block that was computed."""
        _, truncated = computed.columns.values()
        self.add(rows=len(truncated), truncated=int(truncated.sum()), tokens=computed.n_tokens)

    def add(self, *, rows: int, truncated: int, tokens: int) -> None:
        """Counts what was computed, here or elsewhere."""
        self.rows += rows
        self.truncated += truncated
        self.tokens += tokens
        fraction = min(1.0, self.bytes_read / self.bytes_total)
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


Units = list[tuple[int, list[Source]]]
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
        facts = job.facts()  # what is wrong with the model is told before anything is written
        engine = facts["model"]["engine"][0]
        folder = job.folder
        if job.is_file and (mark := finished(job.output, job.sources, facts)):
            _check_stream_again(job, mark)
            return tally.summary(str(job.output), mark["counts"], engine, ())
        with _held(folder.path):
            if job.is_file:
                check_input(job.output, job.sources, folder)
            units, removed = folder.plan(job.sources, facts)
            todo = [(n, unit) for n, unit in enumerate(units) if not _is_done(folder, n, unit)]
            (compute or _compute_here)(job, todo, tally)
            found = [folder.counts(number) or {} for number in range(len(units))]
            counts = {name: sum(one.get(name, 0) for one in found) for name in ("rows", "bad_rows")}
            counts["shards"] = len(folder.shard_paths())
            if job.is_file:
                assemble_file(job.output, folder, counts)
    finally:
        job.step.close()
    if job.is_file:
        shutil.rmtree(folder.path, ignore_errors=True)
    return tally.summary(str(job.output), counts, engine, removed)


def _compute_here(job: Job, todo: Units, tally: Tally) -> None:
    files = [source.name for _, sources in todo for source in sources if source.name != STDIN]
    tally.bytes_total = max(1, sum(Path(name).stat().st_size for name in files))
    for _ in compute_units(job, todo, tally):
        pass


def _is_done(folder: Folder, number: int, sources: Sequence[Source]) -> bool:
    is_stream = any(source.name == STDIN for source in sources)  # it is compared again
    return folder.counts(number) is not None and not is_stream


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Makes a folder and holds its lock; on an error before the first shard, a new folder goes again."""
    with write_errors(path):
        if path.exists() and not path.is_dir():
            raise InputError(
                f"{path} is a file, and a folder of shards should go there; name another --output"
            )
        is_new = not (path / JOB).exists()
        if is_new and path.exists() and any(entry.name[0] not in "._" for entry in path.iterdir()):
            raise InputError(f"{path} has other files in it, and no job's; name another folder for --output")
        above = [parent for parent in path.absolute().parents if not parent.exists()]
        path.mkdir(parents=True, exist_ok=True)
    with locked(path / LOCK, taken=f"{path}: another process works on this job; wait until it is done"):
        try:
            yield
        except BaseException:
            if is_new and not any(path.glob("part-*")):
                shutil.rmtree(path, ignore_errors=True)
                with suppress(OSError):  # folders that others use by now stay
                    for parent in above:
                        parent.rmdir()
            raise


@dataclass
class _Unit:
    """A unit at work: its files, what is recorded of it, and what it has so far."""

    number: int
    sources: Sequence[Source]
    record: dict[str, Any]
    shards: list[int] = field(default_factory=list)
    rows: int = 0
    bad_rows: int = 0
    size: int = 0


_Piece = tuple[_Unit, "Shard | None"]


def compute_units(job: Job, units: Units, tally: Tally) -> Iterator[int]:
    """Computes and writes the shards of units that are missing; yields each unit's number when it is done."""
    folder = job.folder
    _ = folder.origins  # as long as the model is loaded here
    for (unit, shard), computed in _compute(_pieces(job, folder, units), job, tally):
        if shard is None:
            counts = {"rows": unit.rows, "bad_rows": unit.bad_rows}
            folder.record(unit.number, {**unit.record, "shards": unit.shards, "counts": counts})
            yield unit.number
            continue
        tally.bytes_read += shard.size
        _check_unchanged(unit)
        n_rows = len(shard.rows) + len(shard.bad)
        if not shard.is_done:
            folder.write(unit.number, shard, computed)
        if shard.checksum:
            unit.record["checked"] = [shard.number, shard.checksum]
            folder.record(unit.number, unit.record)
        n_bad = folder.n_bad(unit.number, shard)
        unit.bad_rows += n_bad
        unit.rows += n_rows - n_bad
        if shard.rows:
            unit.shards.append(shard.number)


def _pieces(job: Job, folder: Folder, units: Units) -> Iterator[tuple[_Piece, list[list[Item]]]]:
    """Each shard of each unit with the blocks that are to be computed, and after them the unit's end."""
    for number, sources in units:
        unit = _Unit(number, sources, folder.begin(number, sources))
        shards = shards_of(sources, job.step, shard_rows=job.shard_rows, all_columns=job.written == "jsonl")
        if any(source.name == STDIN for source in sources):
            shards = _checked(shards, unit.record, f"the one that {job.output} was begun with")
        for shard in shards:
            shard.is_done = shard.is_done and folder.shard_path(number, shard.number).exists()
            yield (unit, shard), ([] if shard.is_done else shard.blocks())
        yield (unit, None), []


def _checked(shards: Iterable[Shard], record: Mapping[str, Any], known: str) -> Iterator[Shard]:
    """The shards of a stream, compared with the checksum that an earlier run recorded. Those after it are not
    done; they get the checksum of all rows so far.
    """
    last, expected = record.get("checked") or (-1, "")
    checksum, number = hashlib.sha256(), -1
    other = InputError(f"stdin is another stream than {known}; give the same again, or name another --output")
    for number, shard in enumerate(shards):
        for one in (*(row.values for row in shard.rows), *shard.bad):
            checksum.update(repr(one).encode())
        if number == last and checksum.hexdigest() != expected:
            raise other
        if number > last:
            if "counts" in record:
                raise other
            shard.is_done, shard.checksum = False, checksum.hexdigest()
        yield shard
    if number < last:
        raise other


def _check_stream_again(job: Job, mark: Mapping[str, Any]) -> None:
    """Raises InputError where stdin is another stream than the one of a job that is done."""
    if job.sources[0].name == STDIN:
        is_parquet = job.written == "parquet"
        shards = shards_of(job.sources, job.step, shard_rows=job.shard_rows, all_columns=not is_parquet)
        for _ in _checked(shards, mark, f"the one of {job.output}"):
            pass


def _check_unchanged(unit: _Unit) -> None:
    for source in unit.sources:
        facts = unit.record["files"].get(source.name)
        if facts and not is_same(source, facts):
            raise InputError(f"{source.shown} was changed while it was read; start the same command again")


def _compute(
    pieces: Iterable[tuple[T, list[list[Item]]]], job: Job, tally: Tally
) -> Iterator[tuple[T, list[Computed]]]:
    """Pieces with their new columns, computed by as many processes as were asked for."""
    if job.workers == 1:
        return compute_here(pieces, job.step, tally)
    job.step.close()  # from here on the workers compute
    each = max(1, (job.step.params.n_threads or default_threads()) // job.workers)
    return compute_in_workers(pieces, with_threads(job.step, each), tally, workers=job.workers)


def stream(job: Job, write: Callable[[bytes], object], *, on_bad: Callable[[BadRow], object]) -> Summary:
    """Computes the rows and writes them as JSON lines, shard by shard; nothing is kept.

    Args:
        job: whose output is not looked at.
        write: called with each line.
        on_bad: called with each row that is left out.
    """
    tally, n_bad = Tally(), 0
    engine = job.step.model.engine
    shards = shards_of(job.sources, job.step, shard_rows=job.shard_rows, all_columns=True)
    pieces = ((shard, shard.blocks()) for shard in shards)
    try:
        for shard, computed in _compute(pieces, job, tally):
            n_bad += len(shard.bad)
            for bad in shard.bad:
                on_bad(bad)
            if computed:
                for line in json_lines(shard.rows, joined([one.columns for one in computed])):
                    write(line)
    finally:
        job.step.close()
    return tally.summary("-", {"rows": tally.rows, "bad_rows": n_bad, "shards": 0}, engine, ())
