"""Guards of native calls: none at the interpreter's end, and new threads after a fork."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from ggrank.errors import EngineError

Result = TypeVar("Result")


class _Calls:
    """The native calls of this process: how many run outside the main thread, and whether there were any."""

    def __init__(self, *, is_forked: bool = False) -> None:
        self.changed = threading.Condition()
        self.n_running = 0
        self.were_any = False
        self.is_ending = False
        self.is_forked = is_forked


_calls = _Calls()


@contextmanager
def native_call() -> Iterator[None]:
    """Must enclose every call into a native library that takes long or calls back into Python.

    The interpreter waits for running calls before it ends (``atexit``), and stops daemon threads that begin
    another one. Otherwise a call would return into an interpreter that has ended: CPython then unwinds the
    thread's C++ frames with ``pthread_exit``, and the process aborts.

    The main thread's calls are not counted. They end before the interpreter does, and Ctrl-C, which
    interrupts only this thread, could leave the count wrong.
    """
    calls = _calls
    calls.were_any = True
    if threading.current_thread() is threading.main_thread():
        yield
        return
    with calls.changed:
        if calls.is_ending:
            raise SystemExit  # ends this thread silently
        calls.n_running += 1
    try:
        yield
    finally:
        with calls.changed:
            calls.n_running -= 1
            calls.changed.notify_all()


@atexit.register
def _wait_for_calls() -> None:
    calls = _calls
    with calls.changed:
        calls.is_ending = True
        calls.changed.wait_for(lambda: calls.n_running == 0)


def is_ending() -> bool:
    """Whether the interpreter is ending, so that nothing needs to be freed."""
    return bool(getattr(_calls, "is_ending", True))  # At the very end a module's names are None.


def _start_again() -> None:
    """New counts for a forked child: the parent's threads, and so their calls, do not exist in it."""
    global _calls
    _calls = _Calls(is_forked=_calls.is_forked or _calls.were_any)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)


def check_fork(*, on_gpu: bool) -> None:
    """Raises EngineError in a forked child that cannot compute after its parent's native calls."""
    if _calls.is_forked and (on_gpu or sys.platform != "linux"):
        what = "a GPU's driver does" if on_gpu else "this system's libraries do"
        raise EngineError(
            f"this process was forked from one that had loaded a model, and {what} not work after that. "
            "Start it with multiprocessing's 'spawn', or load the first model after the fork."
        )


def in_living_threads(compute: Callable[[], Result]) -> Result:
    """Calls ``compute``, in a forked child in a new thread; ``compute`` must take its locks itself.

    GNU's OpenMP has a pool of threads for each thread that has computed. In the child, the pool of the thread
    that forked is dead, and a computation would wait for it for ever. A new thread gets a new pool.
    """
    if not _calls.is_forked:
        return compute()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(compute).result()
