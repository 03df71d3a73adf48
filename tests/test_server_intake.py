"""How bodies come in: many large ones, uploads that stop; and models that are unloaded."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from command_line import ENVIRONMENT
from ggrank import LlamaParams
from ggrank.server import ServerSettings, health, intake
from ggrank.server.service import Service
from serving import EMBEDDER, LONG, RERANKER, flaky_service, running, service_of, wait_until

BODY = {"query": "fruit", "documents": ["a car", "an apple"]}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    settings = ServerSettings(max_bytes=200_000)
    with running(service_of(EMBEDDER, RERANKER, settings=settings)) as client:
        yield client


def test_a_packed_body_is_refused_with_the_reason(client: httpx.Client) -> None:
    body = gzip.compress(json.dumps(BODY).encode())
    answer = client.post("/rerank", content=body, headers={**JSON, "Content-Encoding": "gzip"})
    assert (answer.status_code, "without Content-Encoding" in answer.text) == (415, True)


# -- many bodies, and large ones


def begun(client: httpx.Client, n_bytes: int, sent: bytes) -> socket.socket:
    """An upload that sends so much of its body and then no more."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=LONG)
    head = f"POST /rerank HTTP/1.1\r\nHost: localhost\r\nContent-Length: {n_bytes}\r\n"
    with contextlib.suppress(TimeoutError, BlockingIOError):
        connection.settimeout(1)  # what the server does not read, the system's buffers may not take either
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + sent)
    connection.settimeout(LONG)
    return connection


def test_a_full_server_refuses_before_it_reads_a_body() -> None:
    service, engine = flaky_service(ServerSettings(max_queue=1))
    with running(service) as client, ThreadPoolExecutor(1) as pool:
        engine.may_run.clear()
        waiting = pool.submit(client.post, "/rerank", json=BODY)
        wait_until(lambda: service.n_requests == 1)
        with begun(client, 15_000_000, b"") as refused:  # of whose body nothing was ever sent
            assert refused.recv(1000).startswith(b"HTTP/1.1 429")
        engine.may_run.set()
        assert waiting.result().status_code == 200


def test_uploads_that_stop_hold_up_neither_small_requests_nor_large_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "STALLED_SECONDS", 0.5)
    with running(service_of(RERANKER)) as client, contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(begun(client, 16_000_000, b" " * 2_000_000))
        assert client.post("/rerank", json=BODY).status_code == 200
        large = {**BODY, "documents": ["an apple " * 40_000]}
        assert client.post("/rerank", json=large).status_code == 200


def test_an_upload_that_loses_its_room_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(intake, "ROOM_BYTES", 0)  # so that one body of the largest size has room
    settings = ServerSettings(max_bytes=1_000_000)
    with running(service_of(RERANKER, settings=settings)) as client:
        with begun(client, 900_000, b" " * 100_000) as stalled:
            large = {**BODY, "documents": ["an apple " * 40_000]}
            assert client.post("/rerank", json=large).status_code == 200
            answer = stalled.recv(1000)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"nothing of it came for 0.2 s" in answer


CHILD = """
    import json, socket, sys, threading
    sys.path.insert(0, sys.argv[1])
    from serving import EMBEDDER, RERANKER, running, service_of

    def peak():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

    document = "an apple and a pear " * 50
    bodies = [
        json.dumps({"query": "fruit", "documents": [document] * 2048, "x": "y" * 13_900_000}).encode(),
        json.dumps({"query": "fruit", "documents": ["x"], "more": [[]] * 3_900_000}).encode(),
        json.dumps({"query": "fruit", "documents": ["a " * 1_500_000]}).encode(),
    ]
    statuses = {}

    def ask(address, body):
        with socket.create_connection(address, timeout=600) as connection:
            head = f"POST /rerank HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: {len(body)}\\r\\n"
            head += "Content-Type: application/json\\r\\nConnection: close\\r\\n\\r\\n"
            connection.sendall(head.encode())
            connection.sendall(body)
            status = connection.recv(12)
            while connection.recv(65536):
                pass
        statuses[status] = statuses.get(status, 0) + 1

    with running(service_of(EMBEDDER, RERANKER)) as client:
        client.post("/rerank", json={"query": "fruit", "documents": [document] * 64})
        before = peak()
        address = (client.base_url.host, client.base_url.port)
        threads = [threading.Thread(target=ask, args=(address, bodies[i % 3])) for i in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(peak() - before, statuses)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_callers_with_16_mb_each_stay_under_600_mb_however_many_they_are() -> None:
    """One document 2,048 times is computed once; others are millions of empty lists, or one long text."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(Path(__file__).parent)],
        env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
        capture_output=True,
        text=True,
        check=True,
    )
    n_bytes, statuses = re.match(r"(\d+) (.*)", done.stdout).groups()  # type: ignore[union-attr]
    assert int(n_bytes) < 600_000_000, done.stdout
    assert statuses == "{b'HTTP/1.1 200': 24}"


# -- what is not computed


def test_dimensions_that_cannot_be_are_refused_before_anything_is_computed() -> None:
    service, engine = flaky_service(params=LlamaParams(EMBEDDER, engine="llama.cpp", n_threads=1))
    with running(service) as client:
        answer = client.post("/v1/embeddings", json={"input": ["a text"] * 2000, "dimensions": 100})
        assert (answer.status_code, "dimensions must be 384" in answer.text) == (400, True)
    assert engine.batches == []


# -- models that are unloaded


def test_an_idle_model_is_unloaded_and_the_next_request_loads_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)  # so that every probe of a loaded model computes
    service = service_of(EMBEDDER, RERANKER, settings=ServerSettings(idle_unload=0.01))
    with running(service) as client:
        before = client.post("/v1/rerank", json=BODY).json()["results"]
        models = client.get("/v1/models").json()
        # Probes do not count as use, so the models are unloaded while they go on, ...
        wait_until(
            lambda: client.get("/health").json()["models"] == dict.fromkeys((EMBEDDER, RERANKER), "unloaded")
        )
        # ... and load nothing.
        for path in ("/health", "/v1/models", "/info", "/metrics"):
            assert client.get(path).status_code == 200
        assert client.get("/v1/models").json() == models
        assert service.llamas() == {}
        assert client.post("/v1/rerank", json=BODY).json()["results"] == before
        assert "ggrank_queue_tokens" in client.get("/metrics").text


def test_a_model_at_work_is_not_unloaded_and_its_thread_ends_with_it() -> None:
    def n_workers() -> int:
        return sum(RERANKER in thread.name for thread in threading.enumerate())

    n_before = n_workers()  # those of other tests' servers
    service = service_of(RERANKER, settings=ServerSettings(idle_unload=0.0001))
    with running(service) as client, ThreadPoolExecutor(8) as pool:
        wait_until(lambda: service.llamas() == {})
        answers = pool.map(lambda i: client.post("/rerank", json=BODY).status_code, range(40))
        assert set(answers) == {200}
        wait_until(lambda: service.llamas() == {})
        wait_until(lambda: n_workers() == n_before)


# -- below a proxy's path


@pytest.mark.parametrize("path", ["/docs", "/tools/rank/docs"], ids=["stripped", "kept"])
def test_the_docs_work_below_a_proxy_s_path(client: httpx.Client, path: str) -> None:
    headers = {"X-Forwarded-Prefix": "/tools/rank/"}
    page = client.get(path, headers=headers).text
    loaded = [*re.findall(r'(?:src|href)="([^"]+)"', page), *re.findall(r"url: '([^']+)'", page)]
    assert len(loaded) >= 3
    for address in loaded:
        assert address.startswith("/tools/rank/")
        assert client.get(address.removeprefix("/tools/rank"), headers=headers).status_code == 200
    described = client.get("/openapi.json", headers=headers).json()
    assert described["servers"] == [{"url": "/tools/rank"}]


def test_a_prefix_that_is_no_path_is_not_written_into_the_page(client: httpx.Client) -> None:
    for prefix in ("/'><script>", "//evil.example.com", "https://evil.example.com", "/a b"):
        assert "evil" not in client.get("/docs", headers={"X-Forwarded-Prefix": prefix}).text
        assert "'><script>" not in client.get("/docs", headers={"X-Forwarded-Prefix": prefix}).text


def test_no_prefix_opens_a_path_that_needs_the_key() -> None:
    with running(service_of(RERANKER), ServerSettings(api_key="k")) as client:
        for prefix, path in (
            ("/docs-assets", "/docs-assets/v1/models"),
            ("/v1", "/v1/models"),
            ("/page", "/page/metrics"),
        ):
            assert client.get(path, headers={"X-Forwarded-Prefix": prefix}).status_code == 401
        assert client.post("/", json={"query": "a", "texts": ["b"]}).status_code == 401
        assert client.get("/").status_code == 200


def test_a_service_ends_with_models_that_are_not_loaded() -> None:
    service = Service(ServerSettings(idle_unload=0.0001))
    service.load([LlamaParams(RERANKER, engine="llama.cpp", n_threads=1)])
    service.unload_idle()
    wait_until(lambda: (service.unload_idle(), service.llamas() == {})[1])
    service.close()
