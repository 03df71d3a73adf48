"""Shards to computed shards, in order: in this process, or in several that each load the model."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from ggrank.errors import EngineError
from ggrank.jobs.steps import Computed, Item, Step

T = TypeVar("T")

_step: Step  # of this worker process


Work = Iterable[tuple[T, list[list[Item]]]]
"""Something, and the blocks of items that are computed for it."""

Tick = Callable[[Computed], object]
"""Is called with each block that is computed."""


def compute_here(work: Work[T], step: Step, tick: Tick) -> Iterator[tuple[T, list[Computed]]]:
    """All of ``work``, one after the other."""
    for one, blocks in work:
        done = []
        for block in blocks:
            done.append(step.compute(block))
            tick(done[-1])
        yield one, done


def compute_in_workers(
    work: Work[T], step: Step, tick: Tick, *, workers: int
) -> Iterator[tuple[T, list[Computed]]]:
    """As `compute_here`, with as many blocks at a time as there are workers.

    Raises:
        EngineError: a worker was killed.
        GgrankError: whatever the step raises.
    """
    # A fork would take the locks of the engine's threads along.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(step,))
    waiting: deque[tuple[T, list[Future[Computed]]]] = deque()
    try:
        for one, blocks in work:
            waiting.append((one, [pool.submit(_compute, block) for block in blocks]))
            while sum(len(futures) for _, futures in waiting) > 2 * workers:
                yield _first(waiting, tick)
        while waiting:
            yield _first(waiting, tick)
    except BrokenProcessPool as error:
        raise EngineError(
            "a worker process ended by itself, perhaps for lack of memory; what is done is kept: start again "
            "with fewer --workers"
        ) from error
    finally:
        # Until Python 3.14 has terminate_workers(): Ctrl-C is not to wait for blocks that nobody wants.
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _first(waiting: deque[tuple[T, list[Future[Computed]]]], tick: Tick) -> tuple[T, list[Computed]]:
    one, futures = waiting.popleft()
    done = []
    for future in futures:
        done.append(future.result())
        tick(done[-1])
    return one, done


def _begin(step: Step) -> None:
    """The start of a worker process."""
    global _step  # the one way from a pool's initializer to its calls
    _step = step
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent: Any = parent_process()
    connection.wait([parent.sentinel])
    os._exit(1)


def _compute(items: Sequence[Item]) -> Computed:
    return _step.compute(items)


def with_threads(step: Step, n_threads: int) -> Step:
    """The same step, whose model takes so many threads."""
    return replace(step, params=replace(step.params, n_threads=n_threads))  # type: ignore[type-var]
