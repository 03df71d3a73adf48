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
from ggrank.evaluation.results import MAIN_METRIC, METRICS, Change, Interval, Latency, SetResult, SystemResult
from ggrank.evaluation.systems import EMBEDDER
from ggrank.rows.writing import written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")

# Okabe and Ito's colours, which people with any colour vision can tell apart: https://jfly.uni-koeln.de/color/
_COLORS = ("black", "#E69F00", "#56B4E9", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.5")
_MARKERS = "Ds^poXP"


@dataclass(frozen=True)
class Section:
    """A table with its title and facts about it, as a terminal and Markdown show it.

    Attributes:
        rows: the header first; the columns in the order of their weight.
        has_numbers: whether all columns but the first are numbers; else they are texts.
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
        return max(self.sets, key=lambda one: one.n_documents).systems

    def mean(self, system: str, metric: str = MAIN_METRIC) -> float:
        """A metric's mean over the sets, each set counting the same."""
        return float(np.mean([one.system(system).metrics[metric] for one in self.sets]))

    def mean_lift(self, system: str) -> float:
        """The mean over the sets of the lift of nDCG@10 over the embedder."""
        return self.mean(system) - self.mean(EMBEDDER)

    def mean_ms(self, system: str) -> float:
        """The mean over the sets of the median milliseconds a query, both stages together."""
        return float(np.mean([one.system(system).total_ms.median for one in self.sets]))

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        means = {
            one.system: {
                **{metric: self.mean(one.system, metric) for metric in METRICS},
                "lift": self.mean_lift(one.system),
                "ms": self.mean_ms(one.system),
            }
            for one in self.systems
        }
        return {"made_with": dict(self.made_with), "sets": [asdict(one) for one in self.sets], "mean": means}

    def to_markdown(self, *, explain: bool = False) -> str:
        """nDCG@10 and its lift on all sets, then the sections of each set (see `set_sections`)."""
        sections = list(self.overview())
        for one in self.sets:
            sections += set_sections(one, explain=explain)
        texts = [f"{key}: {value}" for key, value in self.made_with.items() if isinstance(value, str)]
        facts = [f"- {_cell(fact)}" for fact in [*model_facts(self.made_with), *texts]]
        parts = [*(one.to_markdown() for one in sections), "### made with", "\n".join(facts)]
        return "\n\n".join(parts) + "\n"

    def overview(self) -> Iterator[Section]:
        """nDCG@10 of every system, the best in bold, and its lift: the mean of several sets, and on each."""
        several = len(self.sets) > 1
        names = [*["mean"] * several, *(one.name for one in self.sets)]
        quality, lifts = [[MAIN_METRIC, *names, "ms a query"]], [["lift [95 % interval]", *names]]
        shown = {one.system: self._shown(one.system) for one in self.systems}
        best = [max(column) for column in zip(*shown.values(), strict=True)]
        for name, values in shown.items():
            marked = (f"**{a}**" if a == most else a for a, most in zip(values, best, strict=True))
            quality.append([name, *marked, ms_text(self.mean_ms(name))])
            mean = [f"{self.mean_lift(name):+.3f}"] * several
            lifts.append([name, *mean, *(lift_text(one.system(name).lift) for one in self.sets)])
        yield Section("quality", (), quality)
        yield Section("lift over the embedder", (), [lifts[0], *lifts[2:]])

    def _shown(self, system: str) -> list[str]:
        values = [one.system(system).metrics[MAIN_METRIC] for one in self.sets]
        return [f"{value:.3f}" for value in [*[self.mean(system)] * (len(values) > 1), *values]]


def set_sections(one: SetResult, *, explain: bool) -> Iterator[Section]:
    """All figures of a set; with ``explain`` also the queries that its last system changed most."""
    rows = [["system", MAIN_METRIC, "lift [95 % interval]", "better / worse", "ms", *METRICS[1:],
             "retrieve ms", "rerank ms"]]  # fmt: skip
    for system in one.systems:
        changes = system.changes
        main, *others = (f"{system.metrics[name]:.3f}" for name in METRICS)
        changed = f"{changes.n_better:,} / {changes.n_worse:,}" if changes else ""
        times = [_latency_text(system.retrieve_ms), _latency_text(system.rerank_ms)]
        total = ms_text(system.total_ms.median)
        rows.append([system.system, main, lift_text(system.lift), changed, total, *others, *times])
    yield Section(one.name, set_facts(one), rows)
    last = one.systems[-1]
    if explain and last.changes:
        yield from _changed(f"{one.name}: most helped by {last.system}", last.changes.most_better)
        yield from _changed(f"{one.name}: most harmed by {last.system}", last.changes.most_worse)


def _changed(title: str, changes: Sequence[Change]) -> Iterator[Section]:
    rows = [["", "text"]]
    for one in changes:
        ranks = [str(rank or "-") for rank in (one.rank_before, one.rank_after)]
        rows.append([f"query, {one.before:.2f} to {one.after:.2f}", one.query])
        rows.append([f"relevant, rank {' to '.join(ranks)}", one.relevant])
        rows += [["above it", one.above]] if one.above else []
    if changes:
        yield Section(title, (), rows, has_numbers=False)


def lift_text(lift: Interval | None) -> str:
    """A lift and its interval.

    Example:
        >>> lift_text(Interval(0.0312, 0.0101, 0.0523))
        '+0.031 [+0.010, +0.052]'
    """
    return "" if lift is None else f"{lift.mean:+.3f} [{lift.low:+.3f}, {lift.high:+.3f}]"


def ms_text(milliseconds: float) -> str:
    """Milliseconds, a decimal where it means something; nothing for what took no time here.

    Example:
        >>> ms_text(3.14159), ms_text(1234.5), ms_text(0)
        ('3.1', '1,234', '')
    """
    if not milliseconds:
        return ""
    return f"{milliseconds:,.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def _latency_text(latency: Latency) -> str:
    return f"{ms_text(latency.median)}, p95 {ms_text(latency.p95)}" if latency.median else ""


def set_facts(one: SetResult) -> list[str]:
    """A set's size, and what was left out."""
    n_in_all = one.n_queries_in_all if one.n_queries < one.n_queries_in_all else 0
    counts = {
        "documents": one.n_documents,
        "queries": one.n_queries,
        f"sampled with seed {SEED} from": n_in_all,
        "left out without a relevant document": one.n_skipped,
        "judgements of unknown ids left out": one.n_unknown,
        "queries whose own document is left out": one.n_own,
    }
    facts = [f"{label}: {n:,}" for label, n in counts.items() if n]
    is_whole = any(system.depth == one.n_documents for system in one.systems)
    return facts + [f"@{one.n_documents} is all documents and stands for larger depths"] * is_whole


def model_facts(made_with: Mapping[str, Any]) -> list[str]:
    """Each model's file and quantization.

    Example:
        >>> model_facts({"embedder": {"file": "a.gguf", "quantization": "q8_0"}})
        ['embedder: a.gguf, q8_0']
    """
    models = {"embedder": made_with.get("embedder")}
    models |= {f"reranker {name}": facts for name, facts in made_with.get("rerankers", {}).items()}
    return [f"{role}: {facts['file']}, {facts['quantization']}" for role, facts in models.items() if facts]


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


# -- the picture: quality against latency, and the lift on every set


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


# -- files


@dataclass(frozen=True)
class Outputs:
    """Where to save a report; None leaves a form out. The plot's suffix says which format."""

    json: Path | None = None
    markdown: Path | None = None
    plot: Path | None = None

    def check(self) -> None:
        """Before minutes of work: can these files be written?

        Raises:
            InputError: a folder is missing, a path is no file, two are the same, or there is no matplotlib.
        """
        paths = [path for path in (self.json, self.markdown, self.plot) if path]
        if len({path.resolve() for path in paths}) < len(paths):
            raise InputError(f"Several outputs have the same file name: {', '.join(map(str, paths))}")
        for path in paths:
            if not path.resolve().parent.is_dir():
                raise InputError(f"{path}: the folder {path.resolve().parent} does not exist; make it first")
            if path.exists() and not path.is_file():
                raise InputError(f"{path} is not a file; name one to write")
        if self.plot and self.plot.suffix.lower() not in FORMATS:
            raise InputError(f"{self.plot}: a plot's name ends in {', '.join(FORMATS)}")
        if self.plot and find_spec("matplotlib") is None:
            raise InputError("A plot needs matplotlib: pip install 'ggrank[eval]'")

    def save(self, report: Report, *, explain: bool = False) -> None:
        """Writes each file whole or not at all; those that are there are replaced.

        Raises:
            InputError: one cannot be written.
        """
        text = json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n"
        _write(self.json, text.encode("utf-8", "replace"))
        _write(self.markdown, report.to_markdown(explain=explain).encode("utf-8", "replace"))
        if self.plot:
            _write(self.plot, draw(report, self.plot.suffix))


def _write(path: Path | None, content: bytes) -> None:
    if path:
        with written(path) as unfinished:
            unfinished.write_bytes(content)
