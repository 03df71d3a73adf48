"""The process of one subject: ``python -m ggrank.benchmark.worker``.

Reads a `Subject` as a line of JSON and loads it, then runs what each further line asks for. Answers are lines
of JSON too. The clock runs here, from strings to scores. Ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ggrank.benchmark.subjects import Runner, Subject, load


def main() -> None:
    """Serves until the input ends."""
    answer = _answers()
    subject = json.loads(sys.stdin.readline())
    if subject == "probe":
        answer({"flops": _probe()})
        return
    runner = load(Subject(**subject))
    try:
        answer({"started": runner.started})
        for line in sys.stdin:
            answer(_run(runner, json.loads(line)))
    finally:
        runner.close()


def _answers() -> Callable[[Any], None]:
    """Writes to what was stdout; what libraries print there goes to stderr from now on."""
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(data: Any) -> None:
        print(json.dumps(data), file=stream, flush=True)

    return answer


def _run(runner: Runner, question: dict[str, Any]) -> dict[str, Any]:
    """All requests at once, each from a thread of its own."""
    requests = question["requests"]
    with ThreadPoolExecutor(len(requests)) as callers:
        started = time.perf_counter()
        futures = [callers.submit(runner.run, one["query"], one["documents"]) for one in requests]
        scores = [future.result() for future in futures]
        seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "scores": [one.tolist() for one in scores] if question["scores"] else None,
        "peak_bytes": _peak_bytes(runner.pid),
    }


def _peak_bytes(pid: int) -> int | None:
    """The most memory that a process ever had resident, mapped files included; None where nobody says."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return _own_peak_bytes() if pid == os.getpid() else None
    lines = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return 1024 * int(lines["VmHWM"].split()[0]) if "VmHWM" in lines else None


def _own_peak_bytes() -> int | None:
    try:
        import resource  # Windows has none
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _probe() -> float:
    """Floating-point operations a second of NumPy's float32 matrix product: the best of a second's tries."""
    import numpy as np

    n = 2048
    a, b = np.random.default_rng(0).standard_normal((2, n, n), dtype=np.float32)
    best, end = float("inf"), time.perf_counter() + 1.5
    while time.perf_counter() < end:
        started = time.perf_counter()
        np.matmul(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * n**3 / best


if __name__ == "__main__":
    main()
