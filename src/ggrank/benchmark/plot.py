"""The pictures of a benchmark: speed in every cell, first rankings and memory; and how time grows.

Knows matplotlib; not how the numbers came about, nor files.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ggrank.benchmark.cells import FIRST_RANKING
from ggrank.benchmark.growth import Axis, Point
from ggrank.benchmark.ratios import spread
from ggrank.benchmark.report import ModelReport, Report
from ggrank.benchmark.subjects import Subject
from ggrank.benchmark.tables import MEGABYTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, as in `ggrank.evaluation.plot`: https://jfly.uni-koeln.de/color/
_COLORS = {
    "ggrank": "#D55E00",
    "llama-server": "#0072B2",
    "sentence-transformers": "#009E73",
    "onnxruntime": "#CC79A7",
    "fastembed-style": "#E69F00",
}
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_SMALL = 8.5


@dataclass(frozen=True)
class _Look:
    """Of a subject: its kind's colour (ggrank's second engine has its own), and a marker within the kind."""

    color: str
    marker: str
    is_filled: bool

    @property
    def fill(self) -> str:
        return self.color if self.is_filled else "white"


def draw(report: Report, form: str) -> bytes:
    """The picture as "png", "svg" or "pdf"."""
    picture = io.BytesIO()
    figure(report).savefig(picture, format=form, dpi=160)
    return picture.getvalue()


def figure(report: Report) -> Figure:
    """The picture as matplotlib's Figure: a row for each model."""
    from matplotlib.figure import Figure

    shown = [model for model in report.models if model.points or model.subjects]
    heights = [_height(model) for model in shown]
    drawing = Figure(figsize=(11.0, 0.6 + sum(heights)), layout="constrained")
    if not shown:
        return drawing
    rows = drawing.subfigures(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
    for place, model in zip(rows, shown, strict=True):
        place.suptitle(_plain(model.name), fontsize=11)
        axes = place.subplots(1, 3, width_ratios=(1, 1, 1) if model.points else (1.5, 1, 0.8))
        _draw_growth(axes, model) if model.points else _draw_cells(axes, model)
        handles, labels = axes[0].get_legend_handles_labels()
        place.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=_SMALL, frameon=False)
    return drawing


def _height(model: ModelReport) -> float:
    if model.points:
        return 4.0
    return max(3.6, 1.6 + 0.13 * len(model.subjects) * len(model.cells))


def _looks(subjects: Sequence[Subject]) -> dict[str, _Look]:
    seen: Counter[str] = Counter()
    looks = {}
    for subject in subjects:
        number = seen[subject.kind]
        seen[subject.kind] += 1
        marker = _MARKERS[number % len(_MARKERS)]
        color = "black" if subject.engine == "openvino" else _COLORS[subject.kind]
        looks[subject.name] = _Look(color, marker, number % 2 == 0)
    return looks


# -- cells


def _draw_cells(axes: Sequence[Axes], model: ModelReport) -> None:
    looks = _looks(model.subjects)
    _draw_speed(axes[0], model, looks)
    first = {one.name: model.seconds(one.name, FIRST_RANKING) for one in model.subjects}
    _draw_bars(
        axes[1],
        {name: spread(found).median for name, found in first.items() if found},
        looks,
        lambda value: f"{value:.2f}",
        "time to first ranking, seconds",
    )
    memory = {one.name: model.peak_bytes(one.name, FIRST_RANKING) for one in model.subjects}
    _draw_bars(
        axes[2],
        {name: found / MEGABYTE for name, found in memory.items() if found},
        looks,
        lambda value: f"{value:,.0f}",
        "peak memory then, MB",
    )
    axes[2].set_yticklabels([])


def _draw_speed(axes: Axes, model: ModelReport, looks: dict[str, _Look]) -> None:
    for place, (name, look) in enumerate(looks.items()):
        rows = [(row, model.tokens_per_second(name, cell)) for row, cell in enumerate(model.cells)]
        known = [(row, found) for row, found in rows if found]
        axes.errorbar(
            [found.median for _, found in known],
            [row - 0.4 + 0.8 * (place + 0.5) / len(looks) for row, _ in known],
            xerr=[
                [found.median - found.low for _, found in known],
                [found.high - found.median for _, found in known],
            ],
            fmt=look.marker,
            color=look.color,
            markerfacecolor=look.fill,
            markersize=5,
            capsize=2,
            label=_plain(name),
        )
    for row in range(1, len(model.cells)):
        axes.axhline(row - 0.5, color="0.85", linewidth=0.8)
    axes.set_xscale("log")
    _plain_ticks(axes)
    axes.set_yticks(range(len(model.cells)), [cell.name for cell in model.cells])
    axes.set_ylim(len(model.cells) - 0.5, -0.5)
    axes.set_title("tokens a second, log scale", fontsize=10)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(axis="x", alpha=0.3, which="both")


def _draw_bars(
    axes: Axes,
    values: dict[str, float],
    looks: dict[str, _Look],
    text: Callable[[float], str],
    title: str,
) -> None:
    names = list(values)
    bars = axes.barh(
        range(len(names)),
        list(values.values()),
        color=[looks[name].fill for name in names],
        edgecolor=[looks[name].color for name in names],
        height=0.7,
    )
    axes.bar_label(bars, [text(value) for value in values.values()], padding=3, fontsize=_SMALL)
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.set_title(title, fontsize=10)
    axes.tick_params(labelsize=_SMALL)


# -- growth


def _draw_growth(axes: Sequence[Axes], model: ModelReport) -> None:
    names = {point.subject for point in model.points}
    looks = _looks([one for one in model.begun.subjects if one.name in names])
    _draw_series(axes[0], model, looks, "passages", lambda point: point.seconds)
    axes[0].set_title("seconds by number of passages", fontsize=10)
    _draw_series(axes[1], model, looks, "length", lambda point: 1000 * point.seconds / point.n_passages)
    axes[1].set_title("milliseconds a passage by its tokens", fontsize=10)
    _draw_series(axes[2], model, looks, "threads", lambda point: point.n_tokens / point.seconds)
    axes[2].set_title("tokens a second by threads", fontsize=10)


def _draw_series(
    axes: Axes, model: ModelReport, looks: dict[str, _Look], axis: Axis, value: Callable[[Point], float]
) -> None:
    """A line for each subject, and a dotted one of proportional growth from the first one's middle point."""
    for number, (name, look) in enumerate(looks.items()):
        points = [point for point in model.points if (point.axis, point.subject) == (axis, name)]
        if not points:
            continue
        xs, ys = [point.x for point in points], [value(point) for point in points]
        shape: dict[str, Any] = {"marker": look.marker, "markerfacecolor": look.fill, "markersize": 5}
        axes.plot(xs, ys, color=look.color, label=_plain(name), **shape)
        if number == 0:
            middle = 0 if axis == "threads" else len(xs) // 2
            line = [ys[middle] * x / xs[middle] for x in xs]
            axes.plot(xs, line, color="0.5", linestyle=":", label="proportional", zorder=0)
    axes.set_xscale("log", base=10 if axis == "passages" else 2)
    axes.set_yscale("log")
    ticks = sorted({point.x for point in model.points if point.axis == axis})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30 if axis == "passages" else 0)
    axes.minorticks_off()
    _plain_ticks(axes, "y")
    axes.set_xlabel({"passages": "passages", "length": "tokens", "threads": "threads"}[axis], fontsize=_SMALL)
    axes.tick_params(labelsize=_SMALL)
    axes.grid(alpha=0.3)


def _plain_ticks(axes: Axes, which: str = "x") -> None:
    """1,000 and 2,000 instead of powers."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ruler = axes.xaxis if which == "x" else axes.yaxis
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    ruler.set_major_locator(LogLocator(subs=(1.0,) if high / low > 300 else (1.0, 2.0, 5.0)))
    ruler.set_major_formatter(StrMethodFormatter("{x:,g}"))
    ruler.set_minor_formatter(NullFormatter())


def _plain(text: str) -> str:
    """A name that is not read as a formula."""
    return text.replace("$", r"\$").lstrip("_")
