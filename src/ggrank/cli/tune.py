"""``ggrank tune``: measures which settings are fastest for a model on this machine, and remembers them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ggrank.cli.console import Column, count, echo, echo_facts, echo_json, echo_table, wants_table
from ggrank.cli.options import ModelChoice, model_options, output_option

if TYPE_CHECKING:
    from ggrank.cli.measuring import Measured, TuningReport


@click.command(short_help="Find the fastest settings for this machine.")
@click.option("--show", is_flag=True, help="Show the remembered settings of all models.")
@click.option("--forget", is_flag=True, help="Forget the settings of --model, or of all models.")
@model_options
@output_option
def tune(choice: ModelChoice, show: bool, forget: bool, as_table: bool | None) -> None:
    """Measure for some seconds which settings are fastest for a model on this machine, and remember them.

    \b
    ggrank tune --model bge-reranker-base
    ggrank tune --show
    ggrank tune --forget --model model.gguf

    From then on every load of the file uses these settings, unless you set others. After an update of
    llama.cpp or OpenVINO, or on another processor, the built-in settings apply until you run it again. It
    never chooses settings that move scores by more than quantization does.
    """
    from ggrank.cli.measuring import tune as measure
    from ggrank.rows.records import cache_dir

    if show and forget:
        raise click.UsageError("give --show or --forget, not both")
    if show or forget:
        _show(as_table) if show else _forget(_named_file(choice), as_table)
        return
    report = measure(choice.params(), on_measured=_show_progress)
    if not report.is_remembered:
        click.echo(
            f"Warning: the settings are not remembered, because {cache_dir()} cannot be written; set "
            "GGRANK_CACHE_DIR to a folder that can be written",
            err=True,
        )
    if wants_table(as_table):
        _echo_table(report)
    else:
        echo_json(asdict(report))


tune.params = [one for one in tune.params if one.name != "cache"]  # a cached result has no speed


def _named_file(choice: ModelChoice) -> Path | None:
    """The file of --model, even if it is gone; None (all files) without --model. Downloads nothing."""
    from ggrank.hub import find_model

    if click.get_current_context().get_parameter_source("model") is ParameterSource.DEFAULT:
        return None
    if choice.model.endswith(".gguf"):
        return Path(choice.model)
    return find_model(choice.model, filename=choice.filename, local_files_only=True).path


def _show(as_table: bool | None) -> None:
    from ggrank.cli.measuring import changes
    from ggrank.loading.tuning import remembered

    found = remembered()
    if not wants_table(as_table):
        for one in found:
            echo_json({**asdict(one), "model": str(one.model)})
        return
    for one in found:
        gain = "" if one.gain == 1 else f", {one.gain:.2f} times as fast as built-in"
        outdated = "" if one.in_use else "; no longer used: the file, a library or the machine has changed"
        echo(str(one.model), bold=True)
        echo(f"    {changes(one.tuned)}{gain}, measured {one.when}{outdated}")
    if not found:
        echo("No settings are remembered: the built-in ones apply.")


def _forget(model: Path | None, as_table: bool | None) -> None:
    from ggrank.loading.tuning import forget_tuned

    n = forget_tuned(model)
    if wants_table(as_table):
        echo(f"Forgot the settings of {count(n, 'model')}.")
    else:
        echo_json({"forgotten": n})


def _show_progress(measured: Measured) -> None:
    if sys.stderr.isatty():
        click.echo(f"{measured.tokens_per_second:>9,.0f} tokens/s  {measured.name}", err=True)


def _echo_table(report: TuningReport) -> None:
    from ggrank.cli.measuring import BUILT_IN
    from ggrank.loading.tuning import fastest_quantization

    default = report.default.tokens_per_second
    columns = [Column("tokens/s", align="right"), Column("speed", align="right")]
    rows = []
    for one in (report.default, *report.tried):
        verdict = "built-in" if one is report.default else one.rejected or "faster"
        speed = one.tokens_per_second
        rows.append([f"{speed:,.0f}", f"{speed / default:.2f}", f"{one.name}: {verdict}"])
    echo_table([*columns, Column("settings", wrap=True)], rows)
    echo()
    if report.gain != 1:
        verdict = ": too little to keep" if report.chosen == BUILT_IN else ""
        echo(
            f"Measured again, the best was {report.gain:.2f} times as fast as the built-in settings{verdict}."
        )
    echo(f"{'Remembered' if report.is_remembered else 'Fastest'}: {report.chosen}")
    if quantization := fastest_quantization():
        echo(f"Fastest quantization here: {quantization}")
    echo_facts(report.model, f"engine {report.settings.engine}")
