"""``ggrank doctor``: what was found on this machine, whether the numbers are right, and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ggrank.cli.checks import Check, run_checks
from ggrank.cli.console import (
    Column,
    can_print,
    colored_state,
    echo,
    echo_json,
    echo_table,
    wants_table,
)
from ggrank.cli.options import ModelChoice, filename_option, output_option

if TYPE_CHECKING:
    from ggrank.cli.console import Cell


@click.command(short_help="Check this machine, the llama.cpp build, the models and their scores.")
@click.option("--model", "-m", metavar="NAME|PATH", help="Check this model's scores for two sentences too.")
@filename_option
@output_option
@click.pass_context
def doctor(ctx: click.Context, model: str | None, filename: str | None, as_table: bool | None) -> None:
    """Check the processor, the llama.cpp build, the models, and the scores of the bundled models.

    With --model bge-reranker-base, once it is downloaded, its logits are compared with the logits of the
    original model. Nothing is downloaded. The exit code is 1 when a check fails.
    """
    choice = ModelChoice(model, filename, local_files_only=True) if model else None
    checks = run_checks(choice)
    n_failed = sum(check.state == "fail" for check in checks)
    if wants_table(as_table):
        columns = [Column(""), Column(""), Column("", wrap=True)]
        echo_table(columns, [row for check in checks for row in _rows(check)])
        echo(f"{n_failed} of {len(checks)} checks failed" if n_failed else "All is well.", bold=True)
    else:
        for check in checks:
            echo_json({"check": check.name, "state": check.state, "found": check.found, "fix": check.fix})
    ctx.exit(1 if n_failed else 0)


def _rows(check: Check) -> list[list[Cell]]:
    rows: list[list[Cell]] = [[colored_state(check.state), check.name, check.found]]
    if check.fix:
        rows.append(["", "", f"{'→' if can_print('→') else '->'} {check.fix}"])
    return rows
