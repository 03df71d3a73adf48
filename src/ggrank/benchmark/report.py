"""What a benchmark found, as tables and JSON, after however many of its events.

Knows events; no processes, files or plots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ggrank.benchmark.cells import FIRST_RANKING, TWENTY, Cell
from ggrank.benchmark.growth import Point
from ggrank.benchmark.measuring import Agreed, Begun, Event, Failed, Peak, Sample
from ggrank.benchmark.ratios import Agreement, Spread, spread, times_as_fast
from ggrank.benchmark.subjects import Subject
from ggrank.evaluation.report import _markdown_table as markdown_table

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ModelReport:
    """All events of one model."""

    begun: Begun
    events: tuple[Event | Point, ...]

    @property
    def name(self) -> str:
        """The model's."""
        return self.begun.model.name

    @property
    def cells(self) -> tuple[Cell, ...]:
        """Those that were measured at least once."""
        measured = {event.cell for event in self.events if isinstance(event, Sample)}
        return tuple(cell for cell in self.begun.cells if cell.name in measured)

    @property
    def subjects(self) -> list[Subject]:
        """Those that were measured at least once."""
        measured = {event.subject for event in self.events if isinstance(event, Sample)}
        return [subject for subject in self.begun.subjects if subject.name in measured]

    @property
    def points(self) -> list[Point]:
        """Of growth."""
        return [event for event in self.events if isinstance(event, Point)]

    @property
    def missing(self) -> dict[str, str]:
        """Subjects that were left out or failed, and why."""
        failed = {event.subject: event.reason for event in self.events if isinstance(event, Failed)}
        return {one.name: one.reason for one in self.begun.left_out} | failed

    def seconds(self, subject: str, cell: str) -> list[float]:
        """Of each round; empty where there was none."""
        return [
            event.seconds
            for event in self.events
            if isinstance(event, Sample) and (event.subject, event.cell) == (subject, cell)
        ]

    def tokens_per_second(self, subject: str, cell: Cell) -> Spread | None:
        """None where it was not measured."""
        seconds = self.seconds(subject, cell.name)
        return spread([cell.n_tokens / one for one in seconds]) if seconds else None

    def peak_bytes(self, subject: str, cell: str) -> int | None:
        """The most memory, at the first ranking or with all cells (""); None where nobody told."""
        found = [
            event.n_bytes
            for event in self.events
            if isinstance(event, Peak) and (event.subject, event.cell) == (subject, cell)
        ]
        return max(found, default=None)

    def agreement(self, subject: str) -> Agreement | None:
        """With the reference, over all cells so far."""
        found = [event for event in self.events if isinstance(event, Agreed) and event.subject == subject]
        return found[-1].agreement if found else None

    @property
    def reference(self) -> str:
        """Whose scores are the reference; "" before any was compared."""
        return next((event.reference for event in self.events if isinstance(event, Agreed)), "")

    def opponent(self, peer: Subject) -> Subject | None:
        """The ggrank that a peer is compared with: the fastest, on the same file against llama-server."""
        own = [one for one in self.subjects if one.kind == "ggrank"]
        if peer.kind == "llama-server":
            own = [one for one in own if one.variant == peer.variant]
        return min(own, key=self._mean_seconds, default=None)

    def ratio(self, own: Subject, peer: Subject, cell: str) -> Spread | None:
        """How many times as fast as a peer; None where one was not measured."""
        seconds, theirs = self.seconds(own.name, cell), self.seconds(peer.name, cell)
        return times_as_fast(seconds, theirs) if seconds and theirs else None

    def share_of_peak(self, subject: str, flops: float) -> float | None:
        """Of the machine's measured peak, in the cell where it is largest."""
        speeds = [found.median for cell in self.cells if (found := self.tokens_per_second(subject, cell))]
        return 2 * self.begun.model.n_layer_parameters * max(speeds) / flops if speeds else None

    def _mean_seconds(self, subject: Subject) -> float:
        """Geometric mean over the cells, so that each counts the same."""
        rounds = [self.seconds(subject.name, cell.name) for cell in self.cells]
        medians = [spread(seconds).median for seconds in rounds if seconds]
        return math.exp(sum(map(math.log, medians)) / len(medians)) if medians else math.inf


@dataclass(frozen=True)
class Report:
    """A benchmark so far.

    Attributes:
        made_with: what somebody needs to do it again, and ``flops``, the machine's measured peak.
    """

    models: tuple[ModelReport, ...]
    made_with: Mapping[str, Any]

    @classmethod
    def of(cls, events: Sequence[Event | Point], made_with: Mapping[str, Any]) -> Report:
        """Sorts events to their models; each model's turn begins with `Begun`."""
        starts = [i for i, event in enumerate(events) if isinstance(event, Begun)]
        models = []
        for start, end in zip(starts, [*starts[1:], len(events)], strict=True):
            begun = events[start]
            assert isinstance(begun, Begun)
            models.append(ModelReport(begun, tuple(events[start + 1 : end])))
        return cls(tuple(models), made_with)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        flops = float(self.made_with["flops"])
        return {"made_with": dict(self.made_with), "models": [_model_json(one, flops) for one in self.models]}

    def to_markdown(self) -> str:
        """For each model the ratios, then the figures; then what they were made with."""
        parts = [part for model in self.models for part in _model_markdown(model, self.made_with["flops"])]
        facts = "\n".join(f"- {key}: {_fact(value)}" for key, value in self.made_with.items())
        return "\n\n".join([*parts, "### made with", facts]) + "\n"


def _model_json(model: ModelReport, flops: float) -> dict[str, Any]:
    return {
        "name": model.name,
        "job": model.begun.model.job,
        "layer_parameters": model.begun.model.n_layer_parameters,
        "cells": [
            {
                "name": cell.name,
                "n_passages": cell.n_passages,
                "n_tokens": cell.n_tokens,
                "callers": len(cell.requests),
            }
            for cell in model.cells
        ],
        "reference": model.reference,
        "subjects": [_subject_json(model, subject, flops) for subject in model.subjects],
        "missing": model.missing,
        "growth": [asdict(point) for point in model.points],
    }


def _subject_json(model: ModelReport, subject: Subject, flops: float) -> dict[str, Any]:
    cells: dict[str, Any] = {}
    opponent = model.opponent(subject) if subject.kind != "ggrank" else None
    for name in [*(cell.name for cell in model.cells), FIRST_RANKING]:
        if seconds := model.seconds(subject.name, name):
            cells[name] = {"seconds": seconds, "median_seconds": spread(seconds).median}
            ratio = opponent and model.ratio(opponent, subject, name)
            cells[name]["ggrank_times_as_fast"] = asdict(ratio) if ratio else None
    for cell in model.cells:
        speed = model.tokens_per_second(subject.name, cell)
        if speed:
            cells[cell.name]["tokens_per_second"] = asdict(speed)
    agreement = model.agreement(subject.name)
    return {
        "name": subject.name,
        "kind": subject.kind,
        "variant": subject.variant,
        "n_threads": subject.n_threads,
        "compared_with": opponent.name if opponent else None,
        "cells": cells,
        "peak_bytes": {
            FIRST_RANKING: model.peak_bytes(subject.name, FIRST_RANKING),
            "all cells": model.peak_bytes(subject.name, ""),
        },
        "agreement": asdict(agreement) if agreement else None,
        "share_of_peak": model.share_of_peak(subject.name, flops),
    }


# -- Markdown


def _model_markdown(model: ModelReport, flops: float) -> list[str]:
    parts = [f"## {model.name}"]
    ratios, figures = _ratios(model), _figures(model, flops)
    if len(ratios) > 1:
        parts += ["How many times as fast ggrank is: the median of the rounds' ratios, and its quartiles.",
                  markdown_table(ratios)]  # fmt: skip
    if len(figures) > 1:
        parts += [_legend(model), markdown_table(figures)]
    if model.points:
        parts += ["Growth: seconds for each number of passages, sequence length and number of threads.",
                  markdown_table(_growth(model))]  # fmt: skip
    if model.missing:
        parts.append("\n".join(f"- left out: {name}: {reason}" for name, reason in model.missing.items()))
    return parts


def _ratios(model: ModelReport) -> list[list[str]]:
    cells = [*(cell.name for cell in model.cells), FIRST_RANKING]
    rows = [["against", "with", *cells, "memory"]]
    for peer in model.subjects:
        own = model.opponent(peer) if peer.kind != "ggrank" else None
        if own is not None:
            ratios = [_ratio_text(model.ratio(own, peer, cell)) for cell in cells]
            rows.append([peer.name, own.name, *ratios, _memory_ratio(model, own, peer)])
    return rows


def _ratio_text(ratio: Spread | None) -> str:
    return f"**{ratio.median:.2f}** [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else ""


def _memory_ratio(model: ModelReport, own: Subject, peer: Subject) -> str:
    less, more = model.peak_bytes(own.name, FIRST_RANKING), model.peak_bytes(peer.name, FIRST_RANKING)
    return f"**{more / less:.2f}**" if less and more else ""


def _legend(model: ModelReport) -> str:
    agreement = f"; agreement is with the scores of {model.reference}" if model.reference else ""
    return (
        f"Tokens a second, the median of the rounds and half of their quartile range; milliseconds for "
        f"{TWENTY}; memory in MB{agreement}."
    )


def _figures(model: ModelReport, flops: float) -> list[list[str]]:
    names = [f"{cell.name}, ms" if cell.name == TWENTY else cell.name for cell in model.cells]
    memory = ["MB then", "MB in all"]
    rows = [["", *names, f"{FIRST_RANKING}, s", *memory, "of peak", "agreement"]]
    for subject in model.subjects:
        first = model.seconds(subject.name, FIRST_RANKING)
        share = model.share_of_peak(subject.name, flops)
        rows.append(
            [
                subject.name,
                *(_speed_text(model, subject, cell) for cell in model.cells),
                _with_percent(spread(first), digits=2) if first else "",
                _megabytes(model.peak_bytes(subject.name, FIRST_RANKING)),
                _megabytes(model.peak_bytes(subject.name, "")),
                f"{share:.0%}" if share else "",
                _agreement_text(model.agreement(subject.name)),
            ]
        )
    return rows


def _speed_text(model: ModelReport, subject: Subject, cell: Cell) -> str:
    if cell.name == TWENTY:
        seconds = model.seconds(subject.name, cell.name)
        return _with_percent(spread([1000 * one for one in seconds])) if seconds else ""
    speed = model.tokens_per_second(subject.name, cell)
    return _with_percent(speed) if speed else ""


def _with_percent(found: Spread, *, digits: int = 0) -> str:
    """A median, and half the quartile range in per cent of it.

    Example:
        >>> _with_percent(Spread(1234.0, 1200.0, 1250.0))
        '1,234 ±2 %'
    """
    half = (found.high - found.low) / 2 / found.median
    return f"{found.median:,.{digits}f} ±{100 * half:.0f} %"


def _megabytes(n_bytes: int | None) -> str:
    return f"{n_bytes / MEGABYTE:,.0f}" if n_bytes else ""


def _agreement_text(found: Agreement | None) -> str:
    return f"{found.measure} {found.value:.5f}, ±{found.largest_difference:.2g}" if found else ""


def _growth(model: ModelReport) -> list[list[str]]:
    names = list(dict.fromkeys(point.subject for point in model.points))
    rows = [["", "", *names]]
    places = list(dict.fromkeys((point.axis, point.x) for point in model.points))
    for place in places:
        found = {point.subject: point for point in model.points if (point.axis, point.x) == place}
        cells = [f"{found[name].seconds:,.3f}" if name in found else "" for name in names]
        rows.append([place[0], f"{place[1]:,}", *cells])
    return rows


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_fact, value))
    return f"{value:,.0f}" if isinstance(value, float) else str(value)
