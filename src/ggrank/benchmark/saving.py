"""A benchmark's report as files, each written whole or not at all.

Knows paths; checking and writing are those of `ggrank.evaluation.saving`.
"""

from __future__ import annotations

import json

from ggrank.benchmark.plot import draw
from ggrank.benchmark.report import Report
from ggrank.benchmark.tables import to_markdown
from ggrank.evaluation.saving import Outputs, write_whole


def save(report: Report, outputs: Outputs) -> None:
    """Writes what was asked for; files that are there are replaced.

    Raises:
        InputError: one cannot be written.
    """
    if outputs.json:
        text = json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n"
        write_whole(outputs.json, text.encode("utf-8", "replace"))
    if outputs.markdown:
        write_whole(outputs.markdown, to_markdown(report).encode("utf-8", "replace"))
    if outputs.plot:
        write_whole(outputs.plot, draw(report, outputs.plot.suffix.lower().removeprefix(".")))
