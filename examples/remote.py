"""Remote: the same calls, answered by a server; here ggrank's own, started in this process.

    examples/run.sh remote

Needs pip install 'ggrank[server]'.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from ggrank import LlamaParams, RemoteEmbedder, RemoteReranker
from ggrank.server import ServerSettings, create_app
from ggrank.server.service import Service

KEY = "a-key-of-your-own"
QUERY = "How long may I keep cooked rice in the fridge?"
DOCUMENTS = [
    "Rinse rice until the water runs clear.",
    "Cooked rice keeps three to four days in the refrigerator.",
]


@contextmanager
def server() -> Iterator[str]:
    """What `ggrank serve --api-key ...` does; gives the server's address."""
    settings = ServerSettings(api_key=KEY)
    service = Service(settings)
    service.load([LlamaParams("all-minilm-l6-v2"), LlamaParams("ggrank-reranker-mini")])
    running = uvicorn.Server(uvicorn.Config(create_app(service, settings), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            running.should_exit = True
            thread.join()


def main() -> None:
    print(f"Query: {QUERY}")
    with server() as url:
        for kind in (RemoteEmbedder, RemoteReranker):
            with kind(url, api_key=KEY) as remote:
                ranking = remote.rank(QUERY, DOCUMENTS)
                print(f"\n{remote.model} ({ranking.scale}), dialect {remote.dialect}")
                for hit in ranking:
                    print(f"  {hit.score:8.3f}  {hit.document}")


if __name__ == "__main__":
    main()
