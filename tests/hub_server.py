"""A hub on this machine: as much of Hugging Face's protocol as the real client needs, and failures on demand.

Two servers, as on the real hub: one for the API and the file addresses, one ("CDN") for the bytes,
reached by a redirect to another origin. Every request is kept, so that tests can count and read them.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

CHUNK = 1 << 16


@dataclass(frozen=True)
class Seen:
    """A request as it came in."""

    server: str  # "hub" or "cdn"
    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Faults:
    """What goes wrong; everything off at first."""

    status: int | None = None  # every answer of the hub
    cut_after: int | None = None  # bytes of a body, then the connection is closed
    cuts: int = 0  # how many bodies are cut
    reset: bool = False  # a cut is a reset, not a quiet end
    corrupt: bool = False  # one bit of the file is not the original's
    pause_after: int | None = None  # bytes of a body, then nothing comes until this is None again


@dataclass
class Repo:
    """A repo: its commits in order, each a set of files; the last one is the main branch."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False
    private: bool = False


@dataclass
class Hub:
    """The state behind the two servers."""

    token: str = "hf_" + "a1B2" * 8
    repos: dict[str, Repo] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    seen: list[Seen] = field(default_factory=list)
    endpoint: str = ""
    cdn: str = ""

    def add(
        self,
        repo: str,
        files: dict[str, bytes],
        *,
        commit: str | None = None,
        gated: bool = False,
        private: bool = False,
    ) -> str:
        """Adds a commit to a repo; returns its id."""
        entry = self.repos.setdefault(repo, Repo())
        entry.gated, entry.private = gated, private
        content = b"".join(name.encode() + data[:64] for name, data in files.items())
        commit = commit or hashlib.sha1(content, usedforsecurity=False).hexdigest()
        entry.commits[commit] = files
        return commit

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A revision's commit and files; "main" is the last commit."""
        commits = self.repos[repo].commits
        commit = list(commits)[-1] if revision == "main" else revision
        return (commit, commits[commit]) if commit in commits else None

    def blob(self, digest: str) -> bytes | None:
        for repo in self.repos.values():
            for files in repo.commits.values():
                for data in files.values():
                    if _sha256(data) == digest:
                        return data
        return None

    def count(self, method: str | None = None) -> int:
        return sum(1 for request in self.seen if method in (None, request.method))


class _Handler(BaseHTTPRequestHandler):
    """What both servers share: keeping requests, answering in JSON."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    name: str

    def log_message(self, *_: Any) -> None:
        """Says nothing: tests read `Hub.seen`."""

    def keep(self) -> None:
        headers = self.headers
        self.hub.seen.append(
            Seen(self.name, self.command, self.path, headers.get("Range"), headers.get("Authorization"))
        )

    def answer(self, status: int, value: Any = None, headers: dict[str, str] | None = None) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status: int, code: str, message: str) -> None:
        self.answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message})


class _HubHandler(_Handler):
    """The API and the addresses of files."""

    name = "hub"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.keep()
        if self.hub.faults.status is not None:
            self.answer(self.hub.faults.status, {"error": "told to fail"})
            return
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            repo, rest = "/".join(parts[2:4]), parts[4:]
            if self.may_see(repo):
                self.describe(repo, rest)
        elif len(parts) >= 5 and parts[2] == "resolve":
            repo = "/".join(parts[:2])
            if self.may_see(repo) and self.may_read(repo):
                self.resolve(repo, parts[3], "/".join(parts[4:]))
        else:
            self.answer(404, {"error": "no such page"})

    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def may_see(self, repo: str) -> bool:
        """Without a token, the real hub answers 401 for private repos and for those that do not exist."""
        if repo in self.hub.repos and (self.has_token() or not self.hub.repos[repo].private):
            return True
        self.refuse(404 if self.has_token() else 401, "RepoNotFound", "Repository not found")
        return False

    def may_read(self, repo: str) -> bool:
        if not self.hub.repos[repo].gated or self.has_token():
            return True
        self.refuse(401, "GatedRepo", f"Access to model {repo} is restricted.")
        return False

    def describe(self, repo: str, rest: list[str]) -> None:
        """``/api/models/<repo>[/revision/<revision>]`` and ``/api/models/<repo>/tree/<revision>``."""
        found = self.hub.find(repo, rest[1] if len(rest) > 1 else "main")
        if found is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {rest[1]}")
            return
        commit, files = found
        if rest[:1] == ["tree"]:
            self.answer(200, [{"type": "file", "path": name, **_sizes(data)} for name, data in files.items()])
            return
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": _sizes(data)["oid"], "lfs": _lfs(data)}
            for name, data in files.items()
        ]
        self.answer(200, {"id": repo, "sha": commit, "siblings": siblings})

    def resolve(self, repo: str, revision: str, name: str) -> None:
        found = self.hub.find(repo, revision)
        if found is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif name not in found[1]:
            self.refuse(404, "EntryNotFound", "Entry not found")
        else:
            commit, files = found
            digest = _sha256(files[name])
            headers = {
                "X-Repo-Commit": commit,
                "X-Linked-Etag": f'"{digest}"',
                "X-Linked-Size": str(len(files[name])),
                "ETag": f'"{digest}"',
                "Location": f"{self.hub.cdn}/blobs/{digest}",
            }
            self.answer(302, None, headers)


class _CdnHandler(_Handler):
    """The bytes, whole or from a position on, and the ways in which they go wrong."""

    name = "cdn"

    def do_GET(self) -> None:
        self.keep()
        data = self.hub.blob(self.path.rsplit("/", 1)[-1])
        if data is None:
            self.answer(404)
            return
        if self.hub.faults.corrupt:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if self.headers.get("Range") else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if self.headers.get("Range"):
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.send_body(data[start:])

    def send_body(self, data: bytes) -> None:
        faults = self.hub.faults
        if faults.cut_after is not None and faults.cuts > 0:
            faults.cuts -= 1
            data = data[: faults.cut_after]
            self.close_connection = True
            if faults.reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            for position in range(0, len(data), CHUNK):
                while faults.pause_after is not None and position >= faults.pause_after:
                    time.sleep(0.01)
                self.wfile.write(data[position : position + CHUNK])
            if self.close_connection and faults.reset:
                self.connection.close()
        except OSError:  # the client is gone: killed, or it gave up
            self.close_connection = True


@lru_cache(maxsize=64)
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _lfs(data: bytes) -> dict[str, Any]:
    return {"sha256": _sha256(data), "size": len(data), "pointerSize": 134}


def _sizes(data: bytes) -> dict[str, Any]:
    lfs = _lfs(data)
    return {
        "size": len(data),
        "oid": hashlib.sha1(data[:64], usedforsecurity=False).hexdigest(),
        "lfs": {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 134},
    }


@contextmanager
def serve() -> Iterator[Hub]:
    """Runs a hub on free ports of this machine until the block ends."""
    hub = Hub()
    servers = [
        ThreadingHTTPServer(("127.0.0.1", 0), type(handler.__name__, (handler,), {"hub": hub}))
        for handler in (_HubHandler, _CdnHandler)
    ]
    # Two host names, since a client may follow a redirect and send its token on while the name stays.
    hub.endpoint = f"http://127.0.0.1:{servers[0].server_address[1]}"
    hub.cdn = f"http://localhost:{servers[1].server_address[1]}"
    threads = [threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
