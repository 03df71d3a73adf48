"""An evaluation as a whole: its results on all sets, and what they were made with; as JSON and as Markdown.

Knows results; no files, terminals or plots.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ggrank.evaluation.bootstrap import Interval
from ggrank.evaluation.datasets import SEED
from ggrank.evaluation.metrics import METRICS
from ggrank.evaluation.results import MAIN_METRIC, Latency, SetResult, SystemResult
from ggrank.evaluation.systems import EMBEDDER


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
        return self.mean(system) - self.mean(EMBEDDER.name)

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
        return {
            "made_with": dict(self.made_with),
            "sets": [asdict(one) for one in self.sets],
            "mean": means,
        }

    def to_markdown(self) -> str:
        """nDCG@10 and its lift on all sets, then all figures of each set."""
        parts = [markdown_table(self._overview()), markdown_table(self._lifts())]
        for one in self.sets:
            parts += [f"### {one.name}", ", ".join(set_facts(one)), markdown_table(_details(one))]
        versions = [f"{key}: {value}" for key, value in self.made_with.items() if isinstance(value, str)]
        facts = "\n".join(f"- {_cell(fact)}" for fact in [*model_facts(self.made_with), *versions])
        return "\n\n".join([*parts, "### made with", facts]) + "\n"

    def _overview(self) -> list[list[str]]:
        """Rows of nDCG@10, the best of each column in bold, and milliseconds."""
        columns = [
            [one.system(system.system).metrics[MAIN_METRIC] for system in self.systems] for one in self.sets
        ]
        head = [MAIN_METRIC, *(one.name for one in self.sets)]
        if len(self.sets) > 1:
            head.append("mean")
            columns.append([self.mean(system.system) for system in self.systems])
        cells = [
            [system.system for system in self.systems],
            *map(_with_bold_best, columns),
            [ms_text(self.mean_ms(system.system)) for system in self.systems],
        ]
        return [[*head, "ms a query"], *map(list, zip(*cells, strict=True))]

    def _lifts(self) -> list[list[str]]:
        several = len(self.sets) > 1
        rows = [["lift [95 % interval]", *(one.name for one in self.sets), *(["mean"] if several else [])]]
        for system in self.systems[1:]:
            lifts = [lift_text(one.system(system.system).lift) for one in self.sets]
            mean = [f"{self.mean_lift(system.system):+.3f}"] if several else []
            rows.append([system.system, *lifts, *mean])
        return rows


def lift_text(lift: Interval | None) -> str:
    """A lift and its interval.

    Example:
        >>> lift_text(Interval(0.0312, 0.0101, 0.0523))
        '+0.031 [+0.010, +0.052]'
    """
    return "" if lift is None else f"{lift.mean:+.3f} [{lift.low:+.3f}, {lift.high:+.3f}]"


def ms_text(milliseconds: float) -> str:
    """Milliseconds, a decimal where it means something.

    Example:
        >>> ms_text(3.14159), ms_text(1234.5)
        ('3.1', '1,234')
    """
    return f"{milliseconds:,.1f}" if milliseconds < 100 else f"{milliseconds:,.0f}"


def set_facts(one: SetResult) -> list[str]:
    """A set's size, and what was left out."""
    facts = [_count(one.n_documents, "document", "documents"), _count(one.n_queries, "query", "queries")]
    if one.n_queries < one.n_queries_in_all:
        facts.append(f"sampled from {one.n_queries_in_all:,} with seed {SEED}")
    if one.n_skipped:
        facts.append(f"{_count(one.n_skipped, 'query', 'queries')} without a relevant document left out")
    if one.n_unknown:
        facts.append(f"{_count(one.n_unknown, 'judgement', 'judgements')} of unknown ids left out")
    if any(system.depth == one.n_documents for system in one.systems):
        facts.append(f"@{one.n_documents} is all documents and stands for larger depths")
    return facts


def _count(n: int, one: str, several: str) -> str:
    return f"{n:,} {one if n == 1 else several}"


def model_facts(made_with: Mapping[str, Any]) -> list[str]:
    """Each model's file and quantization.

    Example:
        >>> model_facts({"embedder": {"file": "a.gguf", "quantization": "q8_0"}})
        ['embedder: a.gguf, q8_0']
    """
    rerankers = made_with.get("rerankers", {}).items()
    models = {
        "embedder": made_with.get("embedder"),
        **{f"reranker {name}": facts for name, facts in rerankers},
    }
    return [f"{role}: {facts['file']}, {facts['quantization']}" for role, facts in models.items() if facts]


def _details(one: SetResult) -> list[list[str]]:
    head = ["system", *METRICS, "lift of nDCG@10", "better / worse", "retrieve ms", "rerank ms"]
    rows = []
    for system in one.systems:
        changes = system.changes
        rows.append(
            [
                system.system,
                *(f"{system.metrics[name]:.3f}" for name in METRICS),
                lift_text(system.lift),
                f"{changes.n_better:,} / {changes.n_worse:,}" if changes else "",
                _latency_text(system.retrieve_ms),
                _latency_text(system.rerank_ms) if system.depth else "",
            ]
        )
    return [head, *rows]


def _latency_text(latency: Latency) -> str:
    return f"{ms_text(latency.median)}, p95 {ms_text(latency.p95)}"


def _with_bold_best(values: Sequence[float]) -> list[str]:
    cells = [f"{value:.3f}" for value in values]
    return [f"**{cell}**" if cell == max(cells) else cell for cell in cells]


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown, the first of them the header; all columns but the first are numbers."""
    head, *body = rows
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
