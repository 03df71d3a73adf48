"""``ggrank serve --index``: POST /search in a real process, and who is kept out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from command_line import ENVIRONMENT, ggrank
from ggrank import Document, Index, Llama
from ggrank.server import ServerSettings
from serving import EMBEDDER, LONG, RERANKER, address_in, process, running, service_of, wait_until

NOTES = {
    "travel.md": "---\ntags: [staff]\nyear: 2021\n---\n# Handbook\n\n## Travel\n\nWe pay for trains.\n",
    "leave.md": "---\ntags: [staff]\nyear: 2024\n---\n# Leave\n\nEverybody has thirty days.\n",
    "garden.txt": "Tomatoes want sun and water.\n",
}
QUESTION = "Who pays for the train?"
SECRET = "xyzzy-the-secret-words"


def notes(folder: Path) -> Path:
    """The index of a folder of notes."""
    for name, text in NOTES.items():
        (folder / name).write_text(text)
    ggrank("index", folder, "--index", folder / ".ggrank")
    return folder / ".ggrank"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return notes(tmp_path_factory.mktemp("notes"))


@pytest.fixture(scope="module")
def client(index: Path) -> Iterator[httpx.Client]:
    with process("--index", str(index)) as (_, line), httpx.Client(base_url=address_in(line)) as client:
        client.timeout = httpx.Timeout(LONG)
        yield client


def found(client: httpx.Client, query: str = QUESTION, **options: Any) -> list[dict[str, Any]]:
    answer = client.post("/search", json={"query": query, **options})
    assert answer.status_code == 200, answer.text
    hits: list[dict[str, Any]] = answer.json()["hits"]
    return hits


def test_a_search_finds_what_the_index_finds_with_its_place(client: httpx.Client, index: Path) -> None:
    hits = found(client)
    with Index.open(index) as opened:
        expected = opened.search(QUESTION)
    assert [hit["text"] for hit in hits] == [hit.text for hit in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=0.01)
    best, path = hits[0], str(index.parent / "travel.md")
    assert (best["place"], best["path"], best["line"]) == (f"{path}:9", path, 9)
    assert best["headings"] == "Handbook > Travel"
    assert "train" in best["words"]
    assert best["logit"] is None


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"top_n": 1}, ["travel.md"]),
        ({"path": "*.txt"}, ["garden.txt"]),
        ({"where": {"year": {">": 2021}}}, ["leave.md"]),
        ({"where": {"tags": "staff"}, "top_n": 1}, ["travel.md"]),
        ({"min_score": 0.99}, []),
        ({"by": "words"}, ["travel.md"]),
    ],
)
def test_options_mean_what_they_mean_in_the_index(
    client: httpx.Client, options: dict[str, Any], names: list[str]
) -> None:
    assert [Path(hit["path"]).name for hit in found(client, **options)] == names


def test_the_served_reranker_orders_what_was_found(client: httpx.Client, index: Path) -> None:
    with Llama.load(RERANKER) as reranker, Index.open(index) as opened:
        expected = opened.search(QUESTION, reranker=reranker)
    hits = found(client, rerank=True)
    assert [hit["text"] for hit in hits] == [hit.text for hit in expected]
    assert [hit["logit"] for hit in hits] == pytest.approx([hit.logit for hit in expected], abs=0.05)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"query": 1}, "query: must be a string"),
        ({"top_n": 0}, "top_n: must be at least 1"),
        ({"top_n": 101}, "top_n: must be at most 100"),
        ({"by": "magic"}, "by: must be"),
        ({"min_score": 3}, "min_score: must be at most 1"),
        ({"where": {"year": {"~": 1}}}, 'as in {\\"tags\\": \\"staff\\", \\"year\\": {\\">=\\": 2020}}'),
        ({"where": {SECRET: [SECRET]}}, "where: must compare metadata"),
        ({"where": {'a"b': 1}}, "where: must compare metadata"),
        ({"where": {"a": 2**63}}, "where: must compare metadata"),
        ({"path": "*" * 1001}, "path: must be"),
        ({"where": {str(i): i for i in range(51)}}, "where: must be"),
    ],
)
def test_a_search_that_cannot_be_is_400_and_names_the_field(
    client: httpx.Client, wrong: dict[str, Any], told: str
) -> None:
    answer = client.post("/search", json={"query": QUESTION, **wrong})
    assert (answer.status_code, told in answer.text) == (400, True), answer.text
    assert SECRET not in answer.text


@pytest.mark.parametrize("body", [b'{"query": "\\ud800"}', b'{"query": "a", "where": {"a": "\\ud800"}}'])
def test_texts_that_no_file_could_hold_are_searched_or_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/search", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400)


def test_requests_at_the_same_time_get_the_same_hits(client: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: [hit["place"] for hit in found(client)], range(24)))
    assert answers == [answers[0]] * 24
    assert 'route="/search"' in client.get("/metrics").text


def test_what_is_added_or_made_anew_meanwhile_is_found_by_the_next_search(tmp_path: Path) -> None:
    index = notes(tmp_path)
    with process("--index", str(index)) as (_, line), httpx.Client(base_url=address_in(line)) as client:
        client.timeout = httpx.Timeout(LONG)
        assert len(found(client)) == 3
        with Index.open(index) as opened:
            opened.add([Document("The bank pays for taxis.", id="taxis")])
        assert "taxis:1" in [hit["place"] for hit in found(client)]
        (tmp_path / "new.txt").write_text("Nobody pays for the train to the moon.\n")
        ggrank("index", tmp_path, "--index", index, "--rebuild")
        assert f"{tmp_path / 'new.txt'}:1" in [hit["place"] for hit in found(client)]


def test_an_index_is_searched_with_a_model_that_was_unloaded_meanwhile(index: Path) -> None:
    settings = ServerSettings(index=index, idle_unload=0.001)
    service = service_of(EMBEDDER, settings=settings)
    with running(service) as client:
        before = found(client)
        wait_until(lambda: service.llamas() == {})
        assert found(client) == before
        answer = client.post("/search", json={"query": QUESTION, "rerank": True})
        assert (answer.status_code, "--reranker" in answer.text) == (400, True)


def test_a_full_server_refuses_a_search(index: Path) -> None:
    settings = ServerSettings(index=index, max_queue=0)
    with running(service_of(EMBEDDER, settings=settings)) as client:
        assert client.post("/search", json={"query": QUESTION}).status_code == 429


def test_no_query_is_logged(index: Path) -> None:
    with process("--index", str(index)) as (child, line):
        for wrong in ({}, {"where": {SECRET: []}}, {"by": SECRET}):
            httpx.post(f"{address_in(line)}/search", json={"query": SECRET, **wrong}, timeout=LONG)
        child.terminate()
        out, error = child.communicate(timeout=LONG)
    assert ("POST /search 200" in error, SECRET in out + error) == (True, False)


# -- who may search


def failing(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ggrank", "serve", "--port", "0", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG, env=ENVIRONMENT)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    return done


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--host", "0.0.0.0"], "--index lets everybody who reaches 0.0.0.0 read your files"),
        (["--cors", "*"], "--index with --cors '*' lets every web page read your files"),
    ],
)
def test_an_index_that_others_could_read_without_a_key_is_refused_in_one_line(
    index: Path, args: list[str], told: str
) -> None:
    error = failing("--index", str(index), *args).stderr
    assert (told in error, "GGRANK_API_KEY" in error, len(error.splitlines())) == (True, True, 1)


def test_with_a_key_others_may_search_who_have_it(index: Path) -> None:
    args = ["--index", str(index), "--host", "0.0.0.0", "--api-key", "sesame"]
    with process(*args) as (_, line):
        port = address_in(line).rpartition(":")[2]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=LONG) as client:
            assert client.post("/search", json={"query": QUESTION}).status_code == 401
            client.headers["Authorization"] = "Bearer sesame"
            assert found(client)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example.com"}, 403),
        ({"Origin": "https://evil.example.com"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
    ],
)
def test_pages_of_others_may_not_search(client: httpx.Client, headers: dict[str, str], status: int) -> None:
    assert client.post("/search", json={"query": QUESTION}, headers=headers).status_code == status


def test_pages_that_were_named_may_search(index: Path) -> None:
    settings = ServerSettings(index=index, cors_origins=("https://notes.example.com",))
    with running(service_of(EMBEDDER, settings=settings)) as client:
        client.headers["Origin"] = "https://notes.example.com"
        assert found(client)


def test_without_an_index_there_is_no_such_path() -> None:
    with running(service_of(EMBEDDER)) as client:
        assert client.post("/search", json={"query": QUESTION}).status_code == 404


def test_an_index_of_another_model_is_one_line_that_names_it(index: Path, tmp_path: Path) -> None:
    with Llama.load(EMBEDDER) as llama:
        own = Path(shutil.copy(llama.model_path, tmp_path / "own.gguf"))
    with own.open("ab") as file:
        file.write(b"\0")  # another file with the same vectors
    with Llama.load(own) as llama, Index.open(tmp_path / "index", embedder=llama) as opened:
        opened.add(["a text"])
    error = failing("--index", str(tmp_path / "index")).stderr
    assert (f"start the server with --embedder {own}" in error, len(error.splitlines())) == (True, 1)
    assert "is served; start" in failing("--index", str(index), "--embedder", "none").stderr


def test_an_index_of_another_pooling_is_served_with_the_embedder_that_the_error_names(tmp_path: Path) -> None:
    with Llama.load(EMBEDDER, pooling_type="cls") as llama, Index.open(tmp_path, embedder=llama) as opened:
        opened.add(["We pay for trains."])
    named = failing("--index", str(tmp_path)).stderr.split("--embedder ")[1].strip()
    assert named.endswith(",pooling_type=cls")
    with (
        process("--index", str(tmp_path), "--embedder", named) as (_, line),
        httpx.Client(base_url=address_in(line), timeout=LONG) as client,
    ):
        assert len(found(client)) == 1


def test_a_folder_without_an_index_is_one_clear_line(tmp_path: Path) -> None:
    assert "ggrank index" in failing("--index", str(tmp_path)).stderr.splitlines()[-1]
