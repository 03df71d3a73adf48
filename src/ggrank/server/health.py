"""``/health``: whether the models compute now, proved by computing.

Knows when it last tried, and what came of it; not how a server is watched.
"""

from __future__ import annotations

import asyncio
import time
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from ggrank.errors import GgrankError
from ggrank.server.service import Service

FRESH_SECONDS = 5.0
"""A verdict is as good as new for so long."""

PROBE_SECONDS = 30.0
"""A model that has not computed two lines after this, before everything that waits, hangs."""

router = APIRouter(tags=["server"])


class Verdict(BaseModel):
    """What /health answers."""

    status: Literal["ok", "loading", "failing"]
    models: dict[str, str]


@router.head("/health", include_in_schema=False)
@router.get("/health", response_model=Verdict, responses={503: {"model": Verdict}})
async def health(request: Request, response: Response) -> Verdict:
    """200 when every model has just computed finite scores; 503 while they load, or where one does not.

    A real forward pass, at most every five seconds.
    """
    checker: Health = request.app.state.health
    verdict = await checker.verdict()
    response.status_code = 200 if verdict.status == "ok" else 503
    return verdict


class Health:
    """Remembers the last verdict, so that many who ask cost one forward pass."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = asyncio.Lock()
        self._last = Verdict(status="loading", models={})
        self._tried = float("-inf")

    async def verdict(self) -> Verdict:
        """The state of all models."""
        if not self._service.is_ready:
            return Verdict(status="loading", models={})
        async with self._lock:
            if time.monotonic() - self._tried >= FRESH_SECONDS:
                self._last = await self._try()
                self._tried = time.monotonic()
        return self._last

    async def _try(self) -> Verdict:
        models = {served.name: await self._try_one(served.name) for served in self._service.models()}
        is_well = all(said == "ok" for said in models.values())
        return Verdict(status="ok" if is_well else "failing", models=models)

    async def _try_one(self, name: str) -> str:
        try:
            is_finite = await asyncio.wait_for(self._service.probe(name), PROBE_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):
            return f"no answer after {PROBE_SECONDS:g} s"
        except GgrankError as error:
            return str(error)
        return "ok" if is_finite else "scores are not finite"
