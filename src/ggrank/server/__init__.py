"""``ggrank serve``: one process that answers in every rerank dialect, as an ASGI application.

A request passes `app` (routes), `gates` (it is counted; host, key), `intake` (its body is read, the rest
runs in a thread), one of `dialects` (what its fields mean), `service` (which model) and `worker`
(micro-batches that all callers share). `errors` words what is refused, `health` is for those who watch,
`page` for browsers, and `settings` has all limits. `mcp` is `ggrank mcp`.

Importing this needs nothing; `create_app` needs the extra ``server``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ggrank.server.settings import ServerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ggrank.server.service import Service

__all__ = ["ServerSettings", "create_app"]


def create_app(service: Service, settings: ServerSettings, *, access_log: bool = False) -> FastAPI:
    """The application; it closes the service when it ends.

    Args:
        service: may still be loading; until it is ready, whatever needs a model is answered with 503.
        settings: the limits, the key and the origins; the address is the caller's business.
        access_log: a line for each request to the logger "ggrank.server".
    """
    from ggrank.server.app import build_app

    return build_app(service, settings, access_log=access_log)
