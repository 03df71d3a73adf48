"""How a request becomes an answer: its body is read within limits, and all else runs in a thread of its own.

The event loop only moves bytes. JSON is parsed and checked, texts become tokens, and the answer becomes bytes
in the request's thread, so that a large request holds up no other.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, get_type_hints

import orjson
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ggrank.server.errors import GONE, SPEAKS_TEI, TEI_SHARES, RefusedError, refused_fields, route_of
from ggrank.server.settings import MEBIBYTE, ServerSettings

FREE_BYTES = MEBIBYTE // 4
"""Of every body so much is read whatever else is in memory: small requests never wait for large ones."""

ROOM_BYTES = 48 * MEBIBYTE
"""For all larger bodies together. A request takes up to six times its body's bytes while it is at work."""

STALLED_SECONDS = 10.0
"""A large upload that sends nothing for so long is ended: others need its room."""

DRAIN_SECONDS = 5.0
"""How long the rest of a refused body is still read, so that its sender sees the answer."""

_parser = ThreadPoolExecutor(1, thread_name_prefix="ggrank-parser")
"""For large bodies, one at a time: 16 MB of brackets are 320 MB of empty lists. Always in the same thread,
because glibc keeps memory for each thread that has used much."""


class JsonAnswer(Response):
    """JSON by orjson, which writes NumPy's rows too. Made in the request's thread."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes."""
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


class ThreadRoute(APIRoute):
    """A route whose function runs in a thread. FastAPI describes it; it neither reads nor checks the body.

    The function takes ``request``, whose type is what the body must be, and ``service``; it returns what
    becomes JSON, or a response.
    """

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The handler that Starlette calls."""
        adapter = TypeAdapter[Any](get_type_hints(self.endpoint, include_extras=True)["request"])
        answer = partial(_answer, adapter=adapter, endpoint=self.endpoint)

        async def handle(request: Request) -> Response:
            intake: Intake = request.app.state.intake
            return await intake.handle(request, answer)

        return handle


def _answer(request: Request, body: bytearray, *, adapter: TypeAdapter[Any], endpoint: Any) -> Response:
    """The whole work of a request, in its thread."""
    service = request.app.state.service
    read = partial(_checked, body, request, adapter, service.settings)
    checked = _parser.submit(read).result() if len(body) > FREE_BYTES else read()
    found = endpoint(checked, service)
    return found if isinstance(found, Response) else JsonAnswer(found)


def _checked(body: bytearray, request: Request, adapter: TypeAdapter[Any], settings: ServerSettings) -> Any:
    """What the body asks; from here on its bytes are not in memory any more."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body:
        raise _bad("empty; send a JSON object with the fields that /docs describes")
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise _bad("send it with the header Content-Type: application/json")
    content = _load(body)
    body.clear()
    if route_of(request.scope) in TEI_SHARES:
        request.scope[SPEAKS_TEI] = isinstance(content, dict) and "texts" in content
    try:
        return adapter.validate_python(content, context=settings)
    except ValidationError as error:
        raise refused_fields(error.errors(include_url=False)) from None


def _bad(reason: str) -> RefusedError:
    return RefusedError(f"body: {reason}", field="body")


def _load(body: bytearray) -> Any:
    try:
        return orjson.loads(body)
    except ValueError as error:
        reason = str(error)
    try:  # Python's reader takes more: halves of a surrogate pair, as JavaScript sends them.
        return json.loads(body, parse_constant=_not_finite, parse_float=_finite)
    except RecursionError:
        raise _bad("lists or objects are nested too deeply") from None
    except ValueError:
        raise _bad(f"not JSON: {reason}") from None


def _finite(written: str) -> float:
    value = float(written)
    return _not_finite(written) if abs(value) == float("inf") else value


def _not_finite(written: str) -> NoReturn:
    raise _bad("NaN, Infinity and numbers beyond a double's range cannot be used")


def _too_many_bytes(max_bytes: int) -> RefusedError:
    return RefusedError(
        f"the body has more than {max_bytes:,} bytes; send less at once, or start the server with a larger "
        "--max-bytes",
        status=413,
    )


class _Upload:
    """A body that is being read, and the bytes of room that it has."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.body = bytearray()
        self.taken = 0
        self.has_more = True

    async def receive(self) -> None:
        message = await self.request.receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        self.has_more = message.get("more_body", False)
        self.body += message.get("body", b"")

    async def drain(self) -> None:
        """Reads the rest for a while and drops it."""
        with suppress(TimeoutError, asyncio.TimeoutError, ConnectionResetError):
            end = time.monotonic() + DRAIN_SECONDS
            while self.has_more:
                self.body.clear()
                await asyncio.wait_for(self.receive(), end - time.monotonic())


class Intake:
    """Lets requests in: refuses before it reads, and holds as many bytes of bodies as there is room for.

    A body of more than `FREE_BYTES` takes room for all its bytes before they are read, in the order of
    asking, and keeps it until the request has its answer. An upload that stalls loses it.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._max_bytes, self._timeout = settings.max_bytes, settings.timeout
        self._free = max(ROOM_BYTES, settings.max_bytes)
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()

    async def handle(self, request: Request, answer: Callable[[Request, bytearray], Response]) -> Response:
        """The answer to a request. ``answer`` makes it of the body, in a thread."""
        service = request.app.state.service
        upload = _Upload(request)
        try:
            service.check_queue()
            await asyncio.wait_for(self._read(upload), self._timeout)
            work = service.in_thread(partial(answer, request, upload.body))
            return await _unless_gone(request, asyncio.ensure_future(work))
        except RefusedError:
            if "expect" not in request.headers:  # else the sender waits for leave to send
                await upload.drain()
            raise
        except (TimeoutError, asyncio.TimeoutError):
            raise RefusedError(
                f"the body was not there after {self._timeout:g} s, or nothing of it came for "
                f"{STALLED_SECONDS:g} s",
                status=408,
            ) from None
        except ConnectionResetError:
            return Response(status_code=GONE)  # which reaches the log and the numbers alone
        finally:
            self._free += upload.taken
            self._given_back.set()

    async def _read(self, upload: _Upload) -> None:
        n_bytes = self._declared(upload.request)
        while upload.has_more:
            if not upload.taken and max(n_bytes, len(upload.body)) > FREE_BYTES:
                upload.taken = await self._take(n_bytes or self._max_bytes)
            await asyncio.wait_for(upload.receive(), STALLED_SECONDS if upload.taken else None)
            if len(upload.body) > self._max_bytes:
                raise _too_many_bytes(self._max_bytes)

    def _declared(self, request: Request) -> int:
        """Bytes that the body will have in memory, as its headers say; 0: they do not."""
        length = request.headers.get("content-length", "")
        n_bytes = int(length[:20]) if length.isascii() and length.isdigit() else 0
        if n_bytes > self._max_bytes:
            raise _too_many_bytes(self._max_bytes)
        if request.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
            raise RefusedError("send the body without Content-Encoding; packed ones are not read", status=415)
        return n_bytes

    async def _take(self, n_bytes: int) -> int:
        async with self._turn:
            while self._free < n_bytes:
                self._given_back.clear()
                await self._given_back.wait()
            self._free -= n_bytes
        return n_bytes


async def _unless_gone(request: Request, work: asyncio.Future[Response]) -> Response:
    """What the work gives. It is cancelled for a caller that goes away."""

    async def disconnect() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.ensure_future(disconnect())
    both: set[asyncio.Future[Any]] = {work, gone}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ConnectionResetError
        return work.result()
    finally:
        work.cancel()
        gone.cancel()
