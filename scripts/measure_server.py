"""Measures `ggrank serve` under load: ``python scripts/measure_server.py load`` or ``... bodies``.

``load``: 64 connections ask /v1/rerank and /v1/embeddings in turn for four minutes, while a probe asks
/health every second and gives up after one. ``bodies``: 128 callers send bodies of 16 MB, of which most
cannot be used. Both start a server of their own with the bundled models. They need Linux: memory is read
from /proc.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

WORDS = ["llamas", "graze", "plains", "peru", "bread", "needs", "yeast", "water", "salt", "time", "the"]
MEBIBYTE = 2**20
JSON = {"Content-Type": "application/json"}


class Server:
    """A server in a process of its own."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid, self.port = pid, port

    def memory(self, name: str) -> float:
        """VmRSS (now) or VmHWM (the most that it ever was), in MB."""
        lines = Path(f"/proc/{self.pid}/status").read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name))

    def ask(self, connection: http.client.HTTPConnection, path: str, body: bytes) -> int:
        """The status of an answer, which is read to its end."""
        connection.request("POST", path, body, JSON)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def connect(self, timeout: float = 600) -> http.client.HTTPConnection:
        """A connection that is opened by its first request."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)


@contextmanager
def serving(engine: str) -> Iterator[Server]:
    """A server whose models are loaded and warm."""
    command = [sys.executable, "-m", "ggrank", "serve", "--port", "0", "--no-access-log", "--engine", engine]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()  # "ggrank listens on http://127.0.0.1:PORT with ..."
            server = Server(child.pid, int(line.split()[3].rpartition(":")[2]))
            for path, body in requests(0):
                server.ask(server.connect(), path, body)
            yield server
        finally:
            child.terminate()


def requests(seed: int) -> Iterator[tuple[str, bytes]]:
    """A request of each kind, with eight texts of 10 to 80 words."""
    random = np.random.default_rng(seed)
    texts = [" ".join(random.choice(WORDS, random.integers(10, 80))) for _ in range(8)]
    yield "/v1/rerank", json.dumps({"query": texts[0][:40], "documents": texts}).encode()
    yield "/v1/embeddings", json.dumps({"input": texts}).encode()


def measure_load(engine: str, n_connections: int, seconds: float) -> None:
    """Prints latencies, memory, and what the probe saw."""
    with serving(engine) as server:
        end = time.monotonic() + seconds
        took: dict[str, list[float]] = {"/v1/rerank": [], "/v1/embeddings": []}
        statuses: Counter[int] = Counter()

        def call(seed: int) -> None:
            connection = server.connect()
            while time.monotonic() < end:
                seed += n_connections
                for path, body in requests(seed):
                    started = time.perf_counter()
                    statuses[server.ask(connection, path, body)] += 1
                    took[path].append(time.perf_counter() - started)

        threads = [threading.Thread(target=call, args=(i,)) for i in range(n_connections)]
        for thread in threads:
            thread.start()
        memory, probes, failures = [], [], 0
        while time.monotonic() < end:
            started = time.perf_counter()
            try:
                probe = server.connect(timeout=1)
                probe.request("GET", "/health")
                failures += probe.getresponse().status != 200
                probe.close()
            except OSError:
                failures += 1
            probes.append(time.perf_counter() - started)
            memory.append(server.memory("VmRSS"))
            time.sleep(max(0.0, 1 - probes[-1]))
        for thread in threads:
            thread.join()
    for path, each in took.items():
        p50, p99 = np.percentile(each, [50, 99])
        print(f"{path}: {len(each):,} requests, p50 {p50:.2f} s, p99 {p99:.2f} s")
    print(f"statuses: {dict(statuses)}")
    quarters = [float(np.mean(part)) for part in np.array_split(memory, 4)]
    print(f"RSS in the four quarters: {', '.join(f'{each:.0f}' for each in quarters)} MB")
    print(f"probe: {len(probes)} asked, {failures} failed, slowest {max(probes):.3f} s")


def measure_bodies(engine: str, n_callers: int) -> None:
    """Prints the most memory above that of the loaded models, and how the callers were answered."""
    document = "an apple and a pear " * 50  # computed once, however often it stands in a request
    empty = "[[]" + ",[]" * 5_000_000 + "]"
    bodies = [
        ("/v1/rerank", json.dumps({"query": "fruit", "documents": [document] * 2048, "x": "y" * 13_900_000})),
        ("/v1/rerank", f'{{"query": "fruit", "documents": ["x"], "more": {empty}}}'),
        ("/v1/embeddings", f'{{"input": {empty}}}'),
        ("/v1/embeddings", f'{{"input": [{",".join(["5"] * 7_900_000)}]}}'),
        ("/v1/embeddings", json.dumps({"input": ["a " * 7_900_000]})),
        ("/v1/rerank", "[" * 16_000_000),
    ]
    with serving(engine) as server:
        before = server.memory("VmHWM")
        statuses: Counter[str] = Counter()

        def call(number: int) -> None:
            path, body = bodies[number % len(bodies)]
            try:
                status = str(server.ask(server.connect(), path, body.encode()))
            except OSError as error:
                status = type(error).__name__
            statuses[f"{path} {number % len(bodies)}: {status}"] += 1

        started = time.perf_counter()
        threads = [threading.Thread(target=call, args=(i,)) for i in range(n_callers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        peak = server.memory("VmHWM") - before
    largest = max(len(body) for _, body in bodies) / MEBIBYTE
    print(f"{n_callers} callers, bodies of up to {largest:.1f} MiB, in {seconds:.0f} s: {dict(statuses)}")
    print(f"at most {peak:.0f} MB above {before:.0f} MB")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["load", "bodies"])
    parser.add_argument("--engine", default="auto")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--callers", type=int, default=128)
    options = parser.parse_args()
    print(f"load average before: {os.getloadavg()}, {os.cpu_count()} processors")
    if options.what == "load":
        measure_load(options.engine, options.connections, options.seconds)
    else:
        measure_bodies(options.engine, options.callers)
    print(f"load average after: {os.getloadavg()}")


if __name__ == "__main__":
    main()
