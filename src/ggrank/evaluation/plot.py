"""The picture of an evaluation: quality against latency, and the lift on every set.

Knows matplotlib; not how the numbers came about, nor files.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ggrank.errors import InputError
from ggrank.evaluation.report import Report
from ggrank.evaluation.results import MAIN_METRIC, SystemResult
from ggrank.evaluation.systems import EMBEDDER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")

# Okabe and Ito's colours, which people with any colour vision can tell apart, and a marker for each besides.
# https://jfly.uni-koeln.de/color/
_FIRST_STAGES = (("black", "D"), ("#E69F00", "s"), ("#0072B2", "^"))
_RERANKERS = (("#D55E00", "o"), ("#009E73", "v"), ("#CC79A7", "P"), ("#56B4E9", "X"))

_WIDTH = 9.0
_SMALL = 8.5


@dataclass(frozen=True)
class _Look:
    color: str
    marker: str


def check_plot(path: Path) -> None:
    """Raises InputError where matplotlib is missing, or the suffix is of none of `FORMATS`."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a plot's name ends in {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401  # whether it is there
    except ImportError as error:
        raise InputError("A plot needs matplotlib: pip install 'ggrank[eval]'") from error


def draw(report: Report, form: str) -> bytes:
    """The picture as "png", "svg" or "pdf"."""
    picture = io.BytesIO()
    _figure(report).savefig(picture, format=form, dpi=160)
    return picture.getvalue()


def _figure(report: Report) -> Figure:
    from matplotlib.figure import Figure

    compared = _compared(report)
    rows = len(report.sets) * (0.17 * len(compared) + 0.12)
    figure = Figure(figsize=(_WIDTH, max(3.9, 1.5 + rows)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.1))
    looks = _looks(report)
    _quality_against_latency(left, report, looks)
    _lift_per_set(right, report, compared, looks)
    handles, labels = right.get_legend_handles_labels()
    first = left.get_legend_handles_labels()
    figure.legend(
        [first[0][0], *handles],
        [_plain(EMBEDDER.name), *labels],
        loc="outside lower center",
        ncols=min(4, 1 + len(labels)),
        fontsize=_SMALL,
        frameon=False,
    )
    return figure


def _family(system: SystemResult) -> str:
    """What has one look: a first stage, or a reranker with all its depths."""
    return system.reranker or system.system


def _looks(report: Report) -> dict[str, _Look]:
    firsts = dict.fromkeys(one.system for one in report.systems if not one.depth)
    rerankers = dict.fromkeys(one.reranker for one in report.systems if one.depth)
    looks = {name: _Look(*_FIRST_STAGES[i % 3]) for i, name in enumerate(firsts)}
    return looks | {name: _Look(*_RERANKERS[i % 4]) for i, name in enumerate(rerankers)}


def _quality_against_latency(axes: Axes, report: Report, looks: Mapping[str, _Look]) -> None:
    for family, look in looks.items():
        systems = [one for one in report.systems if _family(one) == family]
        points = [(report.mean_ms(one.system), report.mean(one.system)) for one in systems]
        axes.plot(*zip(*points, strict=True), color=look.color, marker=look.marker, label=_plain(family))
        for system, point in zip(systems, points, strict=True):
            if system.depth:
                _write_depth(axes, system, point, look)
    axes.set_xscale("log")
    _plain_ticks(axes)
    axes.margins(0.1, 0.14)
    axes.set_xlabel("milliseconds a query, log scale", fontsize=_SMALL)
    mean = ", mean over sets" if len(report.sets) > 1 else ""
    axes.set_ylabel(f"{MAIN_METRIC}{mean}", fontsize=_SMALL)
    axes.set_title("Quality against latency\n(numbers: documents reranked)", fontsize=10)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(alpha=0.3)


def _write_depth(axes: Axes, system: SystemResult, point: tuple[float, float], look: _Look) -> None:
    """How much the reranker read: above its point, below for every second reranker, as they may be close."""
    above = look.marker in ("o", "P")
    axes.annotate(
        str(system.depth),
        point,
        textcoords="offset points",
        xytext=(0, 7 if above else -7),
        ha="center",
        va="bottom" if above else "top",
        color=look.color,
        fontsize=_SMALL,
    )


def _plain_ticks(axes: Axes) -> None:
    """1, 10, 100 instead of powers; with steps between where there is little more than one decade."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 100 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _compared(report: Report) -> list[SystemResult]:
    """BM25, fusion, and each reranker at 20 (or its least depth) and at its largest."""
    chosen = [one for one in report.systems if not one.depth and one.system != EMBEDDER.name]
    for reranker in dict.fromkeys(one.reranker for one in report.systems if one.depth):
        of_it = {one.depth: one for one in report.systems if one.reranker == reranker}
        depths = dict.fromkeys([20 if 20 in of_it else min(of_it), max(of_it)])
        chosen += [of_it[depth] for depth in depths]
    return chosen


def _lift_per_set(
    axes: Axes, report: Report, compared: Sequence[SystemResult], looks: Mapping[str, _Look]
) -> None:
    seen: set[str] = set()
    for place, system in enumerate(compared):
        look = looks[_family(system)]
        lifts = [one.system(system.system).lift for one in report.sets]
        known = [lift for lift in lifts if lift is not None]
        axes.errorbar(
            [lift.mean for lift in known],
            [row - 0.4 + 0.8 * (place + 0.5) / len(compared) for row in range(len(known))],
            xerr=[[lift.mean - lift.low for lift in known], [lift.high - lift.mean for lift in known]],
            fmt=look.marker,
            color=look.color,
            markerfacecolor="white" if _family(system) in seen else None,  # a reranker's larger depth
            capsize=2,
            markersize=5,
            label=_plain(system.system),
        )
        seen.add(_family(system))
    axes.axvline(0, color="0.3", linewidth=1)
    for row in range(1, len(report.sets)):
        axes.axhline(row - 0.5, color="0.85", linewidth=0.8)
    axes.set_yticks(range(len(report.sets)), [_plain(one.name) for one in report.sets])
    axes.set_ylim(len(report.sets) - 0.5, -0.5)
    axes.set_xlabel(f"lift of {MAIN_METRIC}, 95 % interval", fontsize=_SMALL)
    axes.set_title("Lift over the embedder\non each set", fontsize=10)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(axis="x", alpha=0.3)


def _plain(text: str) -> str:
    """A name that is not read as a formula, and not hidden from the legend as names with ``_`` are."""
    shown = text if len(text) <= 34 else f"{text[:20]}…{text[-13:]}"
    return shown.replace("$", r"\$").removeprefix("_")
