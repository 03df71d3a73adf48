"""``ggrank doctor``: what was found on this machine, whether the numbers are right, and what mends it."""

from __future__ import annotations

import textwrap

import click

from ggrank.cli.checks import Check, run_checks
from ggrank.cli.console import can_print, echo, echo_json, one_line, styled, terminal_width, wants_table
from ggrank.cli.options import ModelChoice, output_option

_COLORS = {"ok": "green", "note": "yellow", "fail": "red"}


@click.command(short_help="Check this machine, the llama.cpp build, models and numbers.")
@click.option("--model", "-m", metavar="NAME|PATH", help="Also score two sentences with this model.")
@click.option("--filename", metavar="FILE", help="Which file of a repo that holds several.")
@output_option
@click.pass_context
def doctor(ctx: click.Context, model: str | None, filename: str | None, as_table: bool | None) -> None:
    """Check the processor, the llama.cpp build, the models, and that the bundled model's numbers are right.

    With --model bge-reranker-base, once it is downloaded, its logits are compared with those that the
    original gives. Nothing is downloaded. The exit code is 1 when a check fails.
    """
    choice = ModelChoice(model, filename, local_files_only=True) if model else None
    checks = run_checks(choice)
    for check in checks:
        if wants_table(as_table):
            _echo(check)
        else:
            echo_json({"check": check.name, "state": check.state, "found": check.found, "fix": check.fix})
    n_failed = sum(check.state == "fail" for check in checks)
    if wants_table(as_table):
        echo(f"{n_failed} of {len(checks)} checks failed" if n_failed else "All is well.", bold=True)
    ctx.exit(1 if n_failed else 0)


def _echo(check: Check) -> None:
    """The state and name on one line with what was found, wrapped beside them; then what mends it."""
    margin = 24
    wrap = textwrap.TextWrapper(
        max(terminal_width() - margin, 30), break_long_words=False, break_on_hyphens=False
    )
    lines = wrap.wrap(one_line(check.found)) or [""]
    if check.fix:
        lines += [
            f"{'→' if can_print('→') else '->'} {line}" if i == 0 else f"  {line}"
            for i, line in enumerate(wrap.wrap(one_line(check.fix)))
        ]
    state = styled(f"{check.state:<5}", fg=_COLORS[check.state])
    echo(f"{state} {check.name:<{margin - 7}} {lines[0]}".rstrip())
    for line in lines[1:]:
        echo(" " * margin + line)
