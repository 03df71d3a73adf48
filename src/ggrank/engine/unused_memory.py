"""Gives memory back to the system that a library holds and does not use."""

from __future__ import annotations

import ctypes
import mmap
import sys

LEAST = 1 << 20
"""Bytes below which the call is not worth it."""


def give_back(address: int, n_bytes: int) -> None:
    """Makes whole pages inside a range of ordinary memory unoccupied; they read as zeros from then on.

    For memory that is no longer read, or was only cleared. On Linux, where ``madvise`` promises this
    (``MADV_DONTNEED``, madvise(2)); elsewhere nothing happens.
    """
    first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    size = (address + n_bytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if sys.platform == "linux" and size >= LEAST:
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), mmap.MADV_DONTNEED)
