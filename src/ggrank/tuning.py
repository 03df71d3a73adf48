"""Which settings suit this machine.

Knows processors; not models or texts.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def default_threads() -> int:
    """Physical cores that this process may use, at least one; on Apple Silicon the fast ones.

    Matrix products gain nothing from a second thread on a core, and lose from waiting for slow cores.
    """
    if sys.platform == "darwin":
        return _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or os.cpu_count() or 1
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len({_siblings(cpu) for cpu in allowed}) or 1


def _siblings(cpu: int) -> str:
    """Names the physical core of a logical one; Linux only, elsewhere each counts as its own."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text("ascii")
    except OSError:
        return str(cpu)


def _sysctl(name: str) -> int:
    libc = ctypes.CDLL(None)
    value, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    failed = libc.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return 0 if failed else value.value
