"""How fast this machine ranks: ggrank and its peers side by side, on the same texts and threads.

    models -> subjects -> processes -> rounds that alternate -> events -> report (tables, JSON) -> plot

Each subject runs in a process of its own (`worker`), so that no library's threads or memory touch another's.
Knows the order of the steps. What a peer needs must be installed beside ggrank: `make bench` does that.
"""

from __future__ import annotations

from ggrank.benchmark.processes import Worker


def measured_peak(n_threads: int) -> float:
    """Floating-point operations a second of NumPy's float32 matrix product on so many threads."""
    with Worker(None, n_threads=n_threads) as worker:
        return worker.probe()
