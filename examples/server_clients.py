"""One local server and its callers: plain HTTP, and the cohere and openai clients where they are installed.

    examples/run.sh server_clients

Needs `pip install 'ggrank[server]'`. `ggrank serve` is the same server as a command.
"""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from importlib.util import find_spec

import uvicorn

from ggrank import LlamaParams
from ggrank.server import create_app
from ggrank.server.service import Service

QUERY = "How many people live in Berlin?"
DOCUMENTS = ["Berlin has 3.7 million inhabitants.", "Berlin has many museums.", "Rust is a language."]


def ask(url: str) -> None:
    body = json.dumps({"query": QUERY, "documents": DOCUMENTS, "top_n": 2}).encode()
    request = urllib.request.Request(f"{url}/rerank", body, {"Content-Type": "application/json"})
    for hit in json.load(urllib.request.urlopen(request))["results"]:
        print(f"plain   {hit['relevance_score']:7.3f}  {hit['document']['text']}")
    if find_spec("cohere"):
        from cohere import ClientV2

        cohere = ClientV2(api_key="none", base_url=url)
        found = cohere.rerank(model="any", query=QUERY, documents=DOCUMENTS, top_n=2)
        for result in found.results:
            print(f"cohere  {result.relevance_score:7.3f}  {DOCUMENTS[result.index]}")
    if find_spec("openai"):
        from openai import OpenAI

        openai = OpenAI(api_key="none", base_url=f"{url}/v1")
        vectors = openai.embeddings.create(model="any", input=DOCUMENTS).data
        print(f"openai  {len(vectors)} vectors of {len(vectors[0].embedding)} numbers")


def main() -> None:
    service = Service()
    service.load([LlamaParams("all-minilm-l6-v2"), LlamaParams("ggrank-reranker-mini")])
    server = uvicorn.Server(uvicorn.Config(create_app(service, service.settings), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:  # a port that is free
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        ask(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
