"""What a job tells: how far it is, and what came out.

Knows counts and the time that they took; no rows, no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from ggrank.jobs.parts import PartRecord


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        rows: done, those of earlier runs included.
        n_bytes, n_bytes_total: of the sources.
        n_bytes_before: done by earlier runs.
        n_tokens, seconds: of this run.
    """

    rows: int
    n_bytes: int
    n_bytes_total: int
    n_bytes_before: int
    n_tokens: int
    seconds: float


@dataclass(frozen=True)
class Summary:
    """What came out; the same however often the job was stopped, but for the last three.

    Attributes:
        output: as it was asked for.
        rows, bad_rows, truncated: how many were written, left out, and cut.
        tokens: that the model read.
        parts: that were written.
        engine: that computed, "llama.cpp" or "openvino".
        resumed_rows: of ``rows``, those that were there when this run began.
        seconds: of this run.
        tokens_per_second: of this run; None where it computed nothing.
    """

    output: str
    rows: int
    bad_rows: int
    truncated: int
    tokens: int
    parts: int
    engine: str
    resumed_rows: int
    seconds: float
    tokens_per_second: float | None


def counted(records: Sequence[PartRecord]) -> dict[str, int]:
    """Of a summary, what does not depend on when the job was stopped."""
    return {
        "rows": sum(record.rows for record in records),
        "bad_rows": sum(record.bad_rows for record in records),
        "truncated": sum(record.truncated for record in records),
        "tokens": sum(record.n_tokens for record in records),
        "parts": len(records),
    }


def summed_up(
    counts: Mapping[str, Any],
    *,
    output: str,
    engine: str,
    started: float,
    n_tokens: int,
    resumed_rows: int = 0,
) -> Summary:
    """A summary of what was `counted`, with the speed of this run.

    Args:
        started: when this run began, by `perf_counter`.
        n_tokens: that it read.
    """
    seconds = perf_counter() - started
    return Summary(
        output=output,
        **counts,
        engine=engine,
        resumed_rows=resumed_rows,
        seconds=round(seconds, 3),
        tokens_per_second=round(n_tokens / seconds, 1) if n_tokens else None,
    )
