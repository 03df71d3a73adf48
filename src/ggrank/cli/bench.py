"""``ggrank bench``: how fast this machine ranks, beside the peers that are there."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggrank import __version__
from ggrank.cli.console import Column, echo, echo_table
from ggrank.engine.hardware import find_processor
from ggrank.errors import GgrankError

if TYPE_CHECKING:
    from ggrank.benchmark.growth import Point
    from ggrank.benchmark.measuring import Event
    from ggrank.benchmark.models import BenchModel
    from ggrank.benchmark.subjects.available import Wish
    from ggrank.benchmark.tables import Rows

FILE = click.Path(dir_okay=False, path_type=Path)
PACKAGES = ("llama-cpp-python", "numpy", "openvino", "torch", "transformers",
            "sentence-transformers", "onnxruntime", "tokenizers")  # fmt: skip


@click.command(short_help="Measure speed and memory, beside the peers that are there.")
@click.argument(
    "folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="[FOLDER]..."
)
@click.option(
    "--size",
    type=click.Choice(["smallest", "small", "full"]),
    default="small",
    show_default=True,
    help="How much is measured. With all peers on two cores small takes about three quarters of an hour and "
    "full about two hours; smallest only proves that the benchmark works, in under a minute.",
)
@click.option(
    "--growth", is_flag=True, help="Instead, how time grows with passages, their length and threads."
)
@click.option(
    "--quantization",
    "quantizations",
    multiple=True,
    default=("q4_k_m", "q8_0"),
    show_default=True,
    metavar="NAME",
    help="Which GGUF files. Repeatable.",
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    type=click.Choice(["llama.cpp", "openvino", "auto"]),
    help="Of ggrank; else each that is here. Repeatable.",
)
@click.option("--only", multiple=True, metavar="PART", help="Subjects with this in their name. Repeatable.")
@click.option("--llama-server", "server", metavar="PATH", help="Else the one on PATH.")
@click.option("--n-threads", type=click.IntRange(min=1), metavar="N", help="CPU threads of every subject.")
@click.option("--save-json", type=FILE, metavar="FILE", help="All figures.")
@click.option("--save-markdown", type=FILE, metavar="FILE", help="The tables.")
@click.option("--plot", type=FILE, metavar="FILE", help="A picture (.png, .svg, .pdf).")
def bench(
    folders: tuple[Path, ...],
    size: str,
    growth: bool,
    quantizations: tuple[str, ...],
    engines: tuple[str, ...],
    only: tuple[str, ...],
    server: str | None,
    n_threads: int | None,
    save_json: Path | None,
    save_markdown: Path | None,
    plot: Path | None,
) -> None:
    """Measure ggrank beside llama-server, sentence-transformers and ONNX Runtime, as far as they are here.

    \b
    ggrank bench                                  the bundled models
    ggrank bench models/ --save-json result.json --plot result.png
    ggrank bench models/ --growth --only ggrank

    A FOLDER holds a model, or folders of models: GGUF files, and for the peers the same weights as Hugging
    Face and ONNX files (scripts/make_benchmark_models.py). All is computed on the CPU, each subject in a
    process of its own, in rounds that alternate. Ctrl-C ends with a table of what was measured.
    """
    from ggrank.benchmark import measured_peak
    from ggrank.benchmark.models import bundled_models, models_in
    from ggrank.benchmark.report import Report
    from ggrank.benchmark.saving import save
    from ggrank.benchmark.subjects.available import ENGINES, Wish
    from ggrank.benchmark.tables import parts_of, to_markdown
    from ggrank.evaluation.saving import Outputs
    from ggrank.loading.tuning import default_threads

    outputs = Outputs(save_json, save_markdown, plot)
    outputs.check()
    models = [model for folder in folders for model in models_in(folder)] or bundled_models()
    quantizations, engines = tuple(dict.fromkeys(quantizations)), tuple(dict.fromkeys(engines))
    wish = Wish(n_threads or default_threads(), quantizations, engines or ENGINES, _find_server(server), only)
    _check(wish, models)
    events: list[Event | Point] = []
    made_with = _made_with(wish, size)
    stopped: BaseException | None = None
    try:
        made_with["flops"] = measured_peak(wish.n_threads)
        for event in _events(models, wish, size, growth):
            events.append(event)  # noqa: PERF402  # one by one, so that Ctrl-C leaves what there is
    except (KeyboardInterrupt, GgrankError) as reason:
        stopped = reason
    report = Report.of(events, made_with)
    if sys.stdout.isatty():
        _echo(parts_of(report))
    else:
        click.echo(to_markdown(report), nl=False)
    save(report, outputs)
    if stopped is not None:
        raise stopped


def _echo(parts: Sequence[str | Rows]) -> None:
    """For a terminal: no line wider than it, and no marks of Markdown."""
    for number, part in enumerate(parts):
        if number:
            echo()
        if not isinstance(part, str):
            head, *rows = [[cell.replace("**", "") for cell in row] for row in part]
            columns = [Column(title, align="right" if i else "left") for i, title in enumerate(head)]
            echo_table(columns, rows)
        elif part.startswith("#"):
            echo(part.lstrip("# "), bold=True)
        else:
            for line in part.splitlines():
                echo(line)


def _check(wish: Wish, models: list[BenchModel]) -> None:
    """Raises UsageError where nothing has the names that were asked for."""
    from ggrank.benchmark.subjects.available import names_of

    files = sorted({name for model in models for name in model.ggufs})
    if not set(files) & set(wish.quantizations):
        asked = ", ".join(wish.quantizations)
        raise click.UsageError(f"--quantization: no file is {asked}; there are: {', '.join(files)}")
    names = sorted({name for model in models for name in names_of(model, wish)})
    for part in wish.only:
        if not any(part in name for name in names):
            raise click.UsageError(f"--only: no subject has {part!r} in its name: {', '.join(names)}")


def _events(models: list[BenchModel], wish: Wish, size: str, growth: bool) -> Iterator[Event | Point]:
    from ggrank.benchmark.cells import SIZES
    from ggrank.benchmark.growth import grow
    from ggrank.benchmark.measuring import measure

    started = time.monotonic()

    def say(message: str) -> None:
        click.echo(f"{time.monotonic() - started:6.0f} s  {message}", err=True)

    for model in models:
        if growth:
            yield from grow(model, wish, SIZES[size], threads=_thread_counts(), say=say)
        else:
            yield from measure(model, wish, SIZES[size], say=say)


def _thread_counts() -> list[int]:
    """1, 2, 4 ... and all."""
    n = find_processor().n_cores
    return [*(2**i for i in range(n.bit_length()) if 2**i < n), n]


def _find_server(chosen: str | None) -> str:
    """The program's path; "" where there is none.

    Raises:
        UsageError: the one that was named is not there, or does not run here.
    """
    found = shutil.which(chosen or "llama-server")
    if chosen and not (found and _server_version(found)):
        raise click.UsageError(f"{chosen} is no program that can be run; expected llama-server's path")
    return found or ""


def _made_with(wish: Wish, size: str) -> dict[str, Any]:
    """What somebody needs to do it again."""
    processor = find_processor()
    return {
        "command": shlex.join(["ggrank", *sys.argv[1:]]),
        "size": size,
        "threads": wish.n_threads,
        "processor": processor.name,
        "cores": processor.n_cores,
        "features": list(processor.features),
        "memory in MB": _memory_bytes() // 1_000_000,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"ggrank": __version__} | {name: found for name in PACKAGES if (found := _version(name))},
        "llama-server": _server_version(wish.server),
        "flops": 0.0,
    }


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _server_version(server: str) -> str:
    if not server:
        return "not here"
    try:
        done = subprocess.run(
            [server, "--version"], capture_output=True, text=True, errors="replace", timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return next((line for line in lines if line.startswith("version")), lines[-1] if lines else "?")
