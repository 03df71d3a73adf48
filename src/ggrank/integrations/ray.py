"""Ray Data: a step of `ggrank.jobs` over a dataset, by a pool of actors that each load the model once.

Knows Ray's datasets, and what the machines of a cluster have; not what a step computes. A whole job with its
files is spread by `ggrank.integrations.ray_jobs`. See docs/ray.md.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggrank.errors import InputError
from ggrank.jobs.blocks import BLOCK_ROWS
from ggrank.jobs.steps import Step

try:
    import ray as ray
except ImportError as error:
    raise InputError("ggrank on Ray needs ray: pip install 'ggrank[ray]'") from error

if TYPE_CHECKING:
    from ray.data import Dataset

CORES = 2
"""Of an actor, unless something else is asked for: small models are slower by far with many threads."""


class StepActor:
    """A step, for ``Dataset.map_batches``: batches of columns or of Arrow to the same with the new columns.

    Its model takes the cores, and the GPU, that Ray assigned to the actor. With ``batch_format="pyarrow"``
    the columns are those that a job writes to Parquet: vectors as lists of a fixed size, with their origin
    in the schema's metadata.

    Args:
        step: `EmbedStep` or `ScoreStep`.

    Example::

        step = EmbedStep(LlamaParams("all-minilm-l6-v2"))
        actors = ray.data.ActorPoolStrategy(size=8)
        dataset.map_batches(StepActor, fn_constructor_args=[step], compute=actors, num_cpus=2)
    """

    def __init__(self, step: Step) -> None:
        self._step: Any = with_assigned(step)
        self._step.model  # noqa: B018  (loads it)

    def __call__(self, batch: Any) -> Any:
        """Raises InputError where a row has no text, or a column has the new one's name."""
        if isinstance(batch, Mapping):
            return self._step(batch)
        from ggrank.jobs.parquet import with_columns

        step = self._step
        table = {
            name: batch[name].to_pylist() if name in step.read else batch[name] for name in batch.column_names
        }
        found = step(table)
        return with_columns(batch, {name: found[name] for name in step.names}, {step.column: step.origin()})


def map_step(
    dataset: Dataset,
    step: Step,
    *,
    workers: int | None = None,
    num_cpus: int | None = None,
    num_gpus: float = 0,
    batch_size: int = BLOCK_ROWS,
) -> Dataset:
    """A dataset with the new columns of a step, computed by a pool of actors while it is read.

    By Ray Data's own rule an actor that dies is started again, and what it had is computed again.

    Args:
        step: `EmbedStep` or `ScoreStep`; a model given by its path must be there on every machine.
        workers: actors; None for as many as fit.
        num_cpus, num_gpus: of each actor, as in `share_machines`.
        batch_size: rows that are computed together.

    Raises:
        InputError: the cluster has no room for them.
    """
    from ray.data import ActorPoolStrategy

    share = share_machines(machines(), workers=workers, num_cpus=num_cpus, num_gpus=num_gpus)
    return dataset.map_batches(
        StepActor,
        fn_constructor_args=(portable(step),),
        compute=ActorPoolStrategy(size=share.workers),
        batch_size=batch_size,
        batch_format="pyarrow",
        num_cpus=share.but_one_core(),
        num_gpus=share.num_gpus,
    )


@dataclass(frozen=True)
class Share:
    """So many actors, and what each has of the cluster; ``most_cores`` has the largest machine."""

    workers: int
    num_cpus: int
    num_gpus: float
    most_cores: int

    def but_one_core(self) -> float:
        """``num_cpus`` where the actors of the largest machine together give one up.

        Ray Data reads and writes in tasks of one core each, and waits for ever where actors have them all.
        """
        return math.floor(10_000 * (self.num_cpus - self.num_cpus / self.most_cores)) / 10_000


def machines() -> list[Mapping[str, float]]:
    """What each machine has of the cluster that Ray is connected to, such as {"CPU": 16.0, "GPU": 1.0}."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def share_machines(
    machines: Sequence[Mapping[str, float]],
    *,
    workers: int | None = None,
    num_cpus: int | None = None,
    num_gpus: float = 0,
) -> Share:
    """How many actors of which size a cluster takes.

    Args:
        machines: as `machines` gives them.
        workers: actors; None for as many as fit.
        num_cpus: cores of each; None for 1 beside a GPU, else for the share of each of ``workers``, else for
            `CORES`.
        num_gpus: GPUs of each; of 0.5, two share one.

    Raises:
        InputError: there is no room for so many.

    Example:
        >>> share_machines([{"CPU": 16.0}, {"CPU": 8.0}])
        Share(workers=12, num_cpus=2, num_gpus=0, most_cores=16)
    """
    for name, value in (("workers", workers), ("num_cpus", num_cpus)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1; found {value}")

    def room(cores: int) -> int:
        return sum(_room(machine, cores, num_gpus) for machine in machines)

    most = max(int(machine.get("CPU", 0)) for machine in machines)
    each = num_cpus or (1 if num_gpus else max(1, min(CORES, most)))
    if workers is not None and not (num_cpus or num_gpus):
        each = next((cores for cores in range(most, 1, -1) if room(cores) >= workers), 1)
    if room(each) < (workers or 1):
        gpus = f" and {num_gpus:g} GPUs" if num_gpus else ""
        raise InputError(
            f"{workers or 1} workers of {each} cores{gpus} do not fit: the cluster's machines have room for "
            f"{room(each)}; ask for fewer or smaller ones"
        )
    return Share(workers or room(each), each, num_gpus, most)


def _room(machine: Mapping[str, float], num_cpus: int, num_gpus: float) -> int:
    """How many actors a machine takes."""
    n = int(machine.get("CPU", 0)) // num_cpus
    return min(n, int(machine.get("GPU", 0) / num_gpus)) if num_gpus else n


def portable(step: Any) -> Step:
    """The step, with its model's path as it holds in whatever folder an actor works."""
    path = Path(os.fspath(step.params.model))
    if not path.is_file():  # a preset or a repo
        return step  # type: ignore[no-any-return]
    return replace(step, params=replace(step.params, model=str(path.resolve())))  # type: ignore[no-any-return]


def with_assigned(step: Any) -> Step:
    """The step, whose model takes the cores and the GPU that Ray assigned to this actor."""
    assigned = ray.get_runtime_context().get_assigned_resources()
    params = step.params
    params = replace(
        params,
        n_threads=params.n_threads or max(1, math.ceil(assigned.get("CPU", 1))),
        # Ray does not hide a machine's GPUs from those to whom it assigned none.
        n_gpu_layers=params.n_gpu_layers if assigned.get("GPU") else 0,
    )
    return replace(step, params=params)  # type: ignore[no-any-return]
