"""Servers for tests: the application behind real sockets here, and the command in a process of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import uvicorn
from numpy.typing import NDArray

from command_line import ENVIRONMENT
from ggrank import LlamaParams
from ggrank.loading.model import load_model
from ggrank.server import ServerSettings, create_app, health
from ggrank.server.service import ServedModel, Service
from ggrank.server.worker import SharedLlama
from ggrank.types import Engine, TokenIds

EMBEDDER = "all-minilm-l6-v2"
RERANKER = "ggrank-reranker-mini"
LONG = 600.0
"""Seconds that a test waits for what takes milliseconds on a machine with nothing else to do."""

health.PROBE_SECONDS = LONG  # a busy machine takes its time for a forward pass


class FlakyEngine:
    """A real engine that a test can stop, and that can go wrong."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.may_run = threading.Event()
        self.may_run.set()
        self.entered = threading.Event()
        self.spoil: Callable[[NDArray[np.float32]], NDArray[np.float32]] = lambda values: values
        self.batches: list[list[TokenIds]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        self.entered.set()
        assert self.may_run.wait(LONG)
        self.batches.append(list(sequences))
        return self.spoil(self._engine.run(sequences))


def service_of(*names: str, settings: ServerSettings | None = None) -> Service:
    service = Service(settings)
    service.load([LlamaParams(name, engine="llama.cpp", n_threads=1) for name in names])
    return service


def flaky_service(
    settings: ServerSettings | None = None, params: LlamaParams | None = None
) -> tuple[Service, FlakyEngine]:
    """A reranker, by default the bundled one, on an engine that can be stopped and spoilt."""
    loaded = load_model(params or LlamaParams(RERANKER, engine="llama.cpp", n_threads=1))
    engine = FlakyEngine(loaded.engine)
    service = Service(settings)
    llama = SharedLlama(replace(loaded, engine=engine))
    service._served[RERANKER] = ServedModel(RERANKER, llama, lambda: llama)
    service.load([])
    engine.batches.clear()
    engine.entered.clear()
    return service, engine


@contextlib.contextmanager
def running(
    service: Service, settings: ServerSettings | None = None, *, access_log: bool = False
) -> Iterator[httpx.Client]:
    """A client of the application, which listens on a port that the system chose."""
    app = create_app(service, settings or service.settings, access_log=access_log)
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, http="h11", loop="asyncio", timeout_keep_alive=int(LONG)
        )
    )
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=LONG) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


@contextlib.contextmanager
def process(*args: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``ggrank serve`` on a port that the system chose, and the line that it printed."""
    child = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "ggrank",
            "serve",
            "--engine",
            "llama.cpp",
            "--n-threads",
            "1",
            "--port",
            "0",
            *args,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1", **{k: os.environ[k] for k in _OWN}, **variables},
        # A test run in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert child.stdout is not None
        yield child, child.stdout.readline().strip()
    finally:
        child.kill()
        child.communicate()


_OWN = ("GGRANK_CACHE_DIR", "HF_HOME", "HF_HUB_OFFLINE")


def address_in(line: str) -> str:
    return next(word for word in line.split() if word.startswith("http://"))
