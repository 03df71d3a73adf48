"""llama-server on the same GGUF, asked over HTTP as its users ask it.

Knows the server's flags and routes; its process is a child of the one that runs this.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.benchmark.subjects import Subject
from ggrank.errors import EngineError

N_SLOTS = 16
"""Sequences that it works on at once: more fill its micro-batches better, and past 16 nothing was gained.
Nor was anything by micro-batches of 2,048 tokens in place of 512."""

SECONDS_TO_START = 120


def load(subject: Subject) -> ServerRunner:
    """Starts the server and waits until it answers."""
    return ServerRunner(subject)


class ServerRunner:
    """A running server."""

    def __init__(self, subject: Subject) -> None:
        self._port = _free_port()
        self._is_reranker = subject.job == "rerank"
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            _command(subject, self._port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.pid = self._process.pid
        self._wait()

    def run(self, query: str, documents: Sequence[str]) -> NDArray[Any]:
        """See `ggrank.benchmark.subjects.Runner`."""
        if self._is_reranker:
            answer = self._ask("/v1/rerank", {"query": query, "documents": list(documents)})
            logits = np.empty(len(documents), np.float32)
            for result in answer["results"]:
                logits[result["index"]] = result["relevance_score"]
            return logits
        answer = self._ask("/v1/embeddings", {"input": list(documents)})
        return np.array([one["embedding"] for one in answer["data"]], np.float32)

    def close(self) -> None:
        """Ends the server."""
        self._process.kill()
        self._process.wait()

    def _ask(self, route: str, question: dict[str, Any]) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port)
        try:
            body = json.dumps(question).encode()
            connection.request("POST", route, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise EngineError(
                f"llama-server answered {answer.status}: {text[:300].decode('utf-8', 'replace')}"
            )
        return json.loads(text)

    def _wait(self) -> None:
        """Until it is healthy; asked often, because the time counts."""
        while not self._is_healthy():
            if self._process.poll() is not None:
                raise EngineError(f"llama-server ended with exit code {self._process.returncode}")
            if time.monotonic() > self.started + SECONDS_TO_START:
                self.close()
                raise EngineError(f"llama-server was not ready after {SECONDS_TO_START} seconds")
            time.sleep(0.005)

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


def _command(subject: Subject, port: int) -> list[str]:
    threads, slots = str(subject.n_threads), str(N_SLOTS)
    return [
        subject.server, "--model", subject.path, "--host", "127.0.0.1", "--port", str(port),
        "--reranking" if subject.job == "rerank" else "--embedding",
        "--threads", threads, "--threads-batch", threads, "--threads-http", slots,
        "--parallel", slots, "--ctx-size", str(N_SLOTS * subject.n_ctx),
        "--batch-size", "2048", "--ubatch-size", str(subject.n_ctx), "--device", "none",
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])
