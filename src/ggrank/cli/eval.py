"""``ggrank eval``: does reranking help on your data, how much, and what does it cost."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggrank import __version__
from ggrank.cli.console import Column, echo, echo_facts, echo_json, echo_table, progress, wants_table
from ggrank.cli.hardware import find_processor
from ggrank.cli.options import DEFAULT_MODEL, ModelChoice, output_option

if TYPE_CHECKING:
    from ggrank import Llama
    from ggrank.evaluation.report import Change, Report, SetResult

SHOWN = 3
"""Queries that got better, and worse, in the terminal; JSON has more."""


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
@click.option(
    "--save-json", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="All figures."
)
@click.option(
    "--save-markdown",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Tables for a README.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
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
    interval. Each JSON line holds one set. Needs pip install 'ggrank[eval]'.
    """
    from ggrank.evaluation import evaluate
    from ggrank.evaluation.datasets import read_test_set, sample
    from ggrank.evaluation.metrics import measure
    from ggrank.evaluation.report import Report

    measure([], [])  # says before the work what is missing
    _check_outputs(save_json, save_markdown, plot)
    tests = [sample(read_test_set(path), limit) for path in sets]
    _check_names([test.name for test in tests])
    with ExitStack() as stack:
        embedder = stack.enter_context(ModelChoice(model, n_threads=n_threads).load())
        loaded = {
            _name(name): stack.enter_context(
                ModelChoice(name, pooling_type="rank", n_threads=n_threads).load()
            )
            for name in dict.fromkeys(rerankers)
        }
        made_with = _made_with(embedder, loaded)
        done: list[SetResult] = []
        for result in evaluate(tests, embedder, loaded, depths=depths, progress=_progress):
            done.append(result)
            report = Report(tuple(done), made_with)
            _save(report, save_json, save_markdown, plot)
            if wants_table(as_table):
                _echo_set(result)
            else:
                echo_json({"made_with": made_with, **report.to_json()["sets"][-1]})
    if wants_table(as_table):
        _echo_mean(report)


def _progress(n: int, label: str) -> AbstractContextManager[Callable[[int], None]]:
    return progress(n, label=label)


def _name(model: str) -> str:
    """A short name for tables: a file's own, without its ending."""
    return Path(model).name.removesuffix(".gguf")


def _check_names(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise click.UsageError(f"Two sets have the same name: {', '.join(names)}. Rename a folder or file.")


def _check_outputs(*paths: Path | None) -> None:
    """Before minutes of work: can these files be written?"""
    for path in filter(None, paths):
        if not path.absolute().parent.is_dir():
            raise click.UsageError(f"{path}: the folder {path.absolute().parent} does not exist.")
    if plot := paths[-1]:
        from ggrank.evaluation.plot import check_plot

        check_plot(plot)


def _made_with(embedder: Llama, rerankers: dict[str, Llama]) -> dict[str, Any]:
    processor = find_processor()
    return {
        "command": shlex.join(["ggrank", *sys.argv[1:]]),
        "embedder": _model_facts(embedder),
        "rerankers": {name: _model_facts(llama) for name, llama in rerankers.items()},
        "machine": f"{processor.name}, {processor.n_cores} cores, {platform.system()} {platform.machine()}",
        "device": embedder.device,
        "ggrank": __version__,
        "llama-cpp-python": _version("llama-cpp-python"),
        "ir-measures": _version("ir-measures"),
    }


def _model_facts(llama: Llama) -> dict[str, Any]:
    from ggrank.hub.checksums import sha256_of

    path = llama.model_path
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "n_ctx": llama.n_ctx,
        "quantization": llama.quantization,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def _save(report: Report, save_json: Path | None, save_markdown: Path | None, plot: Path | None) -> None:
    """After every set, so that what is done is kept when a later set is interrupted."""
    if save_json:
        with _whole(save_json) as file:
            file.write_text(
                json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n", "utf-8", "replace"
            )
    if save_markdown:
        with _whole(save_markdown) as file:
            file.write_text(report.to_markdown(), "utf-8", "replace")
    if plot:
        from ggrank.evaluation.plot import save_plot

        save_plot(report, plot)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file to write beside ``path``, which it replaces when all went well."""
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _echo_set(result: SetResult) -> None:
    from ggrank.evaluation.report import lift_text

    sampled = f" of {result.n_queries_in_all:,}" if result.n_queries < result.n_queries_in_all else ""
    echo(f"\n{result.name}", bold=True)
    echo_facts(
        f"{result.n_documents:,} documents",
        f"{result.n_queries:,}{sampled} queries",
        f"{result.n_skipped:,} queries without a relevant document left out" if result.n_skipped else "",
    )
    metrics = ("nDCG@10", "MRR@10", "recall@20", "P@1")
    columns = [Column("system"), *(Column(name, align="right") for name in metrics)]
    columns += [Column("lift of nDCG@10 [95 %]"), Column("+/-", align="right"), Column("ms", align="right")]
    rows = [
        [
            one.system,
            *(f"{one.metrics[name]:.3f}" for name in metrics),
            lift_text(one.lift),
            "" if one.lift is None else f"{one.better}/{one.worse}",
            f"{one.ms:,.1f}",
        ]
        for one in result.systems
    ]
    echo_table(columns, rows)
    last = result.systems[-1]
    if last.depth:
        _echo_changes(f"most helped by {last.system}", last.most_better[:SHOWN])
        _echo_changes(f"most harmed by {last.system}", last.most_worse[:SHOWN])


def _echo_changes(title: str, changes: tuple[Change, ...]) -> None:
    if not changes:
        return
    echo(f"  {title}", dim=True)
    columns = [Column("", align="right"), Column(""), Column("", stretch=True)]
    rows = []
    for one in changes:
        rows.append([f"{one.before:.2f} > {one.after:.2f}", "query", one.query])
        rows.append(["", "relevant", one.relevant])
        rows += [["", "put above", one.above]] if one.above else []
    echo_table(columns, rows, indent="  ")


def _echo_mean(report: Report) -> None:
    if len(report.sets) < 2:
        return
    echo(f"\nmean of {len(report.sets)} sets", bold=True)
    columns = [Column("system"), Column("nDCG@10", align="right"), Column("lift", align="right")]
    columns.append(Column("least lift of a set", align="right"))
    rows = []
    for name in report.systems:
        lifts = [lift.mean for one in report.sets if (lift := one.system(name).lift) is not None]
        least = f"{min(lifts):+.3f}" if lifts else ""
        rows.append(
            [name, f"{report.mean(name):.3f}", f"{report.mean_lift(name):+.3f}" if lifts else "", least]
        )
    echo_table(columns, rows)
