"""`make integrations` has every framework: there a test that is skipped, for want of one, is a failure."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ggrank import Llama

_skipped: list[str] = []


@pytest.fixture(scope="module")
def reranker() -> Iterator[Llama]:
    with Llama.load("ggrank-reranker-mini") as llama:
        yield llama


@pytest.fixture(scope="module")
def embedder() -> Iterator[Llama]:
    with Llama.load("all-minilm-l6-v2", query_prefix="query: ", document_prefix="passage: ") as llama:
        yield llama


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped and "integrations" in report.nodeid:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and session.config.option.markexpr == "integration":
        missing = f"not run, because something is not installed: {', '.join(_skipped)}"
        session.config.get_terminal_writer().line(f"\n{missing}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
