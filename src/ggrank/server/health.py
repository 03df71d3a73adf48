"""What those who watch over the server ask: ``/health`` and ``/metrics``."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from ggrank.errors import GgrankError
from ggrank.server.service import Service
from ggrank.server.worker import Outcome, SharedLlama

FRESH_SECONDS = 5.0
"""A micro-batch that ended well proves for so long that the model computes."""

PROBE_SECONDS = 0.5
"""How long an answer waits for the forward pass of an idle model; then the running micro-batch counts."""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
TENTHS = tuple(i / 10 for i in range(1, 11))
SHARERS = (1, 2, 4, 8, 16, 32, 64)

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
    one computes two lines, at most every five seconds. One that was unloaded is well, and stays so.
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
        timeout = self._service.settings.health_timeout
        if pulse.running_seconds is not None and pulse.running_seconds > timeout:
            return f"one micro-batch runs for {pulse.running_seconds:.0f} s (--health-timeout {timeout:g})"
        return pulse.failure or "ok"

    async def _probe(self, llama: SharedLlama) -> None:
        with suppress(GgrankError):  # `Pulse.failure` has it
            await self._service.probe(llama)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Requests, latencies, tokens, queue and micro-batches, in Prometheus' text format."""
    return Response(generate_latest(request.app.state.metrics.registry), media_type=CONTENT_TYPE_LATEST)


class Metrics:
    """The numbers of one application, in a registry of its own."""

    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"namespace": "ggrank", "registry": self.registry}
        about = "From a request's headers to the end of its answer."
        self.requests = Counter("requests", "Requests answered.", ["method", "route", "status"], **own)
        self.seconds = Histogram("request_seconds", about, ["route"], buckets=SECONDS, **own)
        requests = Gauge("queue_requests", "Requests at work or waiting.", **own)
        requests.set_function(lambda: service.n_requests)
        own["labelnames"] = ["model"]
        self._waiting = Gauge("queue_tokens", "Tokens waiting to be computed.", **own)
        self._tokens = Counter("tokens", "Tokens computed.", **own)
        self._sequences = Counter("sequences", "Sequences computed.", **own)
        about = "Time that a micro-batch took."
        self._batch_seconds = Histogram("micro_batch_seconds", about, buckets=SECONDS, **own)
        about = "Tokens of a micro-batch, as a part of the most that it may have."
        self._fill = Histogram("micro_batch_fill", about, buckets=TENTHS, **own)
        about = "Requests that shared a micro-batch."
        self._sharers = Histogram("micro_batch_requests", about, buckets=SHARERS, **own)
        service.on_loaded = self._watch
        for name, llama in service.llamas().items():
            self._watch(name, llama)

    def _watch(self, name: str, llama: SharedLlama) -> None:
        def count(computed: Outcome) -> None:
            self._tokens.labels(name).inc(computed.n_tokens)
            self._sequences.labels(name).inc(computed.n_sequences)
            self._batch_seconds.labels(name).observe(computed.seconds)
            self._fill.labels(name).observe(computed.fill)
            self._sharers.labels(name).observe(computed.n_requests)

        llama.worker.on_computed = count
        self._waiting.labels(name).set_function(lambda: llama.worker.n_waiting_tokens)
