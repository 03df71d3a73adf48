"""Memory that is given back: gone from the process, and nothing beside it is touched."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

from ggrank.engine.llama_cpp_engine import LEAST_UNUSED, give_back

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="madvise promises this on Linux")

MB = 1 << 20


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * mmap.PAGESIZE / MB


def test_a_range_that_is_given_back_is_no_longer_resident_and_can_be_written_again() -> None:
    array = np.ones(64 * MB, np.uint8)
    before = resident_mb()
    give_back(array.ctypes.data, array.nbytes)
    assert resident_mb() < before - 48  # on many cores the system counts only roughly
    array[:] = 7
    assert array.min() == 7


def test_bytes_outside_the_whole_pages_of_the_range_stay() -> None:
    array = np.arange(4 * MB, dtype=np.uint8)
    first, last = 1000, 3 * MB + 123
    expected = array.copy()
    give_back(array.ctypes.data + first, last - first)
    np.testing.assert_array_equal(array[:first], expected[:first])
    np.testing.assert_array_equal(array[last:], expected[last:])
    assert array[first + mmap.PAGESIZE : last - mmap.PAGESIZE].max() == 0


@pytest.mark.parametrize("n_bytes", [0, 1, mmap.PAGESIZE, LEAST_UNUSED - 1])
def test_what_is_small_is_left_alone(n_bytes: int) -> None:
    array = np.ones(2 * MB, np.uint8)
    give_back(array.ctypes.data, n_bytes)
    assert array.min() == 1
