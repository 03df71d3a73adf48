"""``ggrank eval``: does reranking help on your data, how much, and what does it cost."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggrank.cli.console import (
    Column,
    echo,
    echo_facts,
    echo_json,
    echo_table,
    progress,
    terminal_width,
    wants_table,
)
from ggrank.cli.options import DEFAULT_MODEL, ModelChoice, engine_options, output_option
from ggrank.engine.hardware import find_processor

if TYPE_CHECKING:
    from ggrank import Llama
    from ggrank.evaluation.report import ReportSection


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
    help="Measure this reranker too. Repeatable.",
)
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measure FILE too: another system's ranking, for one SET, in TREC's or MS MARCO's format. "
    "Repeatable.",
)
@click.option(
    "--top-k",
    "depths",
    multiple=True,
    type=click.IntRange(1, 100),
    default=(10, 20, 50, 100),
    show_default=True,
    metavar="K",
    help="How many of the embedder's documents (and of a run's) are reranked. Repeatable.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Use the same N queries of each set every time."
)
@click.option("--explain", is_flag=True, help="List the queries that the last system made better and worse.")
@click.option("--n-threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.")
@engine_options
@click.option(
    "--save",
    "outputs",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="All figures (.json), tables (.md) or a plot of quality against latency (.png, .svg, .pdf). "
    "Repeatable.",
)
@output_option
def eval(
    sets: tuple[Path, ...],
    model: str,
    rerankers: tuple[str, ...],
    runs: tuple[Path, ...],
    depths: tuple[int, ...],
    limit: int | None,
    explain: bool,
    n_threads: int | None,
    engine: str,
    cache: str | None,
    outputs: tuple[Path, ...],
    as_table: bool | None,
) -> None:
    """Measure how well SETs are ranked: embedder, BM25, their fusion, and rerankers.

    \b
    ggrank eval cranfield/ --reranker bge-reranker-base
    ggrank eval pairs.tsv --reranker my-reranker.gguf --save result.png
    ggrank eval msmarco/ --run bm25.trec --reranker bge-reranker-base --explain

    A SET is a folder in BEIR's format (corpus.jsonl, queries.jsonl, qrels.tsv or qrels/test.tsv) or MS
    MARCO's (collection.tsv, queries.tsv, qrels.tsv), plain or .gz, or a file of (query, passage) pairs (.tsv,
    .csv, .jsonl).

    nDCG@10 is the main figure; a lift is the mean difference to the embedder's, with its 95 % bootstrap
    interval. Each JSON line holds one set. With --cache the same evaluation is quick the next time, and
    its milliseconds are not those of the models. Needs pip install 'ggrank[eval]'.
    """
    from ggrank.evaluation import evaluate
    from ggrank.evaluation.datasets import read_run, read_test_set, sample
    from ggrank.evaluation.report import Report, check_outputs, model_facts, save, set_sections
    from ggrank.evaluation.results import measure

    measure([], [])  # says before the work that ir-measures is missing
    check_outputs(outputs)
    if runs and len(sets) > 1:
        raise click.UsageError(f"--run is a ranking of one SET, found {len(sets)}; evaluate them one by one.")
    tests = [sample(read_test_set(path), limit) for path in sets]
    _check_distinct([test.name for test in tests], "sets", "rename a folder or file")
    given = [read_run(path, tests[0]) for path in runs]
    models = {Path(model).name.removesuffix(".gguf"): model for model in rerankers}
    own_names = ["embedder", "BM25", "RRF", "fusion", *(one.name for one in given)]
    names = [Path(model).name.removesuffix(".gguf") for model in dict.fromkeys(rerankers)]
    _check_distinct([*own_names, *names], "systems", "rename a file")
    if cache is not None:
        click.echo("Note: with --cache the milliseconds are not those of the models.", err=True)
    choice = ModelChoice(model, n_threads=n_threads, engine=engine, cache=cache)
    settings = {"top_k": sorted(set(depths)), "limit": limit, "cache": cache is not None}
    as_table, report = wants_table(as_table), None
    with ExitStack() as stack:
        embedder = stack.enter_context(choice.load())
        loaded = {
            name: stack.enter_context(replace(choice, model=model, pooling_type="rank").load())
            for name, model in models.items()
        }
        made_with = _made_with(embedder, loaded, settings)
        if as_table:
            echo_facts(*model_facts(made_with))
        for result in evaluate(tests, embedder, loaded, depths=depths, given=given, progress=progress):
            report = Report((*(report.sets if report else ()), result), made_with)
            if as_table:
                _echo_sections(set_sections(result, explain=explain))
            else:
                echo_json({"made_with": made_with, **report.to_json()["sets"][-1]})
            for path in outputs:  # after every set, so that Ctrl-C keeps what is done
                save(report, path, explain=explain)
    if report and as_table and len(tests) > 1:
        _echo_sections([report.overview()])


def _check_distinct(names: Sequence[str], things: str, way_out: str) -> None:
    if len(set(names)) < len(names):
        raise click.UsageError(f"Two {things} have the same name: {', '.join(names)}; {way_out}.")


def _echo_sections(sections: Iterable[ReportSection]) -> None:
    """Tables; the last columns of a set's figures are left out where the terminal has no room for them."""
    for section in sections:
        echo()
        echo(section.title, bold=True)
        echo_facts(*section.facts)
        head, *rows = section.rows
        numbers, n = section.has_numbers, len(head)
        widths = [max(len(row[i]) for row in section.rows) + 2 for i in range(n)]
        while n > 3 and sum(widths[:n]) > terminal_width():
            n -= 1
        first = Column(head[0], stretch=numbers)
        others = [Column(title, "right" if numbers else "left", stretch=not numbers) for title in head[1:n]]
        echo_table([first, *others], [row[:n] for row in rows])


def _made_with(embedder: Llama, rerankers: dict[str, Llama], settings: dict[str, Any]) -> dict[str, Any]:
    """What somebody needs to do it again; its strings and models stand below the Markdown tables."""
    from ggrank.evaluation.datasets import SEED
    from ggrank.evaluation.results import RESAMPLES
    from ggrank.hub.checksums import sha256_of

    def facts(llama: Llama) -> dict[str, Any]:
        path = llama.model_path
        found = {"file": path.name, "sha256": sha256_of(path), "quantization": llama.quantization}
        return {**found, "n_ctx": llama.n_ctx, "engine": llama.engine}

    processor = find_processor()
    return {
        "command": shlex.join(["ggrank", *sys.argv[1:]]),
        "machine": f"{processor.name}, {processor.n_cores} cores, {platform.system()} {platform.machine()}",
        "device": embedder.device,
        **{name: version(name) for name in ("ggrank", "llama-cpp-python", "ir-measures")},
        "embedder": facts(embedder),
        "rerankers": {name: facts(llama) for name, llama in rerankers.items()},
        "settings": {**settings, "sample_seed": SEED, "bootstrap_resamples": RESAMPLES},
    }
