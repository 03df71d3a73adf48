"""How a request becomes an answer: its body is read within limits, and all else runs in a thread of its own.

The event loop only moves bytes. JSON is parsed and checked, texts become tokens, and the answer becomes bytes
in the request's thread, so that a large request holds up no other.
"""

from __future__ import annotations

import asyncio
import json
import time
import zlib
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

from ggrank.server.errors import GONE, SPEAKS_TEI, TEI_FIELDS, RefusedError, refused_fields, route_of
from ggrank.server.settings import MEBIBYTE, ServerSettings

FREE_BYTES = MEBIBYTE // 4
"""Of every body so much is read whatever else is in memory: small requests never wait for large ones."""

ROOM_BYTES = 48 * MEBIBYTE
"""For all larger bodies together. A request takes up to six times its body's bytes while it is at work."""

STALLED_SECONDS = 5.0
"""An upload that sends nothing for so long is ended when another one needs its room."""

DRAIN_SECONDS = 5.0
"""How long the rest of a refused body is still read, so that its sender sees the answer."""

MOST_GZIP_GAIN = 1032
"""Bytes that one byte of deflate becomes at most: https://zlib.net/zlib_tech.html."""

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
    may_be_large = len(body) > FREE_BYTES or "content-encoding" in request.headers
    checked = _parser.submit(read).result() if may_be_large else read()
    found = endpoint(checked, service)
    return found if isinstance(found, Response) else JsonAnswer(found)


def _checked(body: bytearray, request: Request, adapter: TypeAdapter[Any], settings: ServerSettings) -> Any:
    """What the body asks; from here on its bytes are not in memory any more."""
    content = parse(body, request, max_bytes=settings.max_bytes)
    body.clear()
    try:
        return adapter.validate_python(content, context=settings)
    except ValidationError as error:
        raise refused_fields(error.errors(include_url=False)) from None


def parse(body: bytearray, request: Request, *, max_bytes: int) -> Any:
    """The body as JSON; notes in the request's scope whose fields it has.

    Raises:
        RefusedError: not JSON, or not said to be; numbers that are not finite; nested beyond any use.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body:
        raise RefusedError("empty; send a JSON object with the fields that /docs describes", field="body")
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise RefusedError("send the body with the header Content-Type: application/json", field="body")
    content = _load(_unpacked(body, request.headers.get("content-encoding", ""), max_bytes))
    if isinstance(content, dict) and TEI_FIELDS.get(route_of(request.scope)) in content:
        request.scope[SPEAKS_TEI] = True
    return content


def _load(body: bytearray | bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError as error:
        reason = str(error)
    try:  # Python's reader takes more: halves of a surrogate pair, as JavaScript sends them.
        return json.loads(body, parse_constant=_not_finite, parse_float=_finite)
    except RecursionError:
        raise RefusedError("lists or objects are nested too deeply", field="body") from None
    except ValueError:
        raise RefusedError(f"not JSON: {reason}", field="body") from None


def _finite(written: str) -> float:
    value = float(written)
    return _not_finite(written) if abs(value) == float("inf") else value


def _not_finite(written: str) -> NoReturn:
    raise RefusedError("NaN, Infinity and numbers beyond a double's range cannot be used", field="body")


def _unpacked(body: bytearray, encoding: str, max_bytes: int) -> bytearray | bytes:
    """The body without gzip around it."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip"):
        raise RefusedError("Content-Encoding must be gzip or absent", status=415)
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise RefusedError(f"not gzip, as Content-Encoding says ({error})", field="body") from None
    if len(plain) > max_bytes:
        raise too_many_bytes(max_bytes)
    if not unpacker.eof or unpacker.unused_data:
        raise RefusedError("the gzip data is cut off, or more follows it", field="body")
    return plain


def too_many_bytes(max_bytes: int) -> RefusedError:
    """The refusal of a body that is too large."""
    return RefusedError(
        f"the body has more than {max_bytes:,} bytes; send less at once, or start the server with a larger "
        "--max-bytes",
        status=413,
    )


class _Upload:
    """A body that is being read, and the room that it has."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.body = bytearray()
        self.taken = 0
        self.has_more = True
        self.last_seen = time.monotonic()
        self.reading: asyncio.Task[None] | None = None

    async def receive(self) -> None:
        """Adds the next part."""
        message = await self.request.receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        self.last_seen = time.monotonic()
        self.has_more = message.get("more_body", False)
        self.body += message.get("body", b"")

    async def drain(self) -> None:
        """Reads the rest for a while and drops it, so that its sender sees the answer."""
        with suppress(TimeoutError, asyncio.TimeoutError, ConnectionResetError):
            end = time.monotonic() + DRAIN_SECONDS
            while self.has_more:
                self.body.clear()
                await asyncio.wait_for(self.receive(), end - time.monotonic())


class Intake:
    """Lets requests in: refuses before it reads, and holds as many bytes of bodies as there is room for.

    A body of more than `FREE_BYTES` takes room for all its bytes before they are read, in the order of
    asking, and keeps it until the request has its answer. An upload that stalls loses it to others that wait.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self._max_bytes, self._timeout = settings.max_bytes, settings.timeout
        self._free = max(ROOM_BYTES, settings.max_bytes)
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()
        self._uploads: set[_Upload] = set()

    async def handle(self, request: Request, answer: Callable[[Request, bytearray], Response]) -> Response:
        """The answer to a request. ``answer`` makes it of the body, in a thread."""
        service = request.app.state.service
        upload = _Upload(request)
        try:
            await self._read(upload, service.check_queue)
            work = service.in_thread(partial(answer, request, upload.body))
            return await _unless_gone(request, asyncio.ensure_future(work))
        except ConnectionResetError:
            return Response(status_code=GONE)  # which reaches the log and the numbers alone
        finally:
            self._free += upload.taken
            self._given_back.set()

    async def _read(self, upload: _Upload, check_queue: Callable[[], None]) -> None:
        """Reads all of it.

        Raises:
            RefusedError: too many requests are in; it is too large, or does not come.
        """
        upload.reading = asyncio.ensure_future(self._read_within(upload, check_queue))
        self._uploads.add(upload)
        try:
            await asyncio.wait({upload.reading}, timeout=self._timeout)
            if not upload.reading.done() or upload.reading.cancelled():
                raise RefusedError(
                    f"the body was not there after {self._timeout:g} s, or stalled while others needed room",
                    status=408,
                )
            upload.reading.result()
        finally:
            self._uploads.discard(upload)
            upload.reading.cancel()

    async def _read_within(self, upload: _Upload, check_queue: Callable[[], None]) -> None:
        try:
            check_queue()
            n_bytes = self._declared(upload.request)
            while upload.has_more:
                if not upload.taken and max(n_bytes, len(upload.body)) > FREE_BYTES:
                    upload.taken = await self._take(n_bytes or self._max_bytes)
                await upload.receive()
                if len(upload.body) > self._max_bytes:
                    raise too_many_bytes(self._max_bytes)
        except RefusedError:
            if "expect" not in upload.request.headers:  # else the sender waits for leave to send
                await upload.drain()
            raise

    def _declared(self, request: Request) -> int:
        """Bytes that the body will have in memory, as its headers say; 0: they do not."""
        length = request.headers.get("content-length", "")
        n_bytes = int(length[:20]) if length.isascii() and length.isdigit() else 0
        if n_bytes > self._max_bytes:
            raise too_many_bytes(self._max_bytes)
        if request.headers.get("content-encoding"):
            return min(self._max_bytes, MOST_GZIP_GAIN * n_bytes)
        return n_bytes

    async def _take(self, n_bytes: int) -> int:
        async with self._turn:
            while self._free < n_bytes:
                self._given_back.clear()
                with suppress(TimeoutError, asyncio.TimeoutError):
                    await asyncio.wait_for(self._given_back.wait(), STALLED_SECONDS / 10)
                self._end_stalled()
            self._free -= n_bytes
        return n_bytes

    def _end_stalled(self) -> None:
        """Ends the upload that has sent nothing for longest, if that is long."""
        holding = [upload for upload in self._uploads if upload.taken]
        stalled = min(holding, key=lambda upload: upload.last_seen, default=None)
        if stalled and stalled.reading and time.monotonic() - stalled.last_seen > STALLED_SECONDS:
            stalled.reading.cancel()


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
