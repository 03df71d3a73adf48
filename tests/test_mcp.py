"""``ggrank mcp``, as the official SDK's own client meets it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from command_line import ENVIRONMENT, ggrank
from ggrank import Document, Index
from ggrank.server.mcp import Shelf, build_server

T = TypeVar("T")
HANDBOOK = """\
---
tags: [staff]
---
# Handbook

## Travel

The company pays for trains and hotels. Flights need a manager's consent.

## Leave

Everyone has thirty days of leave a year.
"""
GARDEN = "Tomatoes want sun, water in the morning and a stick to lean on.\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Notes that are indexed, and a file beside them that is not."""
    folder = tmp_path_factory.mktemp("people")
    (folder / "notes").mkdir()
    (folder / "notes" / "handbook.md").write_text(HANDBOOK)
    (folder / "notes" / "garden.txt").write_text(GARDEN)
    (folder / "secret.txt").write_text("The key is under the mat.")
    with Index.open(folder / ".ggrank") as index:
        index.update([folder / "notes"])
    return folder


@pytest.fixture
def shelf(folder: Path) -> Iterator[Shelf]:
    shelf = Shelf({"people": folder / ".ggrank"}, reranker="ggrank-reranker-mini")
    yield shelf
    shelf.close()


def ask(server: Any, question: Callable[[Client], Awaitable[T]]) -> T:
    """What a client gets that connects and asks."""

    async def connect() -> T:
        async with Client(server) as client:
            return await question(client)

    return anyio.run(connect)


def call(server: Any, tool: str, /, **arguments: Any) -> Any:
    """The typed result of a tool, or the text of its error."""

    async def question(client: Client) -> Any:
        answer = await client.call_tool(tool, arguments)
        return answer.content[0].text if answer.is_error else answer.structured_content  # type: ignore[union-attr]

    return ask(server, question)


def test_an_agent_finds_a_passage_and_reads_around_it(folder: Path, shelf: Shelf) -> None:
    server = build_server(shelf)
    (best, *_) = call(server, "search", query="who pays for travel?")["passages"]
    assert best["text"].strip().endswith("Flights need a manager's consent.")
    assert best["path"] == str(folder / "notes" / "handbook.md")
    assert best["headings"] == "Handbook > Travel"
    assert best["index"] == "people"
    assert best["place"] == f"{best['path']}:{best['line']}"
    lines = call(server, "get", document=best["place"], n_lines=3)
    assert lines["first_line"] == best["line"]
    assert "The company pays" in lines["text"]
    assert lines["n_lines"] == len(HANDBOOK.splitlines())


def test_the_tools_say_what_they_take_and_that_they_only_read(shelf: Shelf) -> None:
    async def question(client: Client) -> Any:
        return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in ask(build_server(shelf), question)}
    assert set(tools) == {"search", "get", "similar", "status"}
    assert all(tool.annotations.read_only_hint and tool.output_schema for tool in tools.values())
    assert tools["search"].input_schema["required"] == ["query"]


def test_filters_words_and_a_reranker(shelf: Shelf) -> None:
    server = build_server(shelf)
    staff = call(server, "search", query="tomatoes", where={"tags": "staff"})["passages"]
    assert {Path(passage["path"]).name for passage in staff} == {"handbook.md"}
    garden = call(server, "search", query="travel", path="notes/*.txt")["passages"]
    assert {Path(passage["path"]).name for passage in garden} == {"garden.txt"}
    (leave, *_) = call(server, "search", query="thirty days", by="words")["passages"]
    assert leave["headings"] == "Handbook > Leave"
    (first, *_) = call(server, "search", query="How do I grow tomatoes?", rerank=True)["passages"]
    assert Path(first["path"]).name == "garden.txt"


def test_what_is_not_indexed_cannot_be_read(folder: Path, shelf: Shelf) -> None:
    server = build_server(shelf)
    for path in (folder / "secret.txt", folder / "notes" / ".." / "secret.txt", "/etc/passwd"):
        assert "is not indexed" in call(server, "get", document=str(path))


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("search", {"query": "a", "top_n": 0}, "top_n must be from 1 to 50, found 0"),
        ("search", {"query": "a", "index": "other"}, "there is no index 'other'; there is people"),
        ("search", {"query": "a", "where": {"year": {"~": 1}}}, "'~'"),
        ("get", {"document": "a", "n_lines": 10_000}, "n_lines from 1 to 400"),
        ("search", {"query": "a", "min_score": 3}, "min_score must be from 0 to 1"),
        ("similar", {"document": "notes/nope.md"}, "there is no file notes/nope.md"),
    ],
)
def test_an_error_says_what_to_do(shelf: Shelf, tool: str, arguments: dict[str, Any], said: str) -> None:
    assert said in call(build_server(shelf), tool, **arguments)


def test_without_a_reranker_rerank_is_refused(folder: Path) -> None:
    shelf = Shelf({"people": folder / ".ggrank"})
    assert "--reranker" in call(build_server(shelf), "search", query="a", rerank=True)
    shelf.close()


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[Any]:
    """A server over documents that are hard to answer with."""
    (tmp_path / "long.txt").write_text("word " * 30_000)
    (tmp_path / "lines.txt").write_text("".join(f"{i:03} {'bread ' * 170}\n" for i in range(100)))
    (tmp_path / "breaks.txt").write_text("first\x0c\x0bpage\u2028of\x85one\nsecond\n")
    (tmp_path / "rows.csv").write_text("id,text\n7,Bees dance.\n8,Cars rust.\n")
    with Index.open(tmp_path / ".ggrank") as index:
        index.update([tmp_path])
        metadata = {"a": "x" * 100_000, "b": list(range(100_000)), "c" * 100_000: 1, "year": 2020}
        index.add([Document("Zebras run.", id=9, title="Long " * 20_000, metadata=metadata)])
    shelf = Shelf({"mixed": tmp_path / ".ggrank"})
    yield build_server(shelf)
    shelf.close()


def test_answers_are_bounded(tmp_path: Path, mixed: Any) -> None:
    answer = call(mixed, "get", document=str(tmp_path / "long.txt"))
    assert (len(answer["text"]), answer["is_cut"]) == (20_000, True)
    assert len(call(mixed, "get", document="no such document " * 10_000)) < 2_000
    for answer in (
        call(mixed, "get", document=9),
        call(mixed, "search", query="zebras", top_n=1)["passages"][0],
        call(mixed, "similar", document="Zebras run.", top_n=1)["passages"][0],
    ):
        assert answer["text"] == "Zebras run."
        assert answer["metadata"]["year"] == 2020
        assert len(json.dumps(answer)) < 5_000


def test_lines_are_those_of_the_file_and_no_line_is_cut(tmp_path: Path, mixed: Any) -> None:
    breaks = call(mixed, "get", document=str(tmp_path / "breaks.txt"), first_line=2)
    assert (breaks["text"], breaks["last_line"], breaks["n_lines"]) == ("second\n", 2, 2)
    path, read, line = tmp_path / "lines.txt", "", 1
    while line <= 100:
        answer = call(mixed, "get", document=str(path), first_line=line)
        read += answer["text"]
        assert answer["last_line"] >= line
        line = answer["last_line"] + 1
    assert read == path.read_text()


@pytest.mark.parametrize("id", [9, "9"])
def test_a_numeric_id_is_found_as_a_number_and_as_a_text(mixed: Any, id: object) -> None:
    assert call(mixed, "get", document=id)["text"] == "Zebras run."
    assert call(mixed, "similar", document=id, top_n=1)["passages"][0]["id"] != 9


def test_a_table_says_that_its_rows_are_the_documents(tmp_path: Path, mixed: Any) -> None:
    for tool in ("get", "similar"):
        assert "each of its 2 rows is a document" in call(mixed, tool, document=str(tmp_path / "rows.csv"))
    assert call(mixed, "get", document=f"{tmp_path / 'rows.csv'}:3")["text"] == "Cars rust."


def test_an_index_that_is_updated_meanwhile_is_seen_at_the_next_call(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "a.txt").write_text("Cats purr.")
    with Index.open(tmp_path / ".ggrank") as index:
        index.update([notes])
        shelf = Shelf({"notes": tmp_path / ".ggrank"})
        server = build_server(shelf)
        assert len(call(server, "search", query="dogs")["passages"]) == 1
        (notes / "b.txt").write_text("Dogs bark.")
        index.update()
    assert "Dogs bark." in call(server, "search", query="dogs")["passages"][0]["text"]
    assert call(server, "status")["indexes"][0]["files"] == 2
    shelf.close()


def test_models_are_let_go_when_nobody_asks_and_come_back(folder: Path) -> None:
    shelf = Shelf({"people": folder / ".ggrank"}, idle_seconds=0.05)
    server = build_server(shelf)
    for _ in range(3):
        assert call(server, "search", query="travel")["passages"]
        time.sleep(0.2)
    shelf.close()


def test_over_stdin_and_stdout(folder: Path) -> None:
    started = StdioServerParameters(
        command=sys.executable, args=["-m", "ggrank", "mcp"], cwd=folder / "notes", env=ENVIRONMENT
    )
    (best, *_) = call(stdio_client(started), "search", query="who pays for travel?")["passages"]
    assert best["headings"] == "Handbook > Travel"


def test_over_http_on_this_machine_with_the_host_checked(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ggrank", "mcp", "--index", str(folder / ".ggrank"), "--http", str(port)]
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE) as server:
        url = f"http://127.0.0.1:{port}/mcp"
        try:
            for _ in range(300):
                try:
                    strange = httpx.post(url, headers={"Host": "evil.example"}, json={})
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            assert strange.status_code in (403, 421)
            foreign = httpx.post(url, headers={"Origin": "http://evil.example"}, json={})
            assert foreign.status_code == 403
            assert call(url, "status")["indexes"][0]["files"] == 2
        finally:
            server.terminate()
            server.communicate()


def test_a_folder_without_an_index_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = ggrank("mcp")
    assert done.exit_code == 1
    assert "ggrank index FOLDER" in done.stderr
