"""The result of a benchmark, which run.py gathers as plain values: as JSON, as Markdown and as a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workload import TWENTY

Json = Mapping[str, Any]

# Okabe and Ito's colours, which people with any colour vision can tell apart: https://jfly.uni-koeln.de/color/
COLORS = {
    "ggrank llama.cpp": "#D55E00",
    "ggrank openvino": "#E69F00",
    "llama-server": "#0072B2",
    "sentence-transformers": "#009E73",
    "onnxruntime": "#CC79A7",
}

RATIOS = "How many times as fast ggrank is: the median of the rounds' ratios, and its quartiles."
FIGURES = (
    "Tokens a second, the median of the rounds and half of their quartile range; milliseconds for 20 "
    "passages; seconds from starting a process to its first scores; the most memory in MB; agreement "
    "(correlation of logits, cosine of vectors) is with the scores of {}."
)
QUICK = "This was a quick run: it shows that the benchmark works, and says nothing about speed."


def save(result: Json, folder: Path) -> None:
    """Writes result.json, result.md and, where matplotlib is installed, result.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (folder / "result.md").write_text(markdown(result), "utf-8")
    draw(result, folder / "result.png")


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """The lower quartile, the median and the upper quartile.

    Example:
        >>> spread([4.0, 1.0, 2.0, 3.0, 5.0])
        (2.0, 3.0, 4.0)
    """
    low, median, high = np.percentile(values, (25, 50, 75)).tolist()
    return low, median, high


def times_as_fast(own: Sequence[float], peer: Sequence[float]) -> tuple[float, float, float]:
    """The spread of the rounds' ratios: a machine that slows down for some rounds changes no ratio.

    Example:
        >>> times_as_fast([1.0, 2.0, 1.0], [3.0, 6.0, 3.0])
        (3.0, 3.0, 3.0)
    """
    return spread([theirs / ours for ours, theirs in zip(own, peer, strict=False)])


def opponent(model: Json, name: str) -> str:
    """The ggrank that a peer is compared with: the fastest, on the same file for llama-server."""
    peers, own = model["peers"], [one for one in model["peers"] if one.startswith("ggrank")]
    if peers[name]["kind"] == "llama-server":
        own = [one for one in own if peers[one]["variant"] == peers[name]["variant"]]

    def mean_seconds(one: str) -> float:
        """The geometric mean over the cells, so that each counts the same."""
        medians = [spread(values)[1] for values in peers[one]["seconds"].values()]
        return math.exp(sum(map(math.log, medians)) / len(medians)) if medians else math.inf

    return min(own, key=mean_seconds, default="")


# -- Markdown


def markdown(result: Json) -> str:
    """For each model the ratios, then the figures; then what they were made with."""
    parts = [QUICK] if result["made_with"]["quick"] else []
    for model in result["models"]:
        parts.append(f"## {model['name']}")
        ratios, figures = ratio_rows(model), figure_rows(model)
        parts += [RATIOS, table(ratios)] if len(ratios) > 1 else []
        parts += [FIGURES.format(model["reference"]), table(figures)] if len(figures) > 1 else []
        parts += ["\n".join(f"- left out: {name}: {why}" for name, why in model["left_out"].items())]
    facts = "\n".join(f"- {key}: {value}" for key, value in result["made_with"].items())
    return "\n\n".join(part for part in [*parts, "## made with", facts] if part) + "\n"


def ratio_rows(model: Json) -> list[list[str]]:
    rows = [["against", "with", *model["cells"]]]
    for name, peer in model["peers"].items():
        own = opponent(model, name)
        if peer["kind"].startswith("ggrank") or not own or not peer["seconds"]:
            continue
        ours, ratios = model["peers"][own]["seconds"], []
        for cell in model["cells"]:
            low, median, high = times_as_fast(
                ours.get(cell, [math.nan]), peer["seconds"].get(cell, [math.nan])
            )
            ratios.append("" if math.isnan(median) else f"**{median:.2f}** [{low:.2f}, {high:.2f}]")
        rows.append([name, own, *ratios])
    return rows


def figure_rows(model: Json) -> list[list[str]]:
    names = [f"{name}, ms" if name.startswith(TWENTY) else name for name in model["cells"]]
    rows = [["", *names, "start, s", "MB", "agreement"]]
    for name, peer in model["peers"].items():
        if not peer["seconds"]:
            continue
        cells = []
        for cell, n_tokens in model["cells"].items():
            taken = peer["seconds"].get(cell, [])
            is_twenty = cell.startswith(TWENTY)
            cells.append(with_percent([1000 * one if is_twenty else n_tokens / one for one in taken]))
        start, agreement = peer.get("start"), peer.get("agreement")
        rest = [f"{start:.2f}" if start else "", f"{peer.get('bytes', 0) / 1e6:,.0f}"]
        rows.append([name, *cells, *rest, "" if agreement is None else f"{agreement:.5f}"])
    return rows


def with_percent(values: Sequence[float]) -> str:
    """A median, and half the quartile range in per cent of it.

    Example:
        >>> with_percent([1200.0, 1234.0, 1250.0])
        '1,234 ±1 %'
    """
    if not values:
        return ""
    low, median, high = spread(values)
    return f"{median:,.0f} ±{100 * (high - low) / 2 / median:.0f} %"


def table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# -- the plot


def draw(result: Json, path: Path) -> None:
    """For each model bars of the milliseconds for 20 passages, with the quartiles as whiskers."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    models = [one for one in result["models"] if any(peer["seconds"] for peer in one["peers"].values())]
    if not models:
        return
    heights = [1.2 + 0.25 * len(one["peers"]) for one in models]
    figure = Figure(figsize=(8, sum(heights)), layout="constrained")
    for axes, model in zip(
        figure.subplots(len(models), squeeze=False, height_ratios=heights)[:, 0], models, strict=True
    ):
        cell = next((name for name in model["cells"] if name.startswith(TWENTY)), "")
        taken = {name: peer for name, peer in model["peers"].items() if cell in peer["seconds"]}
        spreads = np.array([spread(peer["seconds"][cell]) for peer in taken.values()]).reshape(-1, 3) * 1000
        low, median, high = spreads.T
        colors = [COLORS[peer["kind"]] for peer in taken.values()]
        drawn = axes.barh(list(taken), median, xerr=[median - low, high - median], color=colors, height=0.7)
        axes.bar_label(drawn, [f"{one:,.0f}" for one in median], padding=4, fontsize=8)
        axes.set_title(f"{model['name']}: {cell}, milliseconds", fontsize=10)
        axes.margins(x=0.2)
        axes.invert_yaxis()
    figure.savefig(path, dpi=160)
