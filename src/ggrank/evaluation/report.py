"""What an evaluation found, as values, and as JSON and Markdown.

Knows results; not how they came about, nor terminals and plots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.evaluation.datasets import TestSet
from ggrank.evaluation.metrics import METRICS, Interval, bootstrap, measure
from ggrank.evaluation.systems import Run

MAIN_METRIC = "nDCG@10"
BASELINE = "embedder"
SHOWN_CHANGES = 5


@dataclass(frozen=True)
class Change:
    """A query whose nDCG@10 a reranker changed.

    Attributes:
        before, after: nDCG@10 of the embedder, and of the reranker.
        query, relevant: the texts of the query and of its best relevant document.
        above: the text that the worse of both lists has first, "" where that is a relevant one.
    """

    query: str
    before: float
    after: float
    relevant: str
    above: str


@dataclass(frozen=True)
class SystemResult:
    """One system on one set.

    Attributes:
        system: its name.
        depth: documents that its reranker read; 0 for a first stage.
        metrics: the mean of each metric over the queries, 0 to 1.
        lift: of nDCG@10 over the embedder; None for the embedder.
        retrieve_ms, rerank_ms: medians over the queries.
        p95_ms: ninety-fifth percentile of both stages together.
        better, worse: how many queries got better and worse than the embedder's.
        most_better, most_worse: those that changed most.
    """

    system: str
    depth: int
    metrics: Mapping[str, float]
    lift: Interval | None
    retrieve_ms: float
    rerank_ms: float
    p95_ms: float
    better: int
    worse: int
    most_better: tuple[Change, ...]
    most_worse: tuple[Change, ...]

    @property
    def ms(self) -> float:
        """Median milliseconds of both stages."""
        return self.retrieve_ms + self.rerank_ms


@dataclass(frozen=True)
class SetResult:
    """All systems on one set; `n_skipped` queries had no relevant document."""

    name: str
    n_documents: int
    n_queries: int
    n_queries_in_all: int
    n_skipped: int
    systems: tuple[SystemResult, ...]

    def system(self, name: str) -> SystemResult:
        """The result of one system."""
        return next(one for one in self.systems if one.system == name)


@dataclass(frozen=True)
class Report:
    """An evaluation: results, and what they were made with (models, settings, versions, machine)."""

    sets: tuple[SetResult, ...]
    made_with: Mapping[str, Any]

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems' names, in the order of the tables."""
        return tuple(one.system for one in self.sets[0].systems)

    def mean(self, system: str, metric: str = MAIN_METRIC) -> float:
        """A metric's mean over the sets, each set counting the same."""
        return float(np.mean([one.system(system).metrics[metric] for one in self.sets]))

    def mean_lift(self, system: str) -> float:
        """The mean lift of nDCG@10 over the embedder."""
        return self.mean(system) - self.mean(BASELINE)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        means = {
            name: {**{metric: self.mean(name, metric) for metric in METRICS}, "lift": self.mean_lift(name)}
            for name in self.systems
        }
        return {"made_with": dict(self.made_with), "sets": [asdict(one) for one in self.sets], "mean": means}

    def to_markdown(self) -> str:
        """nDCG@10 of each system and set, lifts with their intervals, and milliseconds."""
        parts = [_table(["nDCG@10", *self.systems], self._quality_rows())]
        if len(self.systems) > 1:
            parts += ["Lift over the embedder, with 95 % bootstrap interval:", self._lift_table()]
        parts += ["Median milliseconds a query:", _table(["ms", *self.systems], self._time_rows())]
        facts = ", ".join(
            f"{key}: {value}" for key, value in self.made_with.items() if isinstance(value, str)
        )
        return "\n\n".join([*parts, f"Made with {facts}."]) + "\n"

    def _quality_rows(self) -> list[list[str]]:
        rows = []
        for one in self.sets:
            values = [system.metrics[MAIN_METRIC] for system in one.systems]
            rows.append(
                [f"{one.name} ({one.n_queries:,} queries)", *_bold_best([f"{v:.3f}" for v in values])]
            )
        if len(self.sets) > 1:
            rows.append(["mean", *_bold_best([f"{self.mean(name):.3f}" for name in self.systems])])
        return rows

    def _lift_table(self) -> str:
        names = self.systems[1:]
        rows = [[one.name, *(lift_text(one.system(name).lift) for name in names)] for one in self.sets]
        if len(self.sets) > 1:
            rows.append(["mean", *(f"{self.mean_lift(name):+.3f}" for name in names)])
        return _table(["lift", *names], rows)

    def _time_rows(self) -> list[list[str]]:
        return [[one.name, *(f"{system.ms:,.1f}" for system in one.systems)] for one in self.sets]


def lift_text(lift: Interval | None) -> str:
    """A lift and its interval.

    Example:
        >>> lift_text(Interval(0.0312, 0.0101, 0.0523))
        '+0.031 [+0.010, +0.052]'
    """
    return "" if lift is None else f"{lift.mean:+.3f} [{lift.low:+.3f}, {lift.high:+.3f}]"


def _bold_best(cells: Sequence[str]) -> list[str]:
    return [f"**{cell}**" if cell == max(cells) else cell for cell in cells]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def summarize(test: TestSet, runs: Sequence[Run]) -> SetResult:
    """The metrics of every run of a set; the first run is what the others are compared with."""
    relevant = [query.relevant for query in test.queries]
    measured = [measure(run.rankings, relevant) for run in runs]
    results = tuple(
        _system_result(test, run, values, runs[0], measured[0])
        for run, values in zip(runs, measured, strict=True)
    )
    return SetResult(
        test.name, len(test.documents), len(test.queries), test.n_queries_in_all, test.n_skipped, results
    )


def _system_result(
    test: TestSet,
    run: Run,
    values: Mapping[str, NDArray[np.float64]],
    base: Run,
    base_values: Mapping[str, NDArray[np.float64]],
) -> SystemResult:
    difference = values[MAIN_METRIC] - base_values[MAIN_METRIC]
    order = np.argsort(difference, kind="stable")

    def change(position: int) -> Change:
        before, after = base_values[MAIN_METRIC][position], values[MAIN_METRIC][position]
        worse = base.rankings[position] if before < after else run.rankings[position]
        return _change(test, position, worse, before=float(before), after=float(after))

    return SystemResult(
        system=run.system,
        depth=run.depth,
        metrics={name: float(values[name].mean()) for name in METRICS},
        lift=None if run is base else bootstrap(difference),
        retrieve_ms=float(np.median(run.retrieve_ms)),
        rerank_ms=float(np.median(run.rerank_ms)),
        p95_ms=float(np.percentile(run.retrieve_ms + run.rerank_ms, 95)),
        better=int((difference > 1e-9).sum()),
        worse=int((difference < -1e-9).sum()),
        most_better=tuple(change(i) for i in order[::-1][:SHOWN_CHANGES].tolist() if difference[i] > 1e-9),
        most_worse=tuple(change(i) for i in order[:SHOWN_CHANGES].tolist() if difference[i] < -1e-9),
    )


def _change(test: TestSet, position: int, worse: Sequence[int], *, before: float, after: float) -> Change:
    query = test.queries[position]
    best = max(query.relevant, key=lambda i: query.relevant[i])
    above = test.documents[worse[0]] if worse and worse[0] not in query.relevant else ""
    return Change(query.text, before, after, test.documents[best], above)
