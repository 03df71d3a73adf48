"""How time grows with the passages, their length and the threads.

Each of them alone, the others held. Knows the three series; how a cell is computed is `measuring`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Literal

from ggrank.benchmark.cells import Cell, Size
from ggrank.benchmark.measuring import Begun, Failed, Say, attempt, cell_maker
from ggrank.benchmark.models import BenchModel
from ggrank.benchmark.processes import Worker
from ggrank.benchmark.ratios import spread
from ggrank.benchmark.subjects import Subject
from ggrank.benchmark.subjects.available import Wish, subjects_for

Axis = Literal["passages", "length", "threads"]

LENGTHS = (16, 32, 64, 128, 256, 512)
LENGTH_OF_MANY = 32
LENGTH_OF_THREADS = 128


@dataclass(frozen=True)
class Point:
    """One measurement of a series.

    Attributes:
        axis: what grows.
        x: passages, tokens of each sequence, or threads.
        seconds: the median.
        n_passages, n_tokens: of the cell.
    """

    model: str
    subject: str
    axis: Axis
    x: int
    seconds: float
    n_passages: int
    n_tokens: int


def grow(
    model: BenchModel, wish: Wish, size: Size, *, threads: Sequence[int], say: Say
) -> Iterator[Begun | Point | Failed]:
    """The three series of one model, every subject in turn at each point.

    Raises:
        GgrankError: the model cannot be loaded to make texts for it.
    """
    subjects, left_out = subjects_for(model, wish)
    if not subjects:
        yield Begun(model, (), (), tuple(left_out))
        return
    n = min(16, max(size.n_growth))
    with cell_maker(model) as maker:
        many = [(x, maker.uniform("", x, LENGTH_OF_MANY)) for x in size.n_growth]
        lengths = [(x, maker.uniform("", n, x)) for x in LENGTHS if x <= model.n_ctx]
        fixed = maker.uniform("", n, LENGTH_OF_THREADS)
    yield Begun(model, (), tuple(subjects), tuple(left_out))
    series = Series(model.name, size.growth_rounds, say)
    yield from series.run("passages", subjects, many)
    yield from series.run("length", subjects, lengths)
    for n_threads in threads:
        these = [replace(subject, n_threads=n_threads) for subject in subjects]
        yield from series.run("threads", these, [(n_threads, fixed)])


@dataclass(frozen=True)
class Series:
    """Measures points of one model."""

    model: str
    rounds: int
    say: Say

    def run(
        self, axis: Axis, subjects: Sequence[Subject], cells: Sequence[tuple[int, Cell]]
    ) -> Iterator[Point | Failed]:
        """Every subject on every cell, after one run of the first cell that does not count."""
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for subject in subjects:
                name, worker = subject.name, Worker(subject, n_threads=subject.n_threads)
                workers[name] = stack.enter_context(worker)
                warm = attempt(self.model, workers, name, lambda worker: _warm_up(worker, cells[0][1]))
                if isinstance(warm, Failed):
                    yield warm
            for x, cell in cells:
                yield from self._points(axis, x, cell, workers)
                self.say(f"{self.model}: {axis} {x:,} done")

    def _points(self, axis: Axis, x: int, cell: Cell, workers: dict[str, Worker]) -> Iterator[Point | Failed]:
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(self.rounds):
            for name in list(workers):
                run = attempt(self.model, workers, name, lambda worker: worker.run(cell))
                if isinstance(run, Failed):
                    yield run
                else:
                    seconds[name].append(run.seconds)
        for name in workers:
            median = spread(seconds[name]).median
            yield Point(self.model, name, axis, x, median, cell.n_passages, cell.n_tokens)


def _warm_up(worker: Worker, cell: Cell) -> None:
    worker.load()
    worker.run(cell)
