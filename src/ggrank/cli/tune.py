"""``ggrank tune``: measures for some seconds which settings are fastest here, and remembers them."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ggrank.cli.console import Column, echo, echo_facts, echo_json, echo_table, wants_table
from ggrank.cli.options import ModelChoice, model_options, output_option

if TYPE_CHECKING:
    from ggrank.measuring import Measured, TuningReport


@click.command(short_help="Find the fastest settings for this machine.")
@model_options
@output_option
def tune(choice: ModelChoice, as_table: bool | None) -> None:
    """Measure one model on this machine, and remember the settings that are fastest.

    \b
    ggrank tune --model bge-reranker-base
    ggrank tune --model model.gguf --engine llama.cpp

    Every later load of the same file uses them, and what is given here besides. A new llama.cpp, OpenVINO,
    processor or file is measured by calling this again; until then the built-in rules apply. Nothing that
    moves scores by more than quantization does is chosen.
    """
    from ggrank.measuring import tune as measure

    if choice.cache is not None:
        raise click.UsageError("tune measures what is computed; a --cache has no use here")
    report = measure(choice.params(), on_measured=_show_progress)
    if wants_table(as_table):
        _echo_table(report)
    else:
        echo_json(asdict(report))


def _show_progress(measured: Measured) -> None:
    if sys.stderr.isatty():
        click.echo(f"{measured.tokens_per_second:>9,.0f} tokens/s  {measured.name}", err=True)


def _echo_table(report: TuningReport) -> None:
    from ggrank.measuring import BUILT_IN

    default = report.default.tokens_per_second
    columns = [
        Column("settings", stretch=True),
        Column("tokens/s", align="right"),
        Column("speed", align="right"),
        Column(""),
    ]
    rows = [[report.default.name, f"{default:,.0f}", "1.00", "built-in"]]
    for one in report.tried:
        speed = f"{one.tokens_per_second:,.0f}", f"{one.tokens_per_second / default:.2f}"
        rows.append([one.name, *speed, one.rejected or "faster"])
    echo_table(columns, rows)
    echo()
    again = f"timed again in turns: {report.gain:.2f} times as fast as built-in" if report.gain != 1 else ""
    kept = "" if report.chosen != BUILT_IN or not again else ", which may be noise"
    echo(f"{again}{kept}; remembered: {report.chosen}" if again else f"remembered: {report.chosen}")
    echo_facts(report.model, f"engine {report.settings.engine}")
