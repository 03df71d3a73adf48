"""The order of the work: every subject runs every cell, side by side, in rounds that alternate.

    model -> cells -> first rankings -> (cell -> round -> subject) -> events

Knows processes and cells. What comes out are events, one after the other, so that what was measured is kept
when it is interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ggrank import Llama, PoolingType
from ggrank.benchmark.cells import FIRST_RANKING, Cell, CellMaker, Size
from ggrank.benchmark.models import BenchModel
from ggrank.benchmark.processes import Run, Worker
from ggrank.benchmark.ratios import Agreement, agreement
from ggrank.benchmark.subjects import Subject
from ggrank.benchmark.subjects.available import LeftOut, Wish, reference_for, subjects_for
from ggrank.errors import GgrankError

Scores = list[NDArray[np.float32]]
T = TypeVar("T")
K = TypeVar("K")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Begun:
    """A model's turn: what will be measured, and what cannot be."""

    model: BenchModel
    cells: tuple[Cell, ...]
    subjects: tuple[Subject, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Sample:
    """Seconds of one round."""

    model: str
    subject: str
    cell: str
    seconds: float


@dataclass(frozen=True)
class Peak:
    """The most memory of a subject's process: at its first ranking, or with all cells (`cell` is "")."""

    model: str
    subject: str
    cell: str
    n_bytes: int


@dataclass(frozen=True)
class Agreed:
    """How near a subject's scores are to the reference's, over all cells."""

    model: str
    subject: str
    reference: str
    agreement: Agreement


@dataclass(frozen=True)
class Failed:
    """A subject that ended with an error, and is not asked again."""

    model: str
    subject: str
    reason: str


@dataclass(frozen=True)
class _Reference:
    name: str
    scores: Scores


Event = Begun | Sample | Peak | Agreed | Failed


def measure(model: BenchModel, wish: Wish, size: Size, *, say: Say) -> Iterator[Event]:
    """Everything about one model.

    Raises:
        GgrankError: the model cannot be loaded to make texts for it.
    """
    subjects, left_out = subjects_for(model, wish)
    if not subjects:
        yield Begun(model, (), (), tuple(left_out))
        return
    with cell_maker(model) as maker:
        cells, first = tuple(maker.cells(size)), maker.first_ranking()
    yield Begun(model, cells, tuple(subjects), tuple(left_out))
    bench = Bench(model, wish, say)
    yield from bench.first_rankings(subjects, first, size.rounds)
    yield from bench.side_by_side(subjects, cells, size.rounds)


@contextmanager
def cell_maker(model: BenchModel) -> Iterator[CellMaker]:
    """Makes cells in the model's own tokens."""
    is_reranker = model.job == "rerank"
    pooling = PoolingType.RANK if is_reranker else None
    path = min(model.ggufs.values(), key=lambda path: path.stat().st_size)
    with Llama.load(path, pooling_type=pooling, n_ctx=model.n_ctx, n_gpu_layers=0) as llama:
        yield CellMaker(
            lambda text: len(llama.tokenize(text)),
            n_special=llama.rank("", [""]).n_tokens if is_reranker else llama.count_tokens(""),
            n_ctx=llama.n_ctx,
            is_reranker=is_reranker,
        )


class Bench:
    """Measures the subjects of one model."""

    def __init__(self, model: BenchModel, wish: Wish, say: Say) -> None:
        self._model = model
        self._wish = wish
        self._say = say

    def first_rankings(self, subjects: Sequence[Subject], cell: Cell, rounds: int) -> Iterator[Event]:
        """Starts a process, loads and ranks, again and again.

        The first time counts for nobody: files come from the disk then, and ggrank tries a new file out in a
        child process, once.
        """
        left = {subject.name: subject for subject in subjects}
        for number in range(rounds + 1):
            for name in _in_turn(list(left), number):
                run = attempt(self._model.name, left, name, lambda subject: _first_ranking(subject, cell))
                if isinstance(run, Failed):
                    yield run
                elif number > 0:
                    yield Sample(self._model.name, name, cell.name, run.seconds)
                    yield from self._peak(name, cell.name, run)
        self._say(f"{self._model.name}: {FIRST_RANKING} done")

    def side_by_side(
        self, subjects: Sequence[Subject], cells: Sequence[Cell], rounds: int
    ) -> Iterator[Event]:
        """All of them loaded at once, and each cell by each of them in turn."""
        reference = self._reference_scores(cells)
        with ExitStack() as stack:
            workers: dict[str, Worker] = {}
            for subject in subjects:
                name, worker = subject.name, Worker(subject, n_threads=subject.n_threads)
                workers[name] = stack.enter_context(worker)
                loaded = attempt(self._model.name, workers, name, lambda worker: worker.load())
                if isinstance(loaded, Failed):
                    yield loaded
            scores: dict[str, Scores] = {name: [] for name in workers}
            for cell in cells:
                yield from self._one_cell(cell, workers, scores, reference, rounds)

    def _one_cell(
        self,
        cell: Cell,
        workers: dict[str, Worker],
        scores: dict[str, Scores],
        reference: _Reference | None,
        rounds: int,
    ) -> Iterator[Event]:
        """A round to warm up, whose scores are compared, then those that count."""
        for number in range(rounds + 1):
            ask = partial(Worker.run, cell=cell, scores=number == 0)
            for name in _in_turn(list(workers), number):
                run = attempt(self._model.name, workers, name, ask)
                if isinstance(run, Failed):
                    yield run
                    continue
                if run.scores is not None:
                    scores[name] += run.scores
                    yield from self._agreed(name, scores, reference)
                else:
                    yield Sample(self._model.name, name, cell.name, run.seconds)
                yield from self._peak(name, "", run)
        self._say(f"{self._model.name}: {cell.name} done")

    def _peak(self, name: str, cell: str, run: Run) -> Iterator[Peak]:
        if run.peak_bytes is not None:
            yield Peak(self._model.name, name, cell, run.peak_bytes)

    def _reference_scores(self, cells: Sequence[Cell]) -> _Reference | None:
        """The float32 file's; None without that file."""
        subject = reference_for(self._model, self._wish)
        if subject is None:
            return None
        with Worker(subject, n_threads=subject.n_threads) as worker:
            worker.load()
            runs = [worker.run(cell, scores=True) for cell in cells]
        return _Reference(subject.name, [scores for run in runs for scores in run.scores or []])

    def _agreed(self, name: str, scores: dict[str, Scores], reference: _Reference | None) -> Iterator[Agreed]:
        """Against the float32 file, or against the first subject."""
        first = next(iter(scores))
        against = reference or _Reference(first, scores[first])
        seen = min(len(scores[name]), len(against.scores))
        if seen:
            found = agreement(scores[name][:seen], against.scores[:seen])
            yield Agreed(self._model.name, name, against.name, found)


def attempt(model: str, left: dict[str, K], name: str, act: Callable[[K], T]) -> T | Failed:
    """What one of those that are left answers; one that fails is taken out, and not asked again."""
    try:
        return act(left[name])
    except GgrankError as error:
        del left[name]
        return Failed(model, name, str(error))


def _first_ranking(subject: Subject, cell: Cell) -> Run:
    with Worker(subject, n_threads=subject.n_threads) as worker:
        return worker.first_ranking(cell)


def _in_turn(items: list[T], number: int) -> list[T]:
    """In order, and in the other order in the next round, so that nobody always follows the same one."""
    return items[::-1] if number % 2 else list(items)
