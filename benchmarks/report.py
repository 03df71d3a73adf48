"""The result of a benchmark, which run.py gathers as plain values: as JSON, as Markdown and as a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from workload import FIRST_RANKING, TWENTY

Json = Mapping[str, Any]

# Okabe and Ito's colours, which people with any colour vision can tell apart: https://jfly.uni-koeln.de/color/
COLORS = {
    "ggrank llama.cpp": "#D55E00",
    "ggrank openvino": "#E69F00",
    "llama-server": "#0072B2",
    "sentence-transformers": "#009E73",
    "onnxruntime": "#CC79A7",
    "fastembed": "#56B4E9",
}

RATIOS = "How many times as fast ggrank is: the median of the rounds' ratios, and its quartiles."
FIGURES = (
    "Tokens a second, the median of the rounds and half of their quartile range; milliseconds for "
    "20 passages; the most memory in MB, at the first ranking and in all; agreement is with the scores of {}."
)
QUICK = "This was a quick run: it shows that the benchmark works, and says nothing about speed."


def save(result: Json, folder: Path) -> None:
    """Writes result.json, result.md and, where matplotlib is installed, result.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    (folder / "result.md").write_text(markdown(result), "utf-8")
    draw(result, folder / "result.png")


# -- figures


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
    peer = model["peers"][name]
    own = [
        one
        for one, facts in model["peers"].items()
        if facts["kind"].startswith("ggrank")
        and facts["seconds"]
        and (peer["kind"] != "llama-server" or facts["variant"] == peer["variant"])
    ]
    return min(own, key=lambda one: mean_seconds(model["peers"][one]), default="")


def mean_seconds(peer: Json) -> float:
    """The geometric mean over the cells, so that each counts the same."""
    medians = [spread(values)[1] for name, values in peer["seconds"].items() if name != FIRST_RANKING]
    return math.exp(sum(map(math.log, medians)) / len(medians)) if medians else math.inf


# -- Markdown


def markdown(result: Json) -> str:
    """For each model the ratios, then the figures; then what they were made with."""
    parts = [QUICK] if result["made_with"]["quick"] else []
    for model in result["models"]:
        parts.append(f"## {model['name']}")
        if any(peer["seconds"] for peer in model["peers"].values()):
            ratios = ratio_rows(model)
            if len(ratios) > 1:
                parts += [RATIOS, table(ratios)]
            parts += [FIGURES.format(model["reference"]), table(figure_rows(model))]
        parts += ["\n".join(f"- left out: {name}: {why}" for name, why in model["left_out"].items())]
    facts = "\n".join(f"- {key}: {fact_text(value)}" for key, value in result["made_with"].items())
    return "\n\n".join(part for part in [*parts, "## made with", facts] if part) + "\n"


def ratio_rows(model: Json) -> list[list[str]]:
    cells = [*model["cells"], FIRST_RANKING]
    rows = [["against", "with", *cells, "memory"]]
    for name, peer in model["peers"].items():
        own = opponent(model, name)
        if peer["kind"].startswith("ggrank") or not own or not peer["seconds"]:
            continue
        ours = model["peers"][own]
        ratios = [ratio_text(ours["seconds"].get(cell), peer["seconds"].get(cell)) for cell in cells]
        memory = [one["bytes"].get(FIRST_RANKING) for one in (ours, peer)]
        ratios.append(f"**{memory[1] / memory[0]:.2f}**" if all(memory) else "")
        rows.append([name, own, *ratios])
    return rows


def ratio_text(own: Sequence[float] | None, peer: Sequence[float] | None) -> str:
    if not own or not peer:
        return ""
    low, median, high = times_as_fast(own, peer)
    return f"**{median:.2f}** [{low:.2f}, {high:.2f}]"


def figure_rows(model: Json) -> list[list[str]]:
    names = [f"{name}, ms" if name.startswith(TWENTY) else name for name in model["cells"]]
    rows = [["", *names, f"{FIRST_RANKING}, s", "MB then", "MB in all", "agreement"]]
    for name, peer in model["peers"].items():
        speeds = tokens_per_second(model, peer)
        if not peer["seconds"]:
            continue
        cells = [
            with_percent([1000 * one for one in peer["seconds"].get(cell, [])])
            if cell.startswith(TWENTY)
            else with_percent(speeds.get(cell, []))
            for cell in model["cells"]
        ]
        rows.append(
            [
                name,
                *cells,
                with_percent(peer["seconds"].get(FIRST_RANKING, []), digits=2),
                *(f"{peer['bytes'].get(key, 0) / 1e6:,.0f}" for key in (FIRST_RANKING, "all cells")),
                agreement_text(peer.get("agreement")),
            ]
        )
    return rows


def tokens_per_second(model: Json, peer: Json) -> dict[str, list[float]]:
    cells = model["cells"].items()
    return {
        name: [facts["n_tokens"] / one for one in peer["seconds"][name]]
        for name, facts in cells
        if name in peer["seconds"]
    }


def with_percent(values: Sequence[float], *, digits: int = 0) -> str:
    """A median, and half the quartile range in per cent of it.

    Example:
        >>> with_percent([1200.0, 1234.0, 1250.0])
        '1,234 ±1 %'
    """
    if not values:
        return ""
    low, median, high = spread(values)
    return f"{median:,.{digits}f} ±{100 * (high - low) / 2 / median:.0f} %"


def agreement_text(found: Json | None) -> str:
    return f"{found['measure']} {found['value']:.5f}, ±{found['largest_difference']:.2g}" if found else ""


def table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fact_text(value: Any) -> str:
    return ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)


# -- the plot


def draw(result: Json, path: Path) -> None:
    """For each model a row of bars: 20 passages, the first ranking, and memory; the quartiles as whiskers."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    models = [one for one in result["models"] if any(peer["seconds"] for peer in one["peers"].values())]
    if not models:
        return
    heights = [1.2 + 0.25 * len(one["peers"]) for one in models]
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    axes = figure.subplots(len(models), 3, sharey="row", squeeze=False, height_ratios=heights)
    for row, model in zip(axes, models, strict=True):
        peers = {name: peer for name, peer in model["peers"].items() if peer["seconds"]}
        twenty = next((name for name in model["cells"] if name.startswith(TWENTY)), "")
        milliseconds = {n: [1000 * one for one in p["seconds"].get(twenty, [])] for n, p in peers.items()}
        bars(row[0], peers, milliseconds, f"{model['name']}\n{twenty}, milliseconds")
        first = {name: peer["seconds"].get(FIRST_RANKING, []) for name, peer in peers.items()}
        bars(row[1], peers, first, "first ranking, seconds")
        memory = {n: [p["bytes"][FIRST_RANKING] / 1e6] if p["bytes"] else [] for n, p in peers.items()}
        bars(row[2], peers, memory, "memory then, MB")
    figure.savefig(path, dpi=160)


def bars(axes: Any, peers: Json, values: Mapping[str, Sequence[float]], title: str) -> None:
    spreads = [spread(values[name]) if values[name] else (0.0, 0.0, 0.0) for name in peers]
    medians = [median for _, median, _ in spreads]
    whiskers = [[median - low for low, median, _ in spreads], [high - median for _, median, high in spreads]]
    colors = [COLORS[peer["kind"]] for peer in peers.values()]
    drawn = axes.barh(list(peers), medians, xerr=whiskers, color=colors, height=0.7)
    axes.bar_label(
        drawn, [f"{one:,.2f}" if one < 10 else f"{one:,.0f}" for one in medians], padding=4, fontsize=8
    )
    axes.set_title(title, fontsize=10)
    axes.margins(x=0.2)
    axes.tick_params(labelsize=8.5)
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
