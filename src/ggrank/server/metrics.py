"""What happens, in numbers for Prometheus and in one log line a request.

Knows routes, statuses and counts; never a query string, a header, a body or an error's words, because any of
them may hold a text that somebody asked about.
"""

from __future__ import annotations

import logging
import time
import traceback

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ggrank.server.answers import answer
from ggrank.server.security import OPEN_FOLDER, OPEN_PATHS
from ggrank.server.service import Service
from ggrank.server.shared import SharedLlama
from ggrank.server.worker import Computed

log = logging.getLogger("ggrank.server")

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TENTHS = tuple(i / 10 for i in range(1, 11))
SHARERS = (1, 2, 4, 8, 16, 32, 64)

router = APIRouter(tags=["server"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Requests, latencies, tokens, queue and micro-batches, in Prometheus' text format."""
    found: Metrics = request.app.state.metrics
    return Response(generate_latest(found.registry), media_type=CONTENT_TYPE_LATEST)


class Metrics:
    """The numbers of one application, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "ggrank_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "ggrank_request_seconds",
            "From a request's headers to the end of its answer.",
            ["route"],
            registry=registry,
            buckets=SECONDS,
        )
        waiting = Gauge("ggrank_queue_requests", "Requests at work or waiting.", registry=registry)
        waiting.set_function(lambda: service.n_requests)
        self._tokens_waiting = Gauge(
            "ggrank_queue_tokens", "Tokens waiting to be computed.", ["model"], registry=registry
        )
        self._tokens = Counter("ggrank_tokens", "Tokens computed.", ["model"], registry=registry)
        self._sequences = Counter("ggrank_sequences", "Sequences computed.", ["model"], registry=registry)
        self._batch_seconds = Histogram(
            "ggrank_micro_batch_seconds",
            "Time that a micro-batch took.",
            ["model"],
            registry=registry,
            buckets=SECONDS,
        )
        self._batch_fill = Histogram(
            "ggrank_micro_batch_fill",
            "Tokens of a micro-batch, as a part of the most that it may have.",
            ["model"],
            registry=registry,
            buckets=TENTHS,
        )
        self._batch_requests = Histogram(
            "ggrank_micro_batch_requests",
            "Requests that shared a micro-batch.",
            ["model"],
            registry=registry,
            buckets=SHARERS,
        )
        service.on_added = self._watch
        for name, llama in service.llamas().items():
            self._watch(name, llama)

    def _watch(self, name: str, llama: SharedLlama) -> None:
        worker = llama.worker
        self._tokens_waiting.labels(name).set_function(lambda: worker.n_waiting_tokens)
        tokens, sequences = self._tokens.labels(name), self._sequences.labels(name)
        seconds, fill = self._batch_seconds.labels(name), self._batch_fill.labels(name)
        requests = self._batch_requests.labels(name)

        def count(computed: Computed) -> None:
            tokens.inc(computed.n_tokens)
            sequences.inc(computed.n_sequences)
            seconds.observe(computed.seconds)
            fill.observe(computed.fill)
            requests.observe(computed.n_requests)

        worker.on_computed = count


class Observed:
    """Counts and logs every request; an error that nobody foresaw ends here, as 500 without its words."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, access_log: bool) -> None:
        self._app, self._metrics = app, metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            await self._app(scope, receive, note)
        except Exception as error:
            frames = "".join(traceback.format_tb(error.__traceback__))
            log.error("%s, which is a bug of ggrank:\n%s", type(error).__name__, frames)
            if not status:
                await answer(scope, 500, "ggrank failed; its log says where")(scope, receive, note)
        finally:
            self._note(scope, status or GONE, time.perf_counter() - started)

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = getattr(scope.get("route"), "path", None) or _page_of_docs(scope["path"])
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if self._access_log:
            log.info("%s %s %d %.0f ms", method, route, status, 1000 * seconds)


def _page_of_docs(path: str) -> str:
    """What FastAPI answers besides our routes, under names that nobody can make up."""
    if path.startswith(OPEN_FOLDER):
        return OPEN_FOLDER
    return path if path in OPEN_PATHS else "unknown"


GONE = 499
"""The status in numbers and log of a request whose caller went away; nginx has it so."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are counted together: a caller must not be able to make up labels without end."""
