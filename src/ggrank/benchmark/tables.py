"""A benchmark's report as Markdown tables.

Knows how figures look to people; not where they come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggrank.benchmark.cells import FIRST_RANKING, TWENTY, Cell
from ggrank.benchmark.ratios import Agreement, Spread, spread
from ggrank.benchmark.report import ModelReport, Report
from ggrank.benchmark.subjects import Subject
from ggrank.evaluation.report import markdown_table

MEGABYTE = 1_000_000
GIGA = 1e9

Rows = list[list[str]]

PROOF = (
    "The smallest size only proves that the benchmark works: its figures measure nothing about speed. "
    "For that: --size small."
)


def to_markdown(report: Report) -> str:
    """For each model the ratios, then the figures; then what they were made with."""
    blocks = [part if isinstance(part, str) else markdown_table(part) for part in parts_of(report)]
    return "\n\n".join(blocks) + "\n"


def parts_of(report: Report) -> list[str | Rows]:
    """The same in parts: headings, paragraphs and lists as Markdown has them, and the rows of tables."""
    proof = [PROOF] if report.made_with.get("size") == "smallest" else []
    models = [part for model in report.models for part in _model_parts(model, report.made_with["flops"])]
    facts = "\n".join(f"- {_made_with(key, value)}" for key, value in report.made_with.items())
    return [*proof, *models, "### made with", facts]


def _model_parts(model: ModelReport, flops: float) -> list[str | Rows]:
    parts: list[str | Rows] = [f"## {model.name}"]
    ratios, figures = _ratios(model), _figures(model, flops)
    if len(ratios) > 1:
        parts += ["How many times as fast ggrank is: the median of the rounds' ratios, and its quartiles.",
                  ratios]  # fmt: skip
    if len(figures) > 1:
        parts += [_legend(model), figures]
    if model.points:
        parts += ["Growth: seconds for each number of passages, sequence length and number of threads.",
                  _growth(model)]  # fmt: skip
    if model.missing:
        parts.append("\n".join(f"- left out: {name}: {reason}" for name, reason in model.missing.items()))
    return parts


def _ratios(model: ModelReport) -> Rows:
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
        f"{TWENTY}; the most memory in MB, at the first ranking and in all{agreement}."
    )


def _figures(model: ModelReport, flops: float) -> Rows:
    names = [f"{cell.name}, ms" if _is_twenty(cell) else cell.name for cell in model.cells]
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
    if _is_twenty(cell):
        seconds = model.seconds(subject.name, cell.name)
        return _with_percent(spread([1000 * one for one in seconds])) if seconds else ""
    speed = model.tokens_per_second(subject.name, cell)
    return _with_percent(speed) if speed else ""


def _is_twenty(cell: Cell) -> bool:
    return cell.name.startswith(TWENTY)


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


def _growth(model: ModelReport) -> Rows:
    names = list(dict.fromkeys(point.subject for point in model.points))
    rows = [["", "", *names]]
    places = list(dict.fromkeys((point.axis, point.x) for point in model.points))
    for place in places:
        found = {point.subject: point for point in model.points if (point.axis, point.x) == place}
        cells = [f"{found[name].seconds:,.3f}" if name in found else "" for name in names]
        rows.append([place[0], f"{place[1]:,}", *cells])
    return rows


def _made_with(key: str, value: Any) -> str:
    """A fact with its unit."""
    if key == "memory in MB":
        return f"memory: {value:,} MB"
    if key == "flops":
        return f"peak: {value / GIGA:,.0f} GFLOPS, measured with NumPy's float32 matrix product"
    return f"{key}: {_fact(value)}"


def _fact(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_fact(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return " ".join(map(_fact, value))
    return str(value)
