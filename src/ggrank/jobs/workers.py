"""Shards to computed shards, in order: in this process, or in several that each load the model."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import connection, get_context, parent_process
from typing import Any, TypeVar

from ggrank.errors import EngineError
from ggrank.jobs.steps import Computed, Item, Step
from ggrank.loading.tuning import default_threads

T = TypeVar("T")

_step: Step  # of this worker process


def compute_all(
    work: Iterable[tuple[T, list[list[Item]]]],
    step: Step,
    tick: Callable[[Computed], object],
    *,
    workers: int,
) -> Iterator[tuple[T, list[Computed]]]:
    """Computes the blocks of items that belong to each thing, in order; few things are in memory at a time.

    Args:
        tick: is called with each block that is computed.

    Raises:
        EngineError: a worker was killed.
        GgrankError: whatever the step raises.
    """

    def ticked(computed: Computed) -> Computed:
        tick(computed)
        return computed

    if workers == 1:
        for one, blocks in work:
            yield one, [ticked(step.compute(block)) for block in blocks]
        return
    waiting: deque[tuple[T, list[Future[Computed]]]] = deque()

    def first() -> tuple[T, list[Computed]]:
        one, futures = waiting.popleft()
        return one, [ticked(future.result()) for future in futures]

    def is_full() -> bool:
        """Whether the first needs no worker, as a shard that is done already, or enough of them wait."""
        n_blocks = sum(len(futures) for _, futures in waiting)
        return bool(waiting) and (not waiting[0][1] or max(n_blocks, len(waiting)) > 2 * workers)

    with _pool(step, workers) as pool:
        for one, blocks in work:
            waiting.append((one, [pool.submit(_compute, block) for block in blocks]))
            while is_full():
                yield first()
        while waiting:
            yield first()


@contextmanager
def _pool(step: Step, workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that have the step, each with its share of the cores."""
    step.close()  # from here on the workers compute
    each = max(1, (step.params.n_threads or default_threads()) // workers)
    theirs: Step = replace(step, params=replace(step.params, n_threads=each))  # type: ignore[type-var]
    # A fork would take the locks of the engine's threads along.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(theirs,))
    try:
        yield pool
    except BrokenProcessPool as error:
        raise EngineError(
            "a worker process ended by itself, perhaps for lack of memory; what is done is kept: start again "
            "with fewer --workers"
        ) from error
    finally:
        # Until Python 3.14 has terminate_workers(): Ctrl-C is not to wait for blocks that are not needed.
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


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
