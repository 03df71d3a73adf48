"""Blocks to computed blocks, in order: in this process, or in several that each load the model.

Knows processes and pipes; not what is computed. The processes map the same file, so its weights are in memory
once. One that loses its parent ends by itself.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

from ggrank.errors import EngineError, GgrankError
from ggrank.jobs.blocks import Block
from ggrank.jobs.steps import Computed, Item, Step


@dataclass(frozen=True)
class Done:
    """A block, and what was computed of it."""

    block: Block
    computed: Computed


Compute = Callable[[Iterable[Block], Step], Iterator[Done]]
"""From blocks to computed blocks, in order."""


def compute_here(blocks: Iterable[Block], step: Step) -> Iterator[Done]:
    """One after the other, in this process."""
    for block in blocks:
        yield Done(block, step.compute(block.items))


def compute_in_workers(blocks: Iterable[Block], step: Step, *, workers: int) -> Iterator[Done]:
    """As `compute_here`, with as many blocks at a time as there are workers.

    Raises:
        EngineError: a worker was killed.
        GgrankError: whatever the step raises.
    """
    idle = deque(_Worker(step) for _ in range(workers))
    busy: deque[tuple[_Worker, Block]] = deque()
    try:
        for block in blocks:
            done = _next(busy, idle) if not idle else None
            idle[0].send(block.items)  # before the one that is done is written, so that nobody waits
            busy.append((idle.popleft(), block))
            if done is not None:
                yield done
        while busy:
            yield _next(busy, idle)
    finally:
        for worker in (*idle, *(worker for worker, _ in busy)):
            worker.stop()


def _next(busy: deque[tuple[_Worker, Block]], idle: deque[_Worker]) -> Done:
    worker, block = busy[0]
    done = Done(block, worker.receive())
    busy.popleft()
    idle.append(worker)
    return done


class _Worker:
    """A process with a model. What is sent to it comes back computed, in order."""

    def __init__(self, step: Step) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would take the engine's threads' locks along
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, step), daemon=True)
        self._process.start()
        theirs.close()  # so that each side reads an end when the other one dies

    def send(self, items: Sequence[Item]) -> None:
        try:
            self._pipe.send(items)
        except OSError as error:
            raise self._lost() from error

    def receive(self) -> Computed:
        try:
            result: Any = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._lost() from error
        if isinstance(result, Exception):
            raise result
        return result  # type: ignore[no-any-return]

    def stop(self) -> None:
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def _lost(self) -> EngineError:
        self._process.join(10)
        return EngineError(
            f"a worker process ended by itself (exit code {self._process.exitcode}), perhaps for lack of "
            "memory; what is done is kept: start again, with fewer --workers"
        )


def _work(pipe: Connection, step: Step) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    try:
        while True:
            items = pipe.recv()
            try:
                result: Any = step.compute(items)
            except GgrankError as error:
                result = error
            pipe.send(result)
    except (EOFError, OSError):  # the parent is gone, or wants no more
        pass
    finally:
        step.close()


def with_threads(step: Step, n_threads: int) -> Step:
    """The same step, whose model takes so many threads."""
    return replace(step, params=replace(step.params, n_threads=n_threads))  # type: ignore[type-var]
