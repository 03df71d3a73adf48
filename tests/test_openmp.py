"""The spin count is set while OpenMP loads, and only where nobody else chose."""

from __future__ import annotations

import os

import pytest

from ggrank.engine.library import SPIN_COUNT, short_spins


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)


def test_it_is_set_inside_and_taken_back() -> None:
    with short_spins():
        assert os.environ["GOMP_SPINCOUNT"] == SPIN_COUNT
    assert "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_a_users_choice_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    with short_spins():
        assert os.environ[name] == "7"
    assert os.environ[name] == "7"
