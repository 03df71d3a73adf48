"""The ASGI application: the dialects' routes, health, metrics, the page, and what stands before them.

Knows their order; not what any of them does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from ggrank import __version__
from ggrank.errors import GgrankError
from ggrank.server import health, metrics, page
from ggrank.server.answers import answer, answer_to, answer_to_validation, bad_input
from ggrank.server.dialects import ROUTERS
from ggrank.server.keys import checked_key
from ggrank.server.security import ApiKeyGate, BodyGate, HostGate
from ggrank.server.service import Service
from ggrank.server.settings import ServerSettings


def build_app(service: Service, settings: ServerSettings, *, access_log: bool) -> FastAPI:
    """The application; see `ggrank.server.create_app`."""
    app = FastAPIOffline(
        redoc_url=None,
        static_url="/docs-assets",
        swagger_ui_parameters={"validatorUrl": None},  # else it sends the document's address to a web site
        title="ggrank",
        version=__version__,
        summary="Reranking and embeddings on this machine, in the dialects of other servers.",
        lifespan=_lifespan,
    )
    app.state.service = service
    app.state.metrics = metrics.Metrics(service)
    app.state.health = health.Health(service)
    for router in (*ROUTERS, health.router, metrics.router, page.router):
        app.include_router(router)
    _add_error_handlers(app)
    _add_gates(app, settings, access_log=access_log)
    _correct_description(app, has_key=settings.api_key is not None)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    await run_in_threadpool(app.state.service.close)


def _add_gates(app: FastAPI, settings: ServerSettings, *, access_log: bool) -> None:
    """What a request passes before a route sees it; the last one that is added comes first."""
    app.add_middleware(BodyGate, max_bytes=settings.max_bytes, timeout=settings.timeout)
    if settings.api_key is not None:
        app.add_middleware(ApiKeyGate, api_key=checked_key(settings.api_key))
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # the SDKs of OpenAI and Cohere send some of their own
            expose_headers=["Retry-After", "x-compute-tokens", "x-truncated"],
        )
    if settings.api_key is None and settings.is_on_loopback:
        app.add_middleware(HostGate, allowed=settings.allowed_hosts)
    app.add_middleware(metrics.Observed, metrics=app.state.metrics, access_log=access_log)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(GgrankError)
    async def ours(request: Request, error: GgrankError) -> Response:
        return answer_to(request.scope, error)

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, error: RequestValidationError) -> Response:
        return answer_to_validation(request.scope, error.errors())

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:  # FastAPI's words for what json.loads does not even call bad JSON.
            return bad_input(request.scope, "cannot be read; send JSON in UTF-8", field="body")
        return answer(request.scope, error.status_code, _told(request, error), headers=error.headers)


def _told(request: Request, error: HTTPException) -> str:
    """Which path or method is wrong, and where the right ones are."""
    path = request.scope["path"][:100]
    if error.status_code == 404:
        return f"there is nothing at {path}; /docs lists what there is"
    if error.status_code == 405:
        methods = (error.headers or {}).get("Allow", "GET")
        return f"{path} takes {methods}, found {request.method[:20]}; /docs shows how to ask"
    return str(error.detail)


def _correct_description(app: FastAPI, *, has_key: bool) -> None:
    """Leaves FastAPI's own shape of an error out of OpenAPI, since nobody answers with it; adds the key."""
    document = app.openapi()
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    for responses in (operation["responses"] for operation in operations):
        if "HTTPValidationError" in str(responses.get("422")):
            del responses["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)
    if has_key:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
