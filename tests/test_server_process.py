"""``ggrank serve`` as a process: how it starts, what it prints, whom it lets in, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from command_line import ENVIRONMENT
from ggrank.server import ServerSettings
from ggrank.server.service import Service
from serving import EMBEDDER, LONG, RERANKER, address_in, process, running, service_of, wait_until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM for one process")

BODY = {"query": "fruit", "documents": ["a car", "an apple"]}
SECRET = "xyzzy-the-secret-words"


def at_work(
    pool: ThreadPoolExecutor, address: str, *, n_documents: int = 100, n_words: int = 200
) -> Future[httpx.Response]:
    """A request that the server computes now; a longer one where it was done before anybody looked."""
    while True:
        documents = [f"{i} " + "word " * (n_words - i % 100) for i in range(n_documents)]
        body = {"query": "fruit", "documents": documents}
        answer = pool.submit(httpx.post, f"{address}/rerank", json=body, timeout=LONG)
        wait_until(lambda: answer.done() or "ggrank_queue_requests 1.0" in metrics(address))  # noqa: B023
        if not answer.done():
            return answer
        n_documents = min(2 * n_documents, 2000)


def metrics(address: str) -> str:
    return httpx.get(f"{address}/metrics", timeout=LONG).text


def test_it_says_where_it_listens_with_which_models_and_is_ready_then() -> None:
    with process() as (_, line):
        assert line.endswith(f"with {EMBEDDER}, {RERANKER}")
        address = address_in(line)
        assert address.startswith("http://127.0.0.1:")
        assert httpx.get(f"{address}/health", timeout=LONG).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_answers_what_is_in_and_exits_with_0(number: signal.Signals) -> None:
    with process() as (child, line), ThreadPoolExecutor(1) as pool:
        answer = at_work(pool, address_in(line))
        child.send_signal(number)
        assert answer.result().status_code == 200
        assert child.wait(LONG) == 0


def test_a_second_ctrl_c_drops_what_is_in_and_ends_at_once() -> None:
    with process() as (child, line), ThreadPoolExecutor(1) as pool:
        at_work(pool, address_in(line), n_documents=2000, n_words=500)  # for half a minute, or more
        child.send_signal(signal.SIGINT)
        assert child.stderr is not None
        assert any("Stopping once 1 request" in line for line in iter(child.stderr.readline, ""))
        child.send_signal(signal.SIGINT)
        assert child.wait(LONG) == 130
        assert "Traceback" not in child.stderr.read()


def test_killed_it_comes_back_on_the_same_port() -> None:
    with process() as (child, line):
        address = address_in(line)
        with httpx.Client(base_url=address, timeout=LONG) as client:
            assert client.post("/rerank", json=BODY).status_code == 200
            child.kill()
            child.wait(LONG)
            with process("--port", address.rpartition(":")[2]) as (_, line):
                assert address_in(line) == address
                assert httpx.post(f"{address}/rerank", json=BODY, timeout=LONG).status_code == 200


def test_the_log_tells_of_requests_and_never_of_their_texts() -> None:
    with process() as (child, line):
        address = address_in(line)
        bodies = ({"query": SECRET, "documents": [SECRET]}, {"query": SECRET}, {SECRET: SECRET})
        for body in bodies:
            httpx.post(f"{address}/rerank?q={SECRET}", json=body, timeout=LONG)
        httpx.get(f"{address}/{SECRET}", timeout=LONG)
        child.send_signal(signal.SIGTERM)
        out, error = child.communicate(timeout=LONG)
    assert "POST /rerank 200" in error
    assert "POST /rerank 400" in error
    assert SECRET not in out + error


def failing(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ggrank", "serve", *args]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LONG, env={**ENVIRONMENT, **variables}
    )
    assert "Traceback" not in done.stderr
    return done


def test_a_port_that_is_taken_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = failing("--port", str(taken.getsockname()[1]))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "choose another --host or --port" in done.stderr


def test_a_model_that_is_not_there_is_one_clear_line() -> None:
    done = failing("--port", "0", "--reranker", "no/such/file.gguf")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no/such/file.gguf" in done.stderr.splitlines()[-1]


def test_a_model_has_options_of_its_own_and_embedders_may_be_left_out() -> None:
    with process("--embedder", "none", "--reranker", f"{RERANKER},n_ctx=128") as (_, line):
        [model] = httpx.get(f"{address_in(line)}/v1/models", timeout=LONG).json()["data"]
        assert (model["id"], model["meta"]["n_ctx"]) == (RERANKER, 128)
        body = {"input": "a text", "model": "any"}
        refused = httpx.post(f"{address_in(line)}/v1/embeddings", json=body, timeout=LONG)
    assert "start the server with --embedder" in refused.text


@pytest.mark.parametrize("given", ["m.gguf,n_ctx", "m.gguf,n_ctx=many", "m.gguf,colour=red", "m.gguf,"])
def test_an_option_of_a_model_that_there_is_not_is_refused(given: str) -> None:
    done = failing("--reranker", given)
    assert done.returncode == 2
    assert "'--reranker': expected MODEL, and n_ctx, n_threads" in done.stderr


def test_without_any_model_there_is_nothing_to_serve() -> None:
    done = failing("--embedder", "none", "--reranker", "none")
    assert (done.returncode, "there is no model to serve" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("given", "model", "right"), [("embedder", RERANKER, "reranker"), ("reranker", EMBEDDER, "embedder")]
)
def test_a_model_of_the_other_kind_is_one_line_that_names_the_right_option(
    given: str, model: str, right: str
) -> None:
    done = failing("--port", "0", f"--{given}", model)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert f"--{given} {model}" in done.stderr
    assert f"give it as --{right} {model}" in done.stderr


def test_a_host_that_others_reach_without_a_key_is_warned_of() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # so that it ends at once
        port = str(taken.getsockname()[1])
        open_to_all = failing("--host", "0.0.0.0", "--port", port, "--reranker", "no/such/file.gguf")
        with_key = failing("--host", "0.0.0.0", "--port", port, "--reranker", "x.gguf", "--api-key", "k")
        local = failing("--port", port)
    assert "everyone who can reach 0.0.0.0 may ask" in open_to_all.stderr
    assert "everybody" not in with_key.stderr + local.stderr


def test_a_missing_extra_is_one_clear_line() -> None:
    code = "import sys; sys.modules['fastapi'] = None; from ggrank.cli import main; main(['serve'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "pip install 'ggrank[server]'" in done.stderr


def test_help_needs_no_extra() -> None:
    code = "import sys; sys.modules['fastapi'] = None; from ggrank.cli import main; main(['serve', '--help'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG)
    assert (done.returncode, "--max-documents" in done.stdout) == (0, True)


@pytest.mark.parametrize("way", ["option", "environment", "file"])
def test_with_a_key_everything_but_health_and_the_pages_asks_for_it(way: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sesame\nand what it is for\n")
    args = {"option": ["--api-key", "sesame"], "file": ["--api-key-file", str(tmp_path / "key")]}.get(way, [])
    variables = {"GGRANK_API_KEY": "sesame"} if way == "environment" else {}
    with process(*args, **variables) as (child, line):
        with httpx.Client(base_url=address_in(line), timeout=LONG) as client:
            assert client.get("/health").status_code == 200
            # A browser that opens a page sends no key; what the page loads is not secret either.
            assert client.get("/").status_code == 200
            for address in ("docs", *re.findall(r'(?:src|href)="([^"]+)"', client.get("/docs").text)):
                assert client.get(address).status_code == 200, address
            assert client.get("/openapi.json").json()["security"] == [{"key": []}]
            for path in ("/metrics", "/v1/models", "/info", "/nothing", "/docs/x", "/docs-assets", "/docsx"):
                assert client.get(path).status_code == 401, path
            assert client.get("/docs-assets/%2e%2e/metrics").status_code == 404
            for key in ("Bearer", "Bearer sesam", "Bearer sesame1", "sesame", "Basic sesame", "Bearer \xe9"):
                headers = {"Authorization": key.encode("latin-1")}
                answer = client.post("/rerank", json=BODY, headers=headers)  # type: ignore[arg-type]
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            for key in ("Bearer sesame", "bearer sesame"):
                assert client.post("/rerank", json=BODY, headers={"Authorization": key}).status_code == 200
        child.send_signal(signal.SIGTERM)
        out, error = child.communicate(timeout=LONG)
    assert "sesame" not in out + error


@pytest.mark.parametrize("way", ["option", "environment", "file"])
@pytest.mark.parametrize(
    ("key", "told"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"k\xff", "UTF-8"),
        (b"a\x01b", "control character"),
    ],
)
def test_a_key_that_nobody_could_send_is_refused_at_start(
    way: str, key: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_bytes(key)
    text = os.fsdecode(key)
    args = {"option": ["--api-key", text], "file": ["--api-key-file", str(tmp_path / "key")]}.get(way, [])
    variables = {"GGRANK_API_KEY": text} if way == "environment" else {}
    done = failing("--port", "0", *args, **variables)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert told in done.stderr or "utf-8" in done.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--api-key", "a", "--api-key-file", "b"], "one at a time"),
        (["--cors", "foo"], "found 'foo'"),
        (["--cors", "https://example.com/page"], "found 'https://example.com/page'"),
        (["--cors", "https://*.example.com"], "found 'https://*.example.com'"),
        (["--cors", "https://Example.com"], "lower case: 'https://example.com'"),
        (["--cors", "https://example.com:443"], "leave the usual port out: 'https://example.com'"),
        (["--cors", "null"], "needs an API key"),
        (["--embedder", EMBEDDER, "--embedder", EMBEDDER], "two models are named"),
    ],
)
def test_options_that_could_not_work_are_refused_at_start(args: list[str], told: str) -> None:
    done = failing("--port", "0", *args)
    assert done.returncode in (1, 2)
    assert told in done.stderr


def test_a_key_file_that_has_no_name_is_refused() -> None:
    assert failing("--port", "0", "--api-key-file", "").returncode != 0


@pytest.mark.parametrize("key", [" sesame ", "sesame\t"])
def test_spaces_around_a_key_are_no_part_of_it(key: str) -> None:
    with running(service_of(RERANKER), ServerSettings(api_key=key)) as client:
        assert client.get("/v1/models", headers={"Authorization": "Bearer sesame"}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["app://obsidian.md", "chrome-extension://abcdef", "tauri://localhost", "null"]
)
def test_pages_of_programs_may_ask_with_the_headers_of_their_libraries(origin: str) -> None:
    settings = ServerSettings(cors_origins=(origin,), api_key="k")
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,x-stainless-lang,x-fern-language"
    with running(service_of(RERANKER), settings) as client:
        allowed = client.options("/rerank", headers=asked)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, origin)
        assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
        answer = client.post("/rerank", json=BODY, headers={"Origin": origin, "Authorization": "Bearer k"})
        assert "x-compute-tokens" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8080", 200),
        ("notes.localhost", 200),
        ("proxy.example.com", 200),
        ("evil.example.com:8080", 403),
        ("localhost.example.com", 403),
        ("127.0.0.1.example.com", 403),
        ("[", 403),
    ],
)
def test_a_name_that_was_pointed_here_is_refused(host: str, status: int) -> None:
    with running(service_of(RERANKER), ServerSettings(allowed_hosts=("proxy.example.com",))) as client:
        answer = client.post("/rerank", json=BODY, headers={"Host": host})
        assert answer.status_code == status
        assert status == 200 or "--allowed-host" in answer.text


def test_with_a_key_any_name_will_do() -> None:
    with running(service_of(RERANKER), ServerSettings(api_key="k")) as client:
        headers = {"Host": "any.example.com", "Authorization": "Bearer k"}
        assert client.post("/rerank", json=BODY, headers=headers).status_code == 200


def test_a_name_that_is_not_served_is_refused_where_that_was_asked_for() -> None:
    body = {**BODY, "model": "rerank-v3.5"}
    with running(service_of(RERANKER)) as client:
        assert client.post("/rerank", json=body).json()["model"] == RERANKER
    with running(service_of(RERANKER, settings=ServerSettings(strict_models=True))) as client:
        answer = client.post("/rerank", json=body)
        assert (answer.status_code, f"only {RERANKER}" in answer.text) == (400, True)


def test_only_origins_that_were_named_may_ask_from_a_web_page() -> None:
    origin = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
    asked = {**origin, "Access-Control-Request-Headers": "authorization,content-type"}
    with running(Service()) as client:
        assert "access-control-allow-origin" not in client.options("/rerank", headers=asked).headers
    settings = ServerSettings(cors_origins=("https://example.com",), api_key="k")
    with running(service_of(RERANKER), settings) as client:
        allowed = client.options("/rerank", headers=asked)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (
            200,
            origin["Origin"],
        )
        refused = client.post("/rerank", json=BODY, headers={"Origin": "https://example.com"})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (
            401,
            origin["Origin"],
        )
        other = client.options("/rerank", headers={**asked, "Origin": "https://other.com"})
        assert "access-control-allow-origin" not in other.headers
