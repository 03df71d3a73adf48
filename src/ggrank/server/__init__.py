"""``ggrank serve``: one process that answers in every rerank dialect, as an ASGI application.

Knows nothing until `create_app` is called: that needs the extra ``server``, importing this does not.
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
