"""``ggrank eval``: does reranking help on your data, how much, and what does it cost."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggrank import __version__
from ggrank.cli.console import echo_json, progress, wants_table
from ggrank.cli.eval_tables import echo_mean, echo_models, echo_set
from ggrank.cli.options import DEFAULT_MODEL, ModelChoice, engine_options, output_option
from ggrank.engine.hardware import find_processor

if TYPE_CHECKING:
    from ggrank import Llama

FILE = click.Path(dir_okay=False, path_type=Path)


@click.command(short_help="Measure ranking quality and latency on test sets.")
@click.argument(
    "sets", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="SET..."
)
@click.option(
    "--model", "-m", default=DEFAULT_MODEL, show_default=True, metavar="NAME|PATH|REPO", help="The embedder."
)
@click.option(
    "--reranker",
    "-r",
    "rerankers",
    multiple=True,
    metavar="NAME|PATH|REPO",
    help="Also this reranker. Repeatable.",
)
@click.option(
    "--top-k",
    "depths",
    multiple=True,
    type=click.IntRange(1, 100),
    default=(10, 20, 50, 100),
    show_default=True,
    metavar="K",
    help="How many of the embedder's documents are reranked. Repeatable.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="N queries of each set, always the same."
)
@click.option("--n-threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.")
@engine_options
@click.option("--save-json", type=FILE, metavar="FILE", help="All figures.")
@click.option("--save-markdown", type=FILE, metavar="FILE", help="Tables for a README.")
@click.option(
    "--plot",
    type=FILE,
    metavar="FILE",
    help="Quality against latency, and lift per set (.png, .svg, .pdf).",
)
@output_option
def eval(
    sets: tuple[Path, ...],
    model: str,
    rerankers: tuple[str, ...],
    depths: tuple[int, ...],
    limit: int | None,
    n_threads: int | None,
    engine: str,
    cache: str | None,
    save_json: Path | None,
    save_markdown: Path | None,
    plot: Path | None,
    as_table: bool | None,
) -> None:
    """Measure how well SETs are ranked: embedder, BM25, their fusion, and rerankers.

    \b
    ggrank eval cranfield/ --reranker bge-reranker-base
    ggrank eval pairs.tsv --reranker my-reranker.gguf --save-json result.json --plot result.png

    A SET is a BEIR folder (corpus.jsonl, queries.jsonl, qrels.tsv or qrels/test.tsv, plain or .gz), or a
    file of (query, passage) pairs (.tsv, .csv, .jsonl).

    nDCG@10 is the main figure; a lift is the mean difference to the embedder's, with its 95 % bootstrap
    interval. Each JSON line holds one set. With --cache the same evaluation is quick the next time, and
    its milliseconds are not those of the models. Needs pip install 'ggrank[eval]'.
    """
    from ggrank.evaluation import evaluate
    from ggrank.evaluation.datasets import read_test_set, sample
    from ggrank.evaluation.metrics import measure
    from ggrank.evaluation.report import Report
    from ggrank.evaluation.saving import Outputs

    measure([], [])  # says before the work that ir-measures is missing
    outputs = Outputs(save_json, save_markdown, plot)
    outputs.check()
    tests = [sample(read_test_set(path), limit) for path in sets]
    _check_distinct([test.name for test in tests], "sets", "rename a folder or file")
    if cache is not None:
        click.echo("Note: with --cache the milliseconds are not those of the models.", err=True)
    choice = ModelChoice(model, n_threads=n_threads, engine=engine, cache=cache)
    settings = {"top_k": sorted(set(depths)), "limit": limit, "cache": cache is not None}
    report = None
    with ExitStack() as stack:
        embedder = stack.enter_context(choice.load())
        loaded = _load_rerankers(rerankers, choice, stack)
        made_with = _made_with(embedder, loaded, settings)
        if wants_table(as_table):
            echo_models(made_with)
        for result in evaluate(tests, embedder, loaded, depths=depths, progress=_progress):
            report = Report((*(report.sets if report else ()), result), made_with)
            if wants_table(as_table):
                echo_set(result)
            else:
                echo_json({"made_with": made_with, **report.to_json()["sets"][-1]})
            outputs.save(report)  # after every set: what is done is kept when a later one is interrupted
    if report and wants_table(as_table):
        echo_mean(report)


def _load_rerankers(models: Sequence[str], choice: ModelChoice, stack: ExitStack) -> dict[str, Llama]:
    """By name; loaded as ``choice`` loads the embedder."""
    models = list(dict.fromkeys(models))
    names = [Path(model).name.removesuffix(".gguf") for model in models]
    _check_distinct(names, "rerankers", "rename a file")
    choices = [replace(choice, model=model, pooling_type="rank") for model in models]
    return {name: stack.enter_context(choice.load()) for name, choice in zip(names, choices, strict=True)}


def _check_distinct(names: Sequence[str], things: str, way_out: str) -> None:
    if len(set(names)) < len(names):
        raise click.UsageError(f"Two {things} have the same name: {', '.join(names)}; {way_out}.")


def _progress(n: int, label: str) -> AbstractContextManager[Callable[[int], None]]:
    return progress(n, label=label)


def _made_with(embedder: Llama, rerankers: dict[str, Llama], settings: dict[str, Any]) -> dict[str, Any]:
    """What somebody needs to do it again; its strings and models stand below the Markdown tables."""
    from ggrank.evaluation.bootstrap import RESAMPLES
    from ggrank.evaluation.datasets import SEED

    processor = find_processor()
    return {
        "command": shlex.join(["ggrank", *sys.argv[1:]]),
        "machine": f"{processor.name}, {processor.n_cores} cores, {platform.system()} {platform.machine()}",
        "device": embedder.device,
        "python": platform.python_version(),
        "ggrank": __version__,
        "llama-cpp-python": _version("llama-cpp-python"),
        "ir-measures": _version("ir-measures"),
        "embedder": _model_facts(embedder),
        "rerankers": {name: _model_facts(llama) for name, llama in rerankers.items()},
        "settings": {**settings, "sample_seed": SEED, "bootstrap_resamples": RESAMPLES},
    }


def _model_facts(llama: Llama) -> dict[str, Any]:
    from ggrank.hub.checksums import sha256_of

    path = llama.model_path
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "n_ctx": llama.n_ctx,
        "quantization": llama.quantization,
        "engine": llama.engine,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"
