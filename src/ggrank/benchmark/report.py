"""What a benchmark found, after however many of its events; as JSON.

Knows events; no processes, files, tables or plots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ggrank.benchmark.cells import FIRST_RANKING, Cell
from ggrank.benchmark.growth import Point
from ggrank.benchmark.measuring import Agreed, Begun, Event, Failed, Peak, Sample
from ggrank.benchmark.ratios import Agreement, Spread, spread, times_as_fast
from ggrank.benchmark.subjects import Subject


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
        return 2 * self.begun.model.n_layer_parameters * max(speeds) / flops if speeds and flops else None

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
        turns: list[tuple[Begun, list[Event | Point]]] = []
        for event in events:
            if isinstance(event, Begun):
                turns.append((event, []))
            else:
                turns[-1][1].append(event)
        return cls(tuple(ModelReport(begun, tuple(rest)) for begun, rest in turns), made_with)

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        flops = float(self.made_with["flops"])
        return {"made_with": dict(self.made_with), "models": [_model_json(one, flops) for one in self.models]}


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
