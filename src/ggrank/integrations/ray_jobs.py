"""A job of `ggrank.jobs` that computes on Ray: `on_ray` gives what a `Job` takes as ``compute``.

Knows actors and what is under way; the job itself reads, orders and writes, and so goes on after a stop and
gives the same files as on one machine. Of the rows only the texts travel.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import ggrank
from ggrank.errors import EngineError, GgrankError, InputError
from ggrank.integrations.ray import Share, machines, portable, ray, share_machines, with_assigned
from ggrank.jobs.blocks import Block
from ggrank.jobs.steps import Computed, Item, Step
from ggrank.jobs.workers import Compute, Done

RETRIES = 5
"""How often rows are computed again whose actor was lost; rows that end every actor end the job."""

AHEAD = 3
"""Blocks that are under way for each actor: one is computed, two wait. It bounds what memory holds."""


@contextmanager
def on_ray(
    address: str | None = None,
    *,
    workers: int | None = None,
    num_cpus: int | None = None,
    num_gpus: float = 0,
) -> Iterator[Compute]:
    """What computes a `Job` on Ray, while the context lasts.

    Args:
        address: of a cluster, as ``ray.init`` takes it; None for ``RAY_ADDRESS``, else the Ray that runs on
            this machine, else one that is started and ends here; "auto" for one of the first two. A program
            that is connected stays so.
        workers, num_cpus, num_gpus: as in `share_machines`.

    Raises:
        InputError: there is no cluster, or no room in it.

    Example::

        with on_ray("auto") as compute:
            run(Job(step, sources, Path("vectors"), compute=compute))
    """
    connects = not ray.is_initialized()
    if connects:
        _connect(address)
    try:
        share = share_machines(machines(), workers=workers, num_cpus=num_cpus, num_gpus=num_gpus)
        yield partial(_compute, share=share)
    finally:
        if connects:
            ray.shutdown()


def _connect(address: str | None) -> None:
    # A Ray that is started here would tell its makers about itself, unless somebody said otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")  # what it says of lost workers may go to a file
    if address in (None, "", "auto"):  # as `ray.init` reads it; known here, so that it can be knocked at
        address = os.environ.get("RAY_ADDRESS") or address or None
    local: dict[str, Any] = {"include_dashboard": False} if address in (None, "local") else {}
    try:
        _knock(address or "")
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray at {address or 'this machine'} ({_first_line(error)}); start one with "
            "'ray start --head', or leave the address out"
        ) from error


def _knock(address: str) -> None:
    """Raises OSError where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=30).close()


def _compute(blocks: Iterable[Block], step: Step, *, share: Share) -> Iterator[Done]:
    """Blocks with their new columns, in order; `AHEAD` blocks for each worker are under way."""
    made_by = _Maker.of(step)
    step.close()  # it said what had to be known; here nothing is computed any more
    # The engine that was found here, so that another machine does not choose another one.
    step = replace(step, params=replace(step.params, engine=made_by.engine))  # type: ignore[type-var]
    pool = _Pool(portable(step), made_by, share)
    under_way: deque[tuple[Block, Any]] = deque()
    try:
        for block in blocks:
            if len(under_way) == AHEAD * share.workers:
                yield _first_of(under_way)
            under_way.append((block, pool.submit(block.items)))
        while under_way:
            yield _first_of(under_way)
    finally:
        pool.stop()


def _first_of(under_way: deque[tuple[Block, Any]]) -> Done:
    block, reference = under_way.popleft()
    try:
        found = ray.get(reference)
    except ray.exceptions.RayActorError as error:
        raise EngineError(
            f"a worker was lost, and {RETRIES} more with the same rows, perhaps for lack of memory "
            f"({_first_line(error)}); what is done is kept: start again, with fewer workers"
        ) from error
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"Ray could not compute rows: {_first_line(error)}; what is done is kept"
        ) from error
    if isinstance(found, Exception):
        raise found
    # Arrays lie in Ray's store, which keeps them as long as they are used; a part may be larger than it.
    columns = {name: np.array(values) for name, values in found.columns.items()}
    return Done(block, replace(found, columns=columns))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


class _Maker(NamedTuple):
    """What two machines must have in common."""

    ggrank: str
    sha256: str
    engine: Any

    @classmethod
    def of(cls, step: Step) -> _Maker:
        facts = step.model.identity()
        return cls(ggrank.__version__, facts["sha256"], facts["engine"][0])


class _Pool:
    """Actors that each hold the step; work goes to the one that has least to do."""

    def __init__(self, step: Step, made_by: _Maker, share: Share) -> None:
        actor = ray.remote(_Worker).options(
            num_cpus=share.num_cpus, num_gpus=share.num_gpus, max_restarts=-1, max_task_retries=RETRIES
        )
        self._actors = [actor.remote(step, made_by, share.num_gpus) for _ in range(share.workers)]
        self._unfinished: dict[Any, int] = {}

    def submit(self, items: Sequence[Item]) -> Any:
        if self._unfinished:
            _, left = ray.wait(list(self._unfinished), num_returns=len(self._unfinished), timeout=0)
            self._unfinished = {reference: self._unfinished[reference] for reference in left}
        n_waiting = Counter(self._unfinished.values())
        least = min(range(len(self._actors)), key=n_waiting.__getitem__)
        reference = self._actors[least].compute.remote(items)
        self._unfinished[reference] = least
        return reference

    def stop(self) -> None:
        """Lets the actors go: Ray ends them when they have done what they had, or when it ends itself."""
        self._actors.clear()
        self._unfinished.clear()


class _Worker:
    """An actor: it loads the model at the first block, and gives ggrank's own errors as values."""

    def __init__(self, step: Step, made_by: _Maker, num_gpus: float) -> None:
        self._step, self._made_by, self._num_gpus = with_assigned(step), made_by, num_gpus
        self._is_checked = False

    def compute(self, items: Sequence[Item]) -> Computed | GgrankError:
        try:
            if not self._is_checked:
                self._check()
            return self._step.compute(items)
        except GgrankError as error:
            return error

    def _check(self) -> None:
        found = _Maker.of(self._step)
        if found != self._made_by:
            raise EngineError(
                f"machines differ: {platform.node()} has {found}, and the job began with {self._made_by}; "
                "install the same ggrank and the same model file everywhere"
            )
        if self._num_gpus and self._step.model.device == "CPU":
            raise EngineError(
                f"{platform.node()} gave the worker a GPU, and llama-cpp-python there is built for the CPU; "
                "install a build for its GPU, or leave num_gpus out"
            )
        self._is_checked = True
