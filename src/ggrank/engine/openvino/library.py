"""The one import of OpenVINO, without its telemetry; and its objects in a forked child.

``import openvino`` imports ``openvino_telemetry``, which writes an id into the home directory and sends an
event over the network. OpenVINO works without that package, so it is hidden during the import. A program that
has imported OpenVINO itself has sent the event already.
"""

from __future__ import annotations

import ctypes
import os
import sys
import weakref
from typing import Any

_TELEMETRY = "openvino_telemetry"


_is_hidden = _TELEMETRY not in sys.modules
if _is_hidden:
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's own way to make an import fail
try:
    import openvino as ov
    from openvino import opset13 as op
finally:
    if _is_hidden:
        del sys.modules[_TELEMETRY]

__all__ = ["leave_alone_in_forks", "op", "ov"]

_alive: list[weakref.ref[Any]] = []


def leave_alone_in_forks(*objects: Any) -> None:
    """Keeps a forked child from destroying the parent's OpenVINO objects, and those of the library itself.

    OpenVINO's threads (oneTBB) do not survive a fork. Destructors that look for them at the child's end abort
    it: "pthread_detach has failed". So the child gets a reference to these objects that it never gives up.
    When Python has ended, the child flushes C's streams and ends by ``_exit`` with its exit code, so that the
    destructors of C++ libraries loaded before the fork do not run. Can go when oneTBB survives a fork.
    """
    _alive[:] = [reference for reference in _alive if reference() is not None]
    _alive.extend(map(weakref.ref, objects))


def _leave_everything() -> None:
    for reference in _alive:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(reference()))
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):  # glibc: the last registered is called first
        libc.on_exit(ctypes.cast(libc._exit, ctypes.c_void_p), None)
        libc.__cxa_atexit(ctypes.cast(libc.fflush, ctypes.c_void_p), None, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_everything)
