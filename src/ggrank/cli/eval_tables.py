"""An evaluation as tables for a terminal: one for each set, its most changed queries, and the mean.

Used by `eval`. Knows how results look to people; measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ggrank.cli.console import Column, can_print, echo, echo_facts, echo_table, terminal_width

if TYPE_CHECKING:
    from ggrank.evaluation.changes import Change
    from ggrank.evaluation.report import Report
    from ggrank.evaluation.results import SetResult

WIDE = 110
"""Columns of a terminal that has room for all metrics."""

NARROW_METRICS = ("nDCG@10", "P@1")
WIDE_METRICS = ("nDCG@10", "MRR@10", "recall@20", "recall@100", "P@1")


def echo_models(made_with: Mapping[str, Any]) -> None:
    """The files that are compared."""
    from ggrank.evaluation.report import model_facts

    echo_facts(*model_facts(made_with))


def echo_set(result: SetResult) -> None:
    """Name and size of a set, a line for each system, and the queries that the last one changed most."""
    from ggrank.evaluation.report import set_facts

    echo()
    echo(result.name, bold=True)
    echo_facts(*set_facts(result))
    _echo_systems(result)
    last = result.systems[-1]
    if last.changes:
        _echo_changes(f"most helped by {last.system}", last.changes.most_better)
        _echo_changes(f"most harmed by {last.system}", last.changes.most_worse)


def _echo_systems(result: SetResult) -> None:
    from ggrank.evaluation.report import lift_text, ms_text

    wide = terminal_width() >= WIDE
    metrics = WIDE_METRICS if wide else NARROW_METRICS
    columns = [Column("system", stretch=True), *(Column(name, align="right") for name in metrics)]
    columns += [Column("lift of nDCG@10 [95 %]"), Column("+/-", align="right")]
    columns += [Column("ms", align="right"), *([Column("p95 ms", align="right")] if wide else [])]
    rows = []
    for one in result.systems:
        changed = f"{one.changes.n_better}/{one.changes.n_worse}" if one.changes else ""
        times = [ms_text(one.total_ms.median), ms_text(one.total_ms.p95)]
        figures = [f"{one.metrics[name]:.3f}" for name in metrics]
        rows.append([one.system, *figures, lift_text(one.lift), changed, *times[: 2 if wide else 1]])
    echo_table(columns, rows)


def _echo_changes(title: str, changes: Sequence[Change]) -> None:
    if not changes:
        return
    echo()
    echo(title, bold=True)
    arrow = "→" if can_print("→") else ">"
    columns = [Column("", align="right"), Column(""), Column("", stretch=True)]
    rows = []
    for one in changes:
        rows.append([f"{one.before:.2f} {arrow} {one.after:.2f}", "query", one.query])
        ranks = f"{_rank(one.rank_before)} {arrow} {_rank(one.rank_after)}"
        rows.append([f"rank {ranks}", "relevant", one.relevant])
        rows += [["", "above it", one.above]] if one.above else []
    echo_table(columns, rows)


def _rank(rank: int | None) -> str:
    return "-" if rank is None else str(rank)


def echo_mean(report: Report) -> None:
    """The mean over several sets, and for each system its least lift on one of them."""
    from ggrank.evaluation.report import ms_text

    if len(report.sets) < 2:
        return
    echo()
    echo(f"mean of {len(report.sets)} sets", bold=True)
    columns = [Column("system", stretch=True)]
    columns += [Column(name, align="right") for name in ("nDCG@10", "lift", "least lift on a set", "ms")]
    rows = []
    for system in report.systems:
        lifts = [lift.mean for one in report.sets if (lift := one.system(system.system).lift) is not None]
        mean, least = (f"{report.mean_lift(system.system):+.3f}", f"{min(lifts):+.3f}") if lifts else ("", "")
        quality, ms = f"{report.mean(system.system):.3f}", ms_text(report.mean_ms(system.system))
        rows.append([system.system, quality, mean, least, ms])
    echo_table(columns, rows)
