"""Ray: a job's files shared out among the actors of a cluster, and steps for Ray Data pipelines of your own.

    run_on_ray   a job whose files are read, computed and written by actors
    map_step     a dataset with the new columns of a step
    StepActor    the same, for your own call of ``map_batches``

Needs the extra ``ray``.
"""

from __future__ import annotations

import logging
import math
import os
import platform
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ggrank
from ggrank.errors import EngineError, GgrankError, InputError
from ggrank.jobs.job import Job, Progress, Summary, Tally, Units, compute_units, run
from ggrank.jobs.shards import BLOCK_ROWS
from ggrank.jobs.sources import STDIN
from ggrank.jobs.steps import Step
from ggrank.rows.parquet import with_columns
from ggrank.rows.writing import UNFINISHED

try:
    import ray as ray
except ImportError as error:
    raise InputError("ggrank on Ray needs ray: pip install 'ggrank[ray]'") from error

if TYPE_CHECKING:
    from ray.data import Dataset

CORES = 2
"""Of an actor, unless something else is asked for: small models are slower by far with many threads."""

PATIENCE = 45
"""Seconds to wait for free cores."""

RETRIES = 5
"""How often a file is begun again whose actor was lost; one that ends every actor ends the job."""


def run_on_ray(
    job: Job,
    *,
    address: str | None = None,
    on_progress: Callable[[Progress], object] = lambda progress: None,
) -> Summary:
    """Does a job on a cluster: each actor takes a file, or a group of small ones, at a time.

    All machines must see the input and the output under the same paths. The output is that of
    `ggrank.jobs.run`, and either can go on with what the other began. ``job.workers`` above 1 says how many
    actors there are.

    Args:
        address: of a cluster, as ``ray.init`` takes it; None for a Ray that is started here and ends with the
            job. A program that is connected stays so.

    Raises:
        InputError: there is no cluster, it has no free cores, or the rows come from stdin.
        EngineError: an actor was lost again and again, or machines differ.
    """
    if STDIN in job.sources:
        raise InputError("a cluster cannot read stdin; name files that all of its machines see")
    connects = not ray.is_initialized()
    if connects:
        _connect(address)
    try:
        return run(job, compute=_compute_on_ray, on_progress=on_progress)
    finally:
        if connects:
            ray.shutdown()


def _connect(address: str | None) -> None:
    # A Ray that is started here would report its use to its makers, unless the user said otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if address == "auto":  # as `ray.init` reads it; known here, so that the port can be tried
        address = os.environ.get("RAY_ADDRESS") or address
    local: dict[str, Any] = {"include_dashboard": False} if address is None else {}
    try:
        _try_port(address or "")
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray at {address or 'this machine'} ({_first_line(error)}); start one with "
            "'ray start --head', or ask for --ray local"
        ) from error


def _try_port(address: str) -> None:
    """Raises OSError where nothing listens; Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=30).close()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _compute_on_ray(job: Job, units: Units, tally: Tally) -> None:
    """Lets actors compute and write the units, and adds up what they count."""
    if not units:
        return
    from ray.data import DataContext, from_items

    facts = _facts(job.step)
    num_gpus = 0 if job.step.model.device == "CPU" else 1
    job.step.close()  # from here on the actors compute
    # The engine that was found here, so that another machine does not choose another one.
    params = replace(job.step.params, engine=facts["engine"])
    there = replace(job, step=portable(replace(job.step, params=params)), workers=1)  # type: ignore[type-var]
    DataContext.get_current().enable_progress_bars = False
    left, workers = dict(units), job.workers if job.workers > 1 else None
    for lost in range(RETRIES + 1):
        options = actor_options(workers=None if lost else workers, num_gpus=num_gpus, most=len(left))
        items = from_items([{"number": number} for number in left], override_num_blocks=len(left))
        arguments = (there, dict(left), facts, str(Path.cwd()))
        done = items.map_batches(_UnitActor, fn_constructor_args=arguments, batch_size=1, **options)
        try:
            for row in done.iter_rows():
                if row["error"]:
                    raise (InputError if row["is_input"] else EngineError)(row["error"])
                tally.add(rows=row["rows"], truncated=row["truncated"], tokens=row["tokens"])
                del left[row["number"]]
                tally.size_done, tally.size = len(units) - len(left), len(units)
        except ray.exceptions.RayError as error:  # Ray Data gives up when a whole machine is lost
            reason = _first_line(error)
        else:
            return
    raise EngineError(f"Ray could not go on: {reason}; what is done is kept")


def _facts(step: Step) -> dict[str, Any]:
    """What two machines must have in common."""
    found = step.model.identity()
    return {"ggrank": ggrank.__version__, "sha256": found["sha256"], "engine": found["engine"][0]}


class _UnitActor:
    """Computes and writes a unit at a time; ggrank's own errors come back as values, and end the job."""

    def __init__(self, job: Job, units: dict[int, Any], facts: Mapping[str, Any], folder: str) -> None:
        os.chdir(folder)  # names of files are relative to it
        self._job = replace(job, step=with_assigned(job.step))
        self._units, self._facts = units, facts

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        tally, error = Tally(), None
        number = int(batch["number"][0])
        # Ray would try a file that kills its actors for ever. The next start of the job sweeps this away.
        attempts = self._job.folder.path / f".attempts-{number:05}{UNFINISHED}"
        try:
            self._check(attempts)
            compute_units(self._job, [(number, self._units[number])], tally)
            attempts.unlink()
        except GgrankError as raised:
            error = raised
        counts = {"rows": tally.rows, "truncated": tally.truncated, "tokens": tally.tokens}
        found = {"number": number, "error": str(error or ""), "is_input": isinstance(error, InputError)}
        return {name: [value] for name, value in {**found, **counts}.items()}

    def _check(self, attempts: Path) -> None:
        """Counts an attempt, a byte each. Raises EngineError at the last one, and where machines differ."""
        if attempts.exists() and attempts.stat().st_size > RETRIES:
            raise EngineError(
                f"a worker was lost {RETRIES + 1} times with the same file, perhaps for lack of memory; what "
                "is done is kept"
            )
        with attempts.open("a") as file:
            file.write("x")
        if (found := _facts(self._job.step)) != self._facts:
            raise EngineError(
                f"machines differ: {platform.node()} has {found}, and the job began with {self._facts}; "
                "install the same ggrank and the same model file everywhere"
            )


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
        self._step = with_assigned(step)
        self._step.model  # noqa: B018  (loads it)

    def __call__(self, batch: Any) -> Any:
        """Raises InputError where a row has no text, or a column has the new one's name."""
        step = self._step
        if isinstance(batch, Mapping):
            return step(batch)
        columns = {
            name: batch[name].to_pylist() if name in step.read else batch[name] for name in batch.column_names
        }
        found = step(columns)
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

    Ray Data starts an actor that dies again, and computes what it had again.

    Args:
        step: `EmbedStep` or `ScoreStep`; a model given by its path must be there on every machine.
        workers: actors; None for as many as fit.
        num_cpus: cores of each; None for `CORES`, and for 1 beside a GPU or where else not all fit.
        num_gpus: GPUs of each; of 0.5, two share one.
        batch_size: rows that are computed together.

    Raises:
        InputError: the cluster has no room for them.
    """
    options = actor_options(workers=workers, num_cpus=num_cpus, num_gpus=num_gpus)
    arguments = (portable(step),)
    return dataset.map_batches(
        StepActor, fn_constructor_args=arguments, batch_size=batch_size, batch_format="pyarrow", **options
    )


def actor_options(
    *, workers: int | None = None, num_cpus: int | None = None, num_gpus: float = 0, most: int | None = None
) -> dict[str, Any]:
    """What `map_batches` takes for actors that fit into the cluster and its free cores, at most ``most``.

    Raises:
        InputError: the cluster has no room, or no actor's cores are free within `PATIENCE` seconds.
    """
    for name, value in (("workers", workers), ("num_cpus", num_cpus)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1; found {value}")
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [int(machine.get("CPU", 0)) for machine in machines]

    def room(each: int) -> int:
        gpus = [machine.get("GPU", 0) / num_gpus if num_gpus else math.inf for machine in machines]
        return sum(int(min(n // each, limit)) for n, limit in zip(cores, gpus, strict=True))

    each = num_cpus or (1 if num_gpus else max(1, min(CORES, max(cores))))
    if not num_cpus and room(each) < (workers or 1):
        each = 1
    if room(each) < (workers or 1):
        raise InputError(
            f"{workers or 1} workers of {each} cores and {num_gpus:g} GPUs do not fit: the cluster has room "
            f"for {room(each)}; ask for fewer or smaller ones"
        )
    n_free = _wait_for_cores(num_cpus or 1, sum(cores))
    each = min(each, n_free)
    n_actors = min(workers or room(each), n_free // each, most or n_free)
    # Ray Data reads and writes in tasks of one core each, and waits for ever where actors have them all: the
    # actors of the largest machine together leave one.
    less = math.floor(10_000 * (each - each / max(cores))) / 10_000
    from ray.data import ActorPoolStrategy

    return {"compute": ActorPoolStrategy(size=n_actors), "num_cpus": less, "num_gpus": num_gpus}


def _wait_for_cores(n_needed: int, n_cores: int) -> int:
    """How many cores are free, once there are enough."""
    deadline = time.monotonic() + PATIENCE
    while (n_free := int(ray.available_resources().get("CPU", 0))) < n_needed:
        if time.monotonic() > deadline:
            raise InputError(
                f"{n_free} of the cluster's {n_cores} cores are free, and an actor takes {n_needed}; "
                "wait until its other work is done, or add machines"
            )
        time.sleep(1)
    return n_free


def portable(step: Any) -> Any:
    """The step, with its model's path as it holds in whatever folder an actor works."""
    path = Path(os.fspath(step.params.model))
    if not path.is_file():  # a preset or a repo
        return step
    return replace(step, params=replace(step.params, model=str(path.resolve())))


def with_assigned(step: Any) -> Any:
    """The step, whose model takes the cores and the GPU that Ray assigned to this actor."""
    assigned = ray.get_runtime_context().get_assigned_resources()
    params = replace(
        step.params,
        n_threads=step.params.n_threads or max(1, math.ceil(assigned.get("CPU", 1))),
        # Ray does not hide a machine's GPUs from those to whom it assigned none.
        n_gpu_layers=step.params.n_gpu_layers if assigned.get("GPU") else 0,
    )
    return replace(step, params=params)
