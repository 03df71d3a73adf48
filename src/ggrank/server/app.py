"""The ASGI application: which routes there are, what a request passes before them, the page and the docs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import resources
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from ggrank import __version__
from ggrank.errors import GgrankError
from ggrank.server import health
from ggrank.server.dialects import embed, models, rerank, search, tokens
from ggrank.server.errors import answer, answer_to
from ggrank.server.gates import Gate, Observed
from ggrank.server.intake import Intake
from ggrank.server.service import Service
from ggrank.server.settings import ServerSettings

PAGE = Path(str(resources.files("ggrank.server"))) / "page"

PAGE_HEADERS = {
    "Cache-Control": "no-store",
    # The page may load nothing but its own two files, ask nothing but this server, and be in no frame. Where
    # the browser knows Trusted Types, no script can turn a string into HTML.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


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
    app.state.intake = Intake(settings)
    app.state.metrics = health.Metrics(service)
    app.state.health = health.Health(service)
    for module in (rerank, embed, tokens, models, health, *([search] if settings.index else [])):
        app.include_router(module.router)
    app.add_api_route("/", _page, methods=["GET", "HEAD"], include_in_schema=False)
    app.mount("/page", StaticFiles(directory=PAGE))
    _add_error_handlers(app)
    _add_gates(app, settings, access_log=access_log)
    _correct_description(app, has_key=settings.api_key is not None)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    unloading = asyncio.create_task(_unload_idle(service))
    yield
    unloading.cancel()
    with suppress(asyncio.CancelledError):
        await unloading
    await run_in_threadpool(service.close)


async def _unload_idle(service: Service) -> None:
    minutes = service.settings.idle_unload
    while minutes is not None:
        await asyncio.sleep(min(10.0, 60 * minutes))
        await run_in_threadpool(service.unload_idle)


async def _page(request: Request) -> Response:
    """The page; it needs no key, holds nothing of this server's, and asks for a key when the server does."""
    html = (PAGE / "index.html").read_text("utf-8")
    if request.app.state.service.settings.index is not None:
        html = html.replace('id="search" hidden', 'id="search"')
    return Response(html, media_type="text/html", headers=PAGE_HEADERS)


def _add_gates(app: FastAPI, settings: ServerSettings, *, access_log: bool) -> None:
    """What a request passes before a route sees it; the last one that is added comes first."""
    app.add_middleware(Gate, settings=settings)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # the SDKs of OpenAI and Cohere send some of their own
            expose_headers=["Retry-After", "x-compute-tokens", "x-truncated"],
        )
    app.add_middleware(Observed, metrics=app.state.metrics, access_log=access_log)


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(GgrankError)
    async def refuse(request: Request, error: GgrankError) -> Response:
        return answer_to(request.scope, error)

    @app.exception_handler(HTTPException)
    async def misdirected(request: Request, error: HTTPException) -> Response:
        path, message = request.scope["path"][:100], str(error.detail)
        if error.status_code == 404:
            message = f"there is nothing at {path}; /docs lists what there is"
        if error.status_code == 405:
            methods = (error.headers or {}).get("Allow", "GET")
            message = f"{path} takes {methods}, found {request.method[:20]}; /docs shows how to ask"
        return answer(request.scope, error.status_code, message, headers=error.headers)


def _correct_description(app: FastAPI, *, has_key: bool) -> None:
    """Leaves FastAPI's own shape of an error out of OpenAPI, since no request gets it; adds the key."""
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
