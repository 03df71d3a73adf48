"""The picture of an evaluation: quality against latency, and the lift on every set."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ggrank.evaluation.report import Report

FORMATS = (".png", ".svg", ".pdf")

# Okabe and Ito's colours, which people with any colour vision can tell apart: https://jfly.uni-koeln.de/color/
_COLORS = ("black", "#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.5")
_MARKERS = "Ds^poXP"


def draw(report: Report, suffix: str) -> bytes:
    """The picture in one of `FORMATS`."""
    picture = io.BytesIO()
    figure(report).savefig(picture, format=suffix.lower().removeprefix("."), dpi=160)
    return picture.getvalue()


def figure(report: Report) -> Figure:
    """The picture as matplotlib's Figure; a reranker has one colour and one marker for all its depths."""
    from matplotlib.figure import Figure

    names = dict.fromkeys(one.family for one in report.systems)
    drawing = Figure(figsize=(10, 3.4 + 0.2 * len(names) * len(report.sets)), layout="constrained")
    left, right = drawing.subplots(1, 2)
    for number, name in enumerate(names):
        systems = [one for one in report.systems if one.family == name]
        look: Any = {"color": _COLORS[number % 8], "marker": _MARKERS[number % 7], "markersize": 7}
        depths = ", ".join(str(one.depth) for one in systems if one.depth)
        label = _plain(f"{name} @ {depths}" if depths else name)
        points = [(report.mean_ms(one.system), report.mean(one.system)) for one in systems]
        if points[0][0]:
            left.plot(*zip(*points, strict=True), **look, label=label)
        else:  # a ranking that was given: its time is unknown
            left.axhline(points[0][1], color=look["color"], linestyle="--", label=label)
        lifts = [(row, one.system(systems[-1].system).lift) for row, one in enumerate(report.sets)]
        for row, lift in ((row, lift) for row, lift in lifts if lift):
            y = row + 0.8 * ((number + 0.5) / len(names) - 0.5)
            whiskers = [[lift.mean - lift.low], [lift.high - lift.mean]]
            right.errorbar(lift.mean, y, xerr=whiskers, **look, capsize=3)
    left.set(xscale="log", xlabel="milliseconds a query", ylabel="nDCG@10", title="Quality against latency")
    left.xaxis.set_major_formatter("{x:,g}")
    right.set(xlabel="lift of nDCG@10, 95 % interval, at the largest depth", title="Lift over the embedder")
    right.set_yticks(range(len(report.sets)), [_plain(one.name) for one in report.sets])
    right.set_ylim(len(report.sets) - 0.5, -0.5)
    right.axvline(0, color="0.3", linewidth=1)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    drawing.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return drawing


def _plain(text: str) -> str:
    """A name that is not read as a formula, and not hidden from the legend as names with ``_`` are."""
    shown = text if len(text) <= 40 else f"{text[:24]}…{text[-15:]}"
    return shown.replace("$", r"\$").lstrip("_")
