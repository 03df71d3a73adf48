"""What those who watch over the server ask: ``/health``, ``/metrics``, and the log's line for each request.

Numbers and log hold routes, statuses and counts; never a query string, a header, a body or an error's words,
because any of them may hold a text that somebody asked about.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette._utils import get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from ggrank.errors import GgrankError
from ggrank.server.errors import GONE, answer
from ggrank.server.gates import OPEN_FOLDERS, OPEN_PATHS
from ggrank.server.service import Service
from ggrank.server.worker import Computed, Pulse, SharedLlama

FRESH_SECONDS = 5.0
"""A micro-batch that ended well proves for so long that the model computes."""

PROBE_SECONDS = 0.5
"""How long an answer waits for the forward pass of an idle model; then the running micro-batch counts."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TENTHS = tuple(i / 10 for i in range(1, 11))
SHARERS = (1, 2, 4, 8, 16, 32, 64)

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are counted together: a caller must not be able to make up labels without end."""

log = logging.getLogger("ggrank.server")
router = APIRouter(tags=["server"])


class HealthAnswer(TypedDict):
    """What /health answers."""

    status: Literal["ok", "loading", "failing"]
    models: dict[str, str]


@router.head("/health", include_in_schema=False)
@router.get("/health", responses={503: {"model": HealthAnswer}})
async def health(request: Request, response: Response) -> HealthAnswer:
    """200 when every model computes; 503 while they load, or where one fails or hangs. Answers at once.

    A model that computes for others is well until a micro-batch takes longer than --health-timeout. An idle
    one computes two lines, at most every five seconds. One that was unloaded
    is well, and is not loaded for this.
    """
    verdict: HealthAnswer = await request.app.state.health.verdict()
    response.status_code = 200 if verdict["status"] == "ok" else 503
    return verdict


class Health:
    """Looks at what the workers do; many who ask cost one forward pass."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._probes: dict[str, asyncio.Task[None]] = {}

    async def verdict(self) -> HealthAnswer:
        """The state of all models."""
        if not self._service.is_ready:
            return HealthAnswer(status="loading", models={})
        llamas = self._service.llamas()
        states = await asyncio.gather(*(self._look(name, llama) for name, llama in llamas.items()))
        models = {
            **dict.fromkeys([one.name for one in self._service.models()], "unloaded"),
            **dict(zip(llamas, states, strict=True)),
        }
        return HealthAnswer(status="ok" if set(states) <= {"ok"} else "failing", models=models)

    async def _look(self, name: str, llama: SharedLlama) -> str:
        pulse = llama.worker.pulse()
        if pulse.running_seconds is None and (pulse.failure or pulse.idle_seconds >= FRESH_SECONDS):
            probe = self._probes.get(name)
            if probe is None or probe.done():
                # A task of its own: a caller that goes away does not cancel what others wait for.
                probe = self._probes[name] = asyncio.create_task(self._probe(llama))
            await asyncio.wait({probe}, timeout=PROBE_SECONDS)
            pulse = llama.worker.pulse()
        return _state(pulse, timeout=self._service.settings.health_timeout)

    async def _probe(self, llama: SharedLlama) -> None:
        with suppress(GgrankError):  # `Pulse.failure` has it
            await self._service.probe(llama)


def _state(pulse: Pulse, *, timeout: float) -> str:
    if pulse.running_seconds is not None and pulse.running_seconds > timeout:
        return f"one micro-batch runs for {pulse.running_seconds:.0f} s (--health-timeout {timeout:g})"
    return pulse.failure or "ok"


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Requests, latencies, tokens, queue and micro-batches, in Prometheus' text format."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


class Metrics:
    """The numbers of one application, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self.registry = registry = CollectorRegistry()
        self._service = service

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"ggrank_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"ggrank_{name}", about, labels, registry=registry)

        def histogram(name: str, about: str, label: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"ggrank_{name}", about, [label], registry=registry, buckets=buckets)

        self.requests = counter("requests", "Requests answered.", "method", "route", "status")
        about = "From a request's headers to the end of its answer."
        self.seconds = histogram("request_seconds", about, "route", SECONDS)
        waiting = gauge("queue_requests", "Requests at work or waiting.")
        waiting.set_function(lambda: service.n_requests)
        self._waiting = gauge("queue_tokens", "Tokens waiting to be computed.", "model")
        self._tokens = counter("tokens", "Tokens computed.", "model")
        self._sequences = counter("sequences", "Sequences computed.", "model")
        about = "Time that a micro-batch took."
        self._batch_seconds = histogram("micro_batch_seconds", about, "model", SECONDS)
        about = "Tokens of a micro-batch, as a part of the most that it may have."
        self._fill = histogram("micro_batch_fill", about, "model", TENTHS)
        about = "Requests that shared a micro-batch."
        self._sharers = histogram("micro_batch_requests", about, "model", SHARERS)
        service.on_loaded = self._watch
        for name, llama in service.llamas().items():
            self._watch(name, llama)

    def _watch(self, name: str, llama: SharedLlama) -> None:
        def count(computed: Computed) -> None:
            self._tokens.labels(name).inc(computed.n_tokens)
            self._sequences.labels(name).inc(computed.n_sequences)
            self._batch_seconds.labels(name).observe(computed.seconds)
            self._fill.labels(name).observe(computed.fill)
            self._sharers.labels(name).observe(computed.n_requests)

        def n_waiting() -> int:
            loaded = self._service.llamas().get(name)
            return loaded.worker.n_waiting_tokens if loaded else 0

        llama.worker.on_computed = count
        self._waiting.labels(name).set_function(n_waiting)


class Observed:
    """Counts and logs every request; an error that was not foreseen ends here, as 500 without its words."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, access_log: bool) -> None:
        self._app, self._metrics = app, metrics
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, path = 0, get_route_path(scope)

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
            self._note(scope, path, status or GONE, time.perf_counter() - started)

    def _note(self, scope: Scope, path: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = getattr(scope.get("route"), "path", None) or _page_of_docs(path)
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.seconds.labels(route).observe(seconds)
        if self._access_log:
            log.info("%s %s %d %.0f ms", method, route, status, 1000 * seconds)


def _page_of_docs(path: str) -> str:
    """What FastAPI answers besides our routes, under names that callers cannot make up."""
    folder = next((folder for folder in OPEN_FOLDERS if path.startswith(folder)), "unknown")
    return path if path in OPEN_PATHS else folder
