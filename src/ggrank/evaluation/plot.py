"""The picture of an evaluation: quality against latency, and the lift on every set.

Knows matplotlib; not how the numbers came about.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ggrank.errors import InputError
from ggrank.evaluation.report import BASELINE, MAIN_METRIC, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")

# Okabe and Ito's colours, which people with any colour vision can tell apart.
# https://jfly.uni-koeln.de/color/
_COLORS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")


def check_plot(path: Path) -> None:
    """Raises InputError where matplotlib is missing, or the suffix is of none of `FORMATS`."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a plot's name ends in {', '.join(FORMATS)}")
    try:
        import matplotlib  # noqa: F401  # whether it is there
    except ImportError as error:
        raise InputError("A plot needs matplotlib: pip install 'ggrank[eval]'") from error


def save_plot(report: Report, path: Path) -> None:
    """Writes the picture, whole or not at all; the suffix says which format.

    Raises:
        InputError: as `check_plot`.
    """
    check_plot(path)
    figure = _figure(report)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".plot-", suffix=path.suffix)
    os.close(handle)
    try:
        figure.savefig(temporary, dpi=150)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _figure(report: Report) -> Any:
    from matplotlib.figure import Figure

    height = max(4.2, 1.6 + 0.17 * len(report.sets) * (len(_shown(report)) + 1))
    figure = Figure(figsize=(10, height), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.15))
    _quality_against_latency(left, report)
    _lift_per_set(right, report)
    return figure


def _families(report: Report) -> dict[str, list[str]]:
    """Systems by their reranker: first stages alone, a reranker with all its depths."""
    families: dict[str, list[str]] = {}
    for name in report.systems:
        families.setdefault(name.rpartition("@")[0] or name, []).append(name)
    return families


def _color(report: Report, name: str) -> str:
    family = name.rpartition("@")[0] or name
    return _COLORS[list(_families(report)).index(family) % len(_COLORS)]


def _quality_against_latency(axes: Axes, report: Report) -> None:
    for family, names in _families(report).items():
        ms = [sum(one.system(name).ms for one in report.sets) / len(report.sets) for name in names]
        quality = [report.mean(name) for name in names]
        axes.plot(ms, quality, marker="o", color=_color(report, family), linewidth=1.5, label=family)
        for name, x, y in zip(names, ms, quality, strict=True):
            label = name.rpartition("@")[2] if "@" in name else ""
            axes.annotate(label, (x, y), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=8)
    axes.set_xscale("log")
    axes.margins(0.12)
    axes.set_xlabel("milliseconds a query (median, log scale)")
    axes.set_ylabel(f"{MAIN_METRIC}, mean over sets")
    axes.set_title("Quality against latency; numbers: documents reranked", fontsize=10)
    axes.legend(fontsize=8, loc="best", frameon=False)
    axes.grid(alpha=0.3)


def _shown(report: Report) -> list[str]:
    """BM25 and fusion, and each reranker at 20 and 100, or at its only depths."""
    names = [name for name in report.systems if name != BASELINE]
    common = [name for name in names if name.rpartition("@")[2] in ("20", "100")]
    return [name for name in names if "@" not in name or name in (common or names)]


def _lift_per_set(axes: Axes, report: Report) -> None:
    names = _shown(report)
    step = 0.8 / max(1, len(names))
    for place, name in enumerate(names):
        lifts = [one.system(name).lift for one in report.sets]
        known = [(row, lift) for row, lift in enumerate(lifts) if lift is not None]
        y = [row - 0.4 + step * (place + 0.5) for row, _ in known]
        means = [lift.mean for _, lift in known]
        reach = [[lift.mean - lift.low for _, lift in known], [lift.high - lift.mean for _, lift in known]]
        deep = name.endswith("@100")
        axes.errorbar(
            means,
            y,
            xerr=reach,
            fmt="s" if deep else "o",
            markersize=4.5,
            capsize=2,
            linewidth=1.2,
            color=_color(report, name),
            mfc="white" if deep else None,
            label=name,
        )
    axes.axvline(0, color="0.4", linewidth=1)
    axes.set_yticks(range(len(report.sets)), [one.name for one in report.sets])
    axes.set_ylim(len(report.sets) - 0.5, -0.5)
    axes.set_xlabel(f"lift of {MAIN_METRIC} over the embedder, 95 % interval")
    axes.set_title("Lift on each set", fontsize=10)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    axes.grid(axis="x", alpha=0.3)
