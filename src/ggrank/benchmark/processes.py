"""Starts and asks the processes of the subjects.

Each has its own: no library's threads, settings or memory come near another's. Knows pipes, signals and
environment variables; not what is measured.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.benchmark.cells import Cell
from ggrank.benchmark.subjects import Subject
from ggrank.errors import EngineError

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
_SECONDS_TO_END = 10


@dataclass(frozen=True)
class Run:
    """One cell, computed once.

    Attributes:
        seconds: from the strings to the last score.
        scores: an array for each request; None where they were not asked for.
        peak_bytes: the process's most memory so far; None where the system does not tell.
    """

    seconds: float
    scores: list[NDArray[np.float32]] | None
    peak_bytes: int | None


class Worker:
    """A subject in a process of its own; a context manager.

    Raises:
        EngineError: from any call, when the process ended; its last line is in the message.
    """

    def __init__(self, subject: Subject | None, *, n_threads: int) -> None:
        self.subject = subject
        self._begun = time.monotonic()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # `close` closes it
        self._process = _start(n_threads, self._errors)
        self._tell("probe" if subject is None else asdict(subject))

    def load(self) -> None:
        """Waits until the model is loaded."""
        started = self._hear()["started"]
        if started is not None:
            self._begun = started

    def run(self, cell: Cell, *, scores: bool = False) -> Run:
        """Computes a cell."""
        self._tell({"requests": [asdict(request) for request in cell.requests], "scores": scores})
        answer = self._hear()
        arrays = answer["scores"] and [np.array(one, np.float32) for one in answer["scores"]]
        return Run(answer["seconds"], arrays, answer["peak_bytes"])

    def first_ranking(self, cell: Cell) -> Run:
        """Loads and computes a cell; the seconds are those since the process was started."""
        self.load()
        run = self.run(cell)
        return Run(time.monotonic() - self._begun, None, run.peak_bytes)

    def probe(self) -> float:
        """Floating-point operations a second of a matrix product."""
        return float(self._hear()["flops"])

    def close(self) -> None:
        """Ends the process, and what it started."""
        with suppress(OSError):
            self._input.close()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            _kill(self._process)
        self._output.close()
        self._errors.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, EngineError):  # Ctrl-C: it may be deep in a long run
            _kill(self._process)
        self.close()

    @property
    def _input(self) -> Any:
        return self._process.stdin

    @property
    def _output(self) -> Any:
        return self._process.stdout

    def _tell(self, data: Any) -> None:
        with suppress(BrokenPipeError):  # it ended; `_hear` says how
            self._input.write(json.dumps(data).encode() + b"\n")
            self._input.flush()

    def _hear(self) -> Any:
        line = self._output.readline()
        if not line:
            raise EngineError(self._last_words())
        return json.loads(line)

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        name = self.subject.name if self.subject else "the probe"
        return f"{name} ended with exit code {code}: {lines[-1] if lines else 'it said nothing'}"


def _start(n_threads: int, errors: Any) -> subprocess.Popen[bytes]:
    """In a group of its own, so that Ctrl-C reaches the benchmark alone, which then ends all of them."""
    variables = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(n_threads)), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "ggrank.benchmark.worker"]
    group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=variables, **group)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
