"""The options that put a job on Ray: --engine ray, --address, --num-gpus.

Knows flags; `ggrank.integrations.ray_jobs` does the work, and is imported only when a job goes there.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import wraps
from typing import IO, TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from ggrank.cli.corpus import JobChoice
from ggrank.cli.options import Command, model_options

if TYPE_CHECKING:
    from ggrank.jobs.workers import Compute


@dataclass(frozen=True)
class OnRay:
    """Called, it connects, and gives who computes there; see `on_ray`."""

    address: str | None
    share: dict[str, Any]

    @contextmanager
    def __call__(self) -> Iterator[Compute]:
        """Connects; raises what `on_ray` raises."""
        from ggrank.integrations.ray_jobs import on_ray

        stdout = cast(Any, _OfThisThread(sys.stdout))
        with redirect_stdout(stdout), on_ray(self.address, **self.share) as compute:
            yield compute


class _OfThisThread:
    """Stdout for the thread that made it; stderr for others: there Ray tells of lost workers."""

    def __init__(self, stdout: IO[str]) -> None:
        self._stdout, self._owner = stdout, threading.get_ident()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout if threading.get_ident() == self._owner else sys.stderr, name)


def model_or_ray_options(command: Command) -> Command:
    """`model_options`, and those of Ray, which change the keyword ``to`` that `job_options` gives.

    Ray is meant by ``--engine ray``, with "auto" in each worker, and by ``--address`` with any engine.
    """
    with_model = model_options(command, on_ray=True)

    @click.option(
        "--address", metavar="ADDRESS", help="A Ray cluster (auto, HOST:PORT, ray://...); implies Ray."
    )
    @click.option(
        "--num-gpus",
        type=click.FloatRange(min=0),
        default=0,
        metavar="N",
        help="GPUs of each worker on Ray; of 0.5, two share one.",
    )
    @wraps(with_model)
    def collected(
        *,
        address: str | None,
        num_gpus: float,
        engine: str,
        n_threads: int | None,
        to: JobChoice,
        **rest: Any,
    ) -> None:
        if engine == "ray" or address is not None:
            given = click.get_current_context().get_parameter_source("workers")
            workers = None if given is ParameterSource.DEFAULT else to.workers
            share = {"workers": workers, "num_cpus": n_threads, "num_gpus": num_gpus}
            to = replace(to, where=OnRay(address, share))
            if engine == "ray":
                engine = "llama.cpp" if num_gpus else "auto"  # OpenVINO leaves a GPU alone
        elif num_gpus:
            raise click.UsageError("--num-gpus is for jobs on Ray; add --engine ray.")
        with_model(engine=engine, n_threads=n_threads, to=to, **rest)

    return cast(Command, collected)
