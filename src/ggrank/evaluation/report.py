"""An evaluation as a whole: results on all sets and what they were made with, as tables, a picture, files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ggrank.errors import InputError
from ggrank.evaluation.datasets import SEED
from ggrank.evaluation.results import MAIN_METRIC, METRICS, Change, SetResult, SystemResult
from ggrank.evaluation.systems import EMBEDDER
from ggrank.rows.writing import written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURES = (".png", ".svg", ".pdf")

# Okabe and Ito's colours, which people with any colour vision can tell apart: https://jfly.uni-koeln.de/color/
_COLORS = ("black", "#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.5")
_MARKERS = "Ds^poXP"


@dataclass(frozen=True)
class ReportSection:
    """A table with its title and facts about it, as a terminal and Markdown show it.

    The header comes first; all columns but the first are numbers, or else texts.
    """

    title: str
    facts: Sequence[str]
    rows: Sequence[Sequence[str]]
    has_numbers: bool = True

    def to_markdown(self) -> str:
        """The title, the facts and the table."""
        head, *body = self.rows
        lines = [head, ["---", *["---:" if self.has_numbers else "---"] * (len(head) - 1)], *body]
        table = "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)
        return "\n\n".join(filter(None, [f"### {self.title}", ", ".join(self.facts), table]))


@dataclass(frozen=True)
class Report:
    """Results, one set at least, and what they were made with (models, settings, versions, machine)."""

    sets: tuple[SetResult, ...]
    made_with: Mapping[str, Any]

    @property
    def systems(self) -> tuple[SystemResult, ...]:
        """In the order of the tables, with the figures of the largest set: it has all depths."""
        return max(self.sets, key=lambda one: one.counts["documents"]).systems

    def mean(self, system: str, metric: str = MAIN_METRIC) -> float:
        """A metric's mean over the sets, each set counting the same."""
        return float(np.mean([one.system(system).metrics[metric] for one in self.sets]))

    def mean_ms(self, system: str) -> float:
        """The mean over the sets of the median milliseconds a query, both stages together."""
        return float(np.mean([one.system(system).ms for one in self.sets]))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        means = {
            one.system: {
                **{metric: self.mean(one.system, metric) for metric in METRICS},
                "lift": self.mean(one.system) - self.mean(EMBEDDER),
                "ms": self.mean_ms(one.system),
            }
            for one in self.systems
        }
        return {"made_with": dict(self.made_with), "sets": [asdict(one) for one in self.sets], "mean": means}

    def to_markdown(self, *, explain: bool = False) -> str:
        """The means over several sets, then the sections of each set (see `set_sections`)."""
        sections = [self.overview()] if len(self.sets) > 1 else []
        for one in self.sets:
            sections += set_sections(one, explain=explain)
        texts = [f"{key}: {value}" for key, value in self.made_with.items() if isinstance(value, str)]
        facts = [f"- {_cell(fact)}" for fact in [*model_facts(self.made_with), *texts]]
        parts = [*(one.to_markdown() for one in sections), "### made with", "\n".join(facts)]
        return "\n\n".join(parts) + "\n"

    def overview(self) -> ReportSection:
        """nDCG@10 of every system: the mean of all sets, its lift, and on each set."""
        rows = [["system", "mean", "lift", *(one.name for one in self.sets), "ms"]]
        for name in (one.system for one in self.systems):
            each = [f"{one.system(name).metrics[MAIN_METRIC]:.3f}" for one in self.sets]
            lift = "" if name == EMBEDDER else f"{self.mean(name) - self.mean(EMBEDDER):+.3f}"
            rows.append([name, f"{self.mean(name):.3f}", lift, *each, ms_text(self.mean_ms(name))])
        return ReportSection(f"all sets: {MAIN_METRIC}", (), rows)


def set_sections(one: SetResult, *, explain: bool) -> Iterator[ReportSection]:
    """All figures of a set; with ``explain`` also the queries that its last system changed most."""
    head = ["system", MAIN_METRIC, "lift [95 % interval]", "better / worse", "ms", *METRICS[1:], "p95 ms"]
    rows = [head]
    for system in one.systems:
        main, *others = (f"{system.metrics[name]:.3f}" for name in METRICS)
        changed = f"{system.n_better:,} / {system.n_worse:,}" if system.lift else ""
        lift = "" if system.lift is None else "{:+.3f} [{:+.3f}, {:+.3f}]".format(*system.lift)
        rows.append([system.system, main, lift, changed, ms_text(system.ms), *others, ms_text(system.p95_ms)])
    yield ReportSection(one.name, set_facts(one), rows)
    last = one.systems[-1]
    if explain:
        yield from _changed(f"{one.name}: most helped by {last.system}", last.most_better)
        yield from _changed(f"{one.name}: most harmed by {last.system}", last.most_worse)


def _changed(title: str, changes: Sequence[Change]) -> Iterator[ReportSection]:
    rows = [["", "text"]]
    for one in changes:
        ranks = [str(rank or "-") for rank in (one.rank_before, one.rank_after)]
        rows.append([f"query, {one.before:.2f} to {one.after:.2f}", one.query])
        rows.append([f"relevant, rank {' to '.join(ranks)}", one.relevant])
        rows += [["above it", one.above]] if one.above else []
    if changes:
        yield ReportSection(title, (), rows, has_numbers=False)


def ms_text(milliseconds: float) -> str:
    """Milliseconds, a decimal where it means something; nothing for what took no time here."""
    if not milliseconds:
        return ""
    return f"{milliseconds:,.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def set_facts(one: SetResult) -> list[str]:
    """A set's size, and what was left out."""
    counts = dict(one.counts)
    if counts["queries"] == counts["queries_in_all"]:
        counts["queries_in_all"] = 0
    labels = {
        "documents": "documents",
        "queries": "queries",
        "queries_in_all": f"sampled with seed {SEED} from",
        "skipped": "left out without a relevant document",
        "unknown": "judgements of unknown ids left out",
        "own": "queries whose own document is left out",
    }
    facts = [f"{label}: {counts[name]:,}" for name, label in labels.items() if counts[name]]
    if any(system.depth == counts["documents"] for system in one.systems):
        facts.append(f"@{counts['documents']} is all documents and stands for larger depths")
    return facts


def model_facts(made_with: Mapping[str, Any]) -> list[str]:
    """Each model's file and quantization, such as "embedder: a.gguf, q8_0"."""
    models = {"embedder": made_with.get("embedder")}
    models |= {f"reranker {name}": facts for name, facts in made_with.get("rerankers", {}).items()}
    return [f"{role}: {facts['file']}, {facts['quantization']}" for role, facts in models.items() if facts]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


# -- the picture: quality against latency, and the lift on every set


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


# -- files


def check_outputs(paths: Sequence[Path]) -> None:
    """Raises InputError, before minutes of work, where a report cannot be saved to these files."""
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError(f"Several outputs have the same file name: {', '.join(map(str, paths))}")
    for path in paths:
        if not path.resolve().parent.is_dir():
            raise InputError(f"{path}: the folder {path.resolve().parent} does not exist; make it first")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file; name one to write")
        if path.suffix.lower() not in (".json", ".md", *PICTURES):
            raise InputError(f"{path}: the name must end in .json, .md, {', '.join(PICTURES)}")
        if path.suffix.lower() in PICTURES and find_spec("matplotlib") is None:
            raise InputError("A plot needs matplotlib: pip install 'ggrank[eval]'")


def save(report: Report, path: Path, *, explain: bool = False) -> None:
    """Writes one file, whole or not at all: all figures (.json), tables (.md) or a plot."""
    suffix, picture = path.suffix.lower(), io.BytesIO()
    if suffix == ".json":
        content = (
            json.dumps(report.to_json(), indent=1, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        )
    elif suffix == ".md":
        content = report.to_markdown(explain=explain).encode("utf-8", "replace")
    else:
        figure(report).savefig(picture, format=suffix[1:], dpi=160)
        content = picture.getvalue()
    with written(path) as unfinished:
        unfinished.write_bytes(content)
