"""``/health``: whether the models compute, by their last micro-batch, or by a new one where they are idle."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ggrank.errors import GgrankError
from ggrank.server.service import Service
from ggrank.server.worker import Pulse

FRESH_SECONDS = 5.0
"""A micro-batch that ended well proves for so long that the model computes."""

PROBE_SECONDS = 0.5
"""How long an answer waits for the forward pass of an idle model; then the running micro-batch counts."""

router = APIRouter(tags=["server"])


class Verdict(BaseModel):
    """What /health answers."""

    status: Literal["ok", "loading", "failing"]
    models: dict[str, str]


@router.head("/health", include_in_schema=False)
@router.get("/health", response_model=Verdict, responses={503: {"model": Verdict}})
async def health(request: Request, response: Response) -> Verdict:
    """200 when every model computes; 503 while they load, or where one fails or hangs. Answers at once.

    A model that computes for others is well until a micro-batch takes longer than --health-timeout. An idle
    one computes two lines, at most every five seconds.
    """
    checker: Health = request.app.state.health
    verdict = await checker.verdict()
    response.status_code = 200 if verdict.status == "ok" else 503
    return verdict


class Health:
    """Looks at what the workers do; many who ask cost one forward pass."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._probes: dict[str, asyncio.Task[None]] = {}

    async def verdict(self) -> Verdict:
        """The state of all models."""
        if not self._service.is_ready:
            return Verdict(status="loading", models={})
        names = list(self._service.llamas())
        states = await asyncio.gather(*map(self._look, names))
        models = dict(zip(names, states, strict=True))
        return Verdict(status="ok" if set(states) <= {"ok"} else "failing", models=models)

    async def _look(self, name: str) -> str:
        worker = self._service.llamas()[name].worker
        pulse = worker.pulse()
        if pulse.running_seconds is None and (pulse.failure or pulse.idle_seconds >= FRESH_SECONDS):
            probe = self._probes.get(name)
            if probe is None or probe.done():
                # A task of its own: a caller that goes away does not cancel what others wait for.
                probe = self._probes[name] = asyncio.create_task(self._probe(name))
            await asyncio.wait({probe}, timeout=PROBE_SECONDS)
            pulse = worker.pulse()
        return _said(pulse, timeout=self._service.settings.health_timeout)

    async def _probe(self, name: str) -> None:
        with suppress(GgrankError):  # `Pulse.failure` has it
            await self._service.probe(name)


def _said(pulse: Pulse, *, timeout: float) -> str:
    if pulse.running_seconds is not None and pulse.running_seconds > timeout:
        return f"one micro-batch runs for {pulse.running_seconds:.0f} s (--health-timeout {timeout:g})"
    return pulse.failure or "ok"
