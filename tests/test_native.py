"""Around native libraries: the spin count while OpenMP loads, and memory that is given back."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from ggrank.engine.library import SPIN_COUNT, short_spins
from ggrank.engine.llama_cpp_engine import LEAST_UNUSED, give_back

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="madvise promises this on Linux")
MB = 1 << 20


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


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE / MB


@on_linux
def test_a_range_that_is_given_back_is_no_longer_resident_and_can_be_written_again() -> None:
    array = np.ones(64 * MB, np.uint8)
    before = resident_mb()
    give_back(array.ctypes.data, array.nbytes)
    assert resident_mb() < before - 48  # on many cores the system counts only roughly
    array[:] = 7
    assert array.min() == 7


@on_linux
def test_bytes_outside_the_whole_pages_of_the_range_stay() -> None:
    array = np.arange(4 * MB, dtype=np.uint8)
    first, last = 1000, 3 * MB + 123
    expected = array.copy()
    give_back(array.ctypes.data + first, last - first)
    np.testing.assert_array_equal(array[:first], expected[:first])
    np.testing.assert_array_equal(array[last:], expected[last:])
    assert array[first + mmap.PAGESIZE : last - mmap.PAGESIZE].max() == 0


@on_linux
@pytest.mark.parametrize("n_bytes", [0, 1, mmap.PAGESIZE, LEAST_UNUSED - 1])
def test_what_is_small_is_left_alone(n_bytes: int) -> None:
    array = np.ones(2 * MB, np.uint8)
    give_back(array.ctypes.data, n_bytes)
    assert array.min() == 1
