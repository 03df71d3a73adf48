"""The picture of an evaluation: quality against latency, and the lift on every set.

Knows matplotlib; not how the numbers came about, nor files.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
_FIRST_STAGES = (("black", "D"), ("#E69F00", "s"), ("#0072B2", "^"), ("#56B4E9", "p"))
_RERANKERS = (("#D55E00", "o"), ("#009E73", "v"), ("#CC79A7", "P"), ("0.5", "X"))

_WIDTH = 9.0
_SMALL = 8.5

_SIDES = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 0.8), (-1, 0.8), (1, -0.8), (-1, -0.8))
"""Of a point, where its depth may stand."""


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
    figure(report).savefig(picture, format=form, dpi=160)
    return picture.getvalue()


def figure(report: Report) -> Figure:
    """The picture as matplotlib's Figure."""
    from matplotlib.figure import Figure

    compared = _compared(report)
    rows = len(report.sets) * (0.17 * len(compared) + 0.12)
    drawing = Figure(figsize=(_WIDTH, max(3.9, 1.5 + rows)), layout="constrained")
    left, right = drawing.subplots(1, 2, width_ratios=(1, 1.1))
    looks = _looks(report)
    _quality_against_latency(left, report, looks)
    _lift_per_set(right, report, compared, looks)
    _write_legend(drawing, left, right, compared)
    drawing.draw_without_rendering()  # from here on it is known where each point lies
    _write_depths(left, report, looks)
    return drawing


def _write_legend(figure: Figure, left: Axes, right: Axes, compared: Sequence[SystemResult]) -> None:
    """The first stages in a row, and each reranker in one of its own."""
    from matplotlib.lines import Line2D

    embedder = next(zip(*left.get_legend_handles_labels(), strict=True))
    rows: dict[str, list[tuple[Any, str]]] = {"": [embedder]}
    for system, entry in zip(compared, zip(*right.get_legend_handles_labels(), strict=True), strict=True):
        rows.setdefault(system.reranker, []).append(entry)
    nothing = (Line2D([], [], linestyle="none"), "")
    columns = list(zip_longest(*rows.values(), fillvalue=nothing))  # matplotlib fills column by column
    handles, labels = zip(*chain(*columns), strict=True)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(columns), fontsize=_SMALL, frameon=False
    )


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
        points = [_point(report, one) for one in systems]
        axes.plot(*zip(*points, strict=True), color=look.color, marker=look.marker, label=_plain(family))
    axes.set_xscale("log")
    _plain_ticks(axes)
    axes.margins(0.1, 0.14)
    axes.set_xlabel("milliseconds a query, log scale", fontsize=_SMALL)
    mean = ", mean over sets" if len(report.sets) > 1 else ""
    axes.set_ylabel(f"{MAIN_METRIC}{mean}", fontsize=_SMALL)
    axes.set_title("Quality against latency\n(numbers: documents reranked)", fontsize=10)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(alpha=0.3)


def _point(report: Report, system: SystemResult) -> tuple[float, float]:
    return report.mean_ms(system.system), report.mean(system.system)


def _write_depths(axes: Axes, report: Report, looks: Mapping[str, _Look]) -> None:
    """How much each reranker read, beside its point; nowhere if all sides are taken."""
    drawn = np.concatenate([_along(line.get_xydata(), axes) for line in axes.get_lines()])
    written = np.empty((0, 2))
    rerankings = [one for one in report.systems if one.depth]
    for system in sorted(rerankings, key=lambda one: -one.depth):  # the deepest choose first
        text, data = str(system.depth), _point(report, system)
        point = _places(axes, [data])[0]
        place = _free_place(point, text, drawn, written)
        if place is not None:
            written = np.vstack([written, place])
            color = looks[_family(system)].color
            label = axes.annotate(text, data, tuple(place - point), textcoords="offset points", color=color)
            label.set(fontsize=_SMALL, ha="center", va="center")


def _free_place(
    point: NDArray[np.float64], text: str, drawn: NDArray[np.float64], written: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Where the middle of a text beside a point may lie, off what is drawn and written."""
    half = 0.31 * _SMALL * len(text)  # of a digit's width
    for side in _SIDES:
        place = point + np.array(side) * (half + 5, 9)
        hits_drawing = (np.abs(drawn - place) < (half + 4, 8)).all(1).any()
        hits_text = (np.abs(written - place) < (half + 10, 10)).all(1).any()
        if not hits_drawing and not hits_text:
            return place
    return None


def _along(data: ArrayLike, axes: Axes) -> NDArray[np.float64]:
    """Places of a line's points and of the way between them."""
    points = _places(axes, data)
    steps = np.linspace(0, 1, 50)[:, None, None]
    return np.concatenate([points, (points[:-1] + steps * np.diff(points, axis=0)).reshape(-1, 2)])


def _places(axes: Axes, data: ArrayLike) -> NDArray[np.float64]:
    """Where data lie in the figure, in points of 1/72 inch, shape (n, 2)."""
    return axes.transData.transform(data) * 72 / axes.figure.dpi


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
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(f"lift of {MAIN_METRIC}, 95 % interval", fontsize=_SMALL)
    axes.set_title("Lift over the embedder\non each set", fontsize=10)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(axis="x", alpha=0.3)


def _plain(text: str) -> str:
    """A name that is not read as a formula, and not hidden from the legend as names with ``_`` are."""
    shown = text if len(text) <= 34 else f"{text[:20]}…{text[-13:]}"
    return shown.replace("$", r"\$").lstrip("_")
