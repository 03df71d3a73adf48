"""`make integrations` has every framework: there a test that is skipped, for want of one, is a failure."""

from __future__ import annotations

import pytest

_skipped: list[str] = []


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped and "integrations" in report.nodeid:
        _skipped.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _skipped and session.config.option.markexpr == "integration":
        missing = f"not run, because something is not installed: {', '.join(_skipped)}"
        session.config.get_terminal_writer().line(f"\n{missing}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
