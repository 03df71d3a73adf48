"""When native libraries may be called: never with a closed model or while the interpreter ends, and in a
forked child only in new threads.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from ggrank.errors import ClosedError, EngineError

Result = TypeVar("Result")


class Lifetime:
    """Whether a loaded model may still be used; one object, shared by all that hold its pointers."""

    def __init__(self) -> None:
        self._process_id = os.getpid()
        self._is_open = True

    @property
    def in_this_process(self) -> bool:
        """False in a forked child: it shares the memory, but not the threads that compute."""
        return self._process_id == os.getpid()

    def check(self) -> None:
        """Raises ClosedError where the model may not be used."""
        if not self.in_this_process:
            raise ClosedError(
                "this model was loaded in another process, and its threads do not survive a fork. Load it in "
                "the process that uses it, or start workers with multiprocessing's 'spawn'."
            )
        if not self._is_open:
            raise ClosedError("this model is closed; load it again")

    def end(self) -> None:
        """After this, `check` raises."""
        self._is_open = False


class _Calls:
    """The native calls of this process: how many run beside the main thread, and whether there were any."""

    def __init__(self, *, is_forked: bool = False) -> None:
        self.changed = threading.Condition()
        self.n_running = 0
        self.were_any = False
        self.is_ending = False
        self.is_forked = is_forked


_calls = _Calls()


@contextmanager
def native_call() -> Iterator[None]:
    """Encloses every call into a native library that takes long or calls back into Python.

    At the interpreter's end (``atexit``) running calls are waited for, and daemon threads that begin
    another one are stopped. Otherwise a call would return into an interpreter that has ended: CPython then
    unwinds the thread's C++ frames with ``pthread_exit``, and the process aborts.

    The main thread's calls are not counted: they are over before the interpreter ends. And Ctrl-C, which
    interrupts only this thread, could come between counting up and counting down.
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
    """Whether the interpreter is ending; then nothing needs to be freed."""
    return bool(getattr(_calls, "is_ending", True))  # At the very end a module's names are None.


def _start_again() -> None:
    """A forked child has none of the parent's threads, so no call of theirs will ever end."""
    global _calls
    _calls = _Calls(is_forked=_calls.is_forked or _calls.were_any)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)


def note_use() -> None:
    """Native libraries run in this process from here on, which a forked child needs to know."""
    _calls.were_any = True


def check_fork(*, on_gpu: bool) -> None:
    """Raises EngineError in a forked child that cannot compute: its parent has used these libraries."""
    if _calls.is_forked and (on_gpu or sys.platform != "linux"):
        what = "a GPU's driver does" if on_gpu else "this system's libraries do"
        raise EngineError(
            f"this process was forked from one that had loaded a model, and {what} not work after that. "
            "Start it with multiprocessing's 'spawn', or load the first model after the fork."
        )


def in_living_threads(compute: Callable[[], Result]) -> Result:
    """Calls ``compute``; in a forked child in a new thread, which must take the locks that it needs itself.

    GNU's OpenMP keeps a pool of threads for each thread that has computed. In the child, the pool of the
    thread that forked is dead, and computing there would wait for it for ever. A new thread gets a new pool.
    """
    if not _calls.is_forked:
        return compute()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(compute).result()
