"""A server on loopback that answers as a test says: the published examples of each API, and failures.

Every request is kept, so that tests can count and read them.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = Any


@dataclass(frozen=True)
class Answer:
    """One answer; ``promised`` is a Content-Length that is not the body's."""

    body: Body = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None
    after: threading.Event | None = None

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Seen:
    """A request as it came in."""

    method: str
    path: str
    key: str | None
    body: Body


Reply = Answer | Callable[[Body], Answer]


@dataclass
class Stub:
    """What the server answers at each path; several answers are given in turn, the last one for ever."""

    url: str = ""
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def on(self, path: str, *replies: Reply) -> None:
        self.replies[path] = list(replies)

    def asked(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path]

    def answer(self, request: Seen) -> Answer:
        with self.lock:
            self.seen.append(request)
            replies = self.replies.get(request.path)
            if not replies:
                return Answer({"error": "Not Found"}, status=404)
            reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return reply if isinstance(reply, Answer) else reply(request.body)


@contextmanager
def remote_server() -> Iterator[Stub]:
    stub = Stub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply("GET")

        def do_POST(self) -> None:
            self._reply("POST")

        def _reply(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            key = self.headers.get("Authorization")
            answer = stub.answer(Seen(method, self.path, key, json.loads(body) if body else None))
            if answer.after is not None:
                answer.after.wait(600)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            length = len(answer.content) if answer.promised is None else answer.promised
            self.send_header("Content-Length", str(length))
            with suppress(OSError):  # the client may have left
                self.end_headers()
                self.wfile.write(answer.content)
            self.close_connection = answer.promised is not None

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
