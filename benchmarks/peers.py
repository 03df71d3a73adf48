"""ggrank and its peers, each in a process of its own, so that no library's threads or memory touch another's.

Each function of `LOADERS` loads one kind as a careful user would, on the CPU, and returns what computes it:
``run(query, texts)`` gives raw logits of the pairs, shape (n,), or vectors of length 1, shape (n, n_embd).
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workload import Request

ONNX_BATCH = 8
"""Fewer texts at a time pad less and stay in the caches; of 4, 8, 16 and 32 the best over all cells."""

SLOTS = 16
"""Sequences that llama-server computes at once: they fill its micro-batches; more than 16 gained nothing."""

SECONDS_TO_START = 120


@dataclass(frozen=True)
class Peer:
    """One way to compute a model's scores: a name of `LOADERS`, and which weights."""

    kind: str
    variant: str
    path: Path
    is_reranker: bool
    n_ctx: int
    n_threads: int
    server: str = ""

    @property
    def name(self) -> str:
        """As tables and plots have it."""
        return f"{self.kind} {self.variant}"


@dataclass(frozen=True)
class Loaded:
    """What computes a peer; ``pid`` and ``started`` are those of another process where that computes."""

    run: Callable[[str, list[str]], Any]
    pid: int = 0
    started: float | None = None


@dataclass(frozen=True)
class Answer:
    """One cell, computed once: seconds from the strings to the last score, an array for each request, and the
    most memory that the process had so far (0 where the system does not say).
    """

    seconds: float
    scores: list[Any]
    n_bytes: int


class Resident(ProcessPoolExecutor):
    """The process of one peer, which stays loaded; a context manager.

    Its methods raise what the peer raised, or `BrokenProcessPool` when its process ended.
    """

    def __init__(self, peer: Peer) -> None:
        super().__init__(1, multiprocessing.get_context("spawn"))
        self._created = time.monotonic()
        self._loading = self.submit(_load, peer)

    def wait(self) -> float:
        """Until the model is loaded; returns when the process that computes was started."""
        return self._loading.result() or self._created

    def run(self, requests: list[Request]) -> Answer:
        """Computes all requests at once, each from a thread of its own."""
        return self.submit(_answer, requests).result()


_loaded: list[Loaded] = []
"""The one peer of this process."""


def _load(peer: Peer) -> float | None:
    os.dup2(2, 1)  # what libraries print must not stand in the report
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C ends the benchmark, which then ends this process
    _loaded.append(LOADERS[peer.kind](peer))
    return _loaded[0].started


def _answer(requests: list[Request]) -> Answer:
    (loaded,) = _loaded
    with ThreadPoolExecutor(len(requests)) as callers:
        started = time.perf_counter()
        futures = [callers.submit(loaded.run, *request) for request in requests]
        scores = [np.asarray(future.result(), np.float32) for future in futures]
        seconds = time.perf_counter() - started
    status = Path(f"/proc/{loaded.pid or os.getpid()}/status")  # Linux only
    lines = status.read_text("ascii", "replace").splitlines() if status.exists() else []
    n_bytes = next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    return Answer(seconds, scores, n_bytes)


def _ggrank(peer: Peer) -> Loaded:
    from ggrank import Llama, PoolingType

    engine: Any = peer.kind.removeprefix("ggrank ")
    options: dict[str, Any] = {"pooling_type": PoolingType.RANK} if peer.is_reranker else {}
    options |= {"n_ctx": peer.n_ctx, "n_threads": peer.n_threads, "n_gpu_layers": 0, "engine": engine}
    llama = Llama.load(str(peer.path), **options)
    return Loaded(llama.rerank if peer.is_reranker else lambda _query, texts: llama.embed_many(texts))


def _llama_server(peer: Peer) -> Loaded:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = int(listening.getsockname()[1])
    options = {
        "model": peer.path, "host": "127.0.0.1", "port": port, "device": "none",
        "threads": peer.n_threads, "threads-batch": peer.n_threads, "threads-http": SLOTS,
        "parallel": SLOTS, "ctx-size": SLOTS * peer.n_ctx, "batch-size": 2048, "ubatch-size": peer.n_ctx,
    }  # fmt: skip
    command = [peer.server, "--reranking" if peer.is_reranker else "--embedding"]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]

    def ask(route: str, question: dict[str, Any] | None = None) -> Any:
        data = None if question is None else json.dumps(question).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{route}", data, headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def rerank(query: str, texts: list[str]) -> Any:
        found = ask("/v1/rerank", {"query": query, "documents": texts})["results"]
        return [one["relevance_score"] for one in sorted(found, key=lambda one: one["index"])]

    def embed(_query: str, texts: list[str]) -> Any:
        return [one["embedding"] for one in ask("/v1/embeddings", {"input": texts})["data"]]

    def is_ready() -> bool:
        try:
            ask("/health")
        except OSError:  # also a status of 503: it still loads
            return False
        return True

    started = time.monotonic()
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(server.kill)
    while not is_ready():
        if server.poll() is not None or time.monotonic() > started + SECONDS_TO_START:
            raise RuntimeError(f"not ready; its exit code is {server.poll()}")
        time.sleep(0.005)
    return Loaded(rerank if peer.is_reranker else embed, server.pid, started)


def _sentence_transformers(peer: Peer) -> Loaded:
    """With its defaults: sorted by length, 32 at a time."""
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer

    torch.set_num_threads(peer.n_threads)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[peer.variant]
    options = {"device": "cpu", "model_kwargs": {"dtype": dtype}, "local_files_only": True}
    model: Any = (CrossEncoder if peer.is_reranker else SentenceTransformer)(str(peer.path.parent), **options)
    model.max_seq_length = peer.n_ctx

    def rerank(query: str, texts: list[str]) -> Any:
        pairs = [(query, text) for text in texts]
        return model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)

    def embed(_query: str, texts: list[str]) -> Any:
        return model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    return Loaded(rerank if peer.is_reranker else embed)


def _onnxruntime(peer: Peer) -> Loaded:
    """With the tokenizers library, sorted by length, `ONNX_BATCH` at a time."""
    import onnxruntime
    from tokenizers import Tokenizer

    folder = peer.path.parent.parent
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    pad_id = json.loads((folder / "config.json").read_text("utf-8"))["pad_token_id"]
    tokenizer.enable_truncation(peer.n_ctx)
    tokenizer.enable_padding(pad_id=pad_id, pad_token=tokenizer.id_to_token(pad_id))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = peer.n_threads, 1
    session = onnxruntime.InferenceSession(str(peer.path), options, providers=["CPUExecutionProvider"])
    pooling = folder / "1_Pooling" / "config.json"
    pools_by_mean = pooling.is_file() and json.loads(pooling.read_text("utf-8")).get(
        "pooling_mode_mean_tokens"
    )

    def compute(inputs: list[Any]) -> Any:
        encoded = tokenizer.encode_batch(inputs)
        mask = np.array([one.attention_mask for one in encoded])
        arrays = {"input_ids": np.array([one.ids for one in encoded]), "attention_mask": mask}
        arrays["token_type_ids"] = np.array([one.type_ids for one in encoded])
        output = session.run(None, {one.name: arrays[one.name] for one in session.get_inputs()})[0]
        if peer.is_reranker:
            return output[:, 0]
        weights = mask[:, :, None] / mask.sum(axis=1)[:, None, None]
        vectors = (output * weights).sum(axis=1) if pools_by_mean else output[:, 0]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def run(query: str, texts: list[str]) -> Any:
        order = np.argsort([-len(text) for text in texts], kind="stable")
        inputs: list[Any] = [(query, texts[i]) if peer.is_reranker else texts[i] for i in order]
        starts = range(0, len(inputs), ONNX_BATCH)
        computed = np.concatenate([compute(inputs[start : start + ONNX_BATCH]) for start in starts])
        return computed[np.argsort(order)]

    return Loaded(run)


LOADERS: dict[str, Callable[[Peer], Loaded]] = {
    "ggrank llama.cpp": _ggrank,
    "ggrank openvino": _ggrank,
    "llama-server": _llama_server,
    "sentence-transformers": _sentence_transformers,
    "onnxruntime": _onnxruntime,
}


def obstacle(peer: Peer) -> str:
    """Why a peer cannot be measured here; "" where it can."""
    package = {"ggrank llama.cpp": "llama_cpp", "ggrank openvino": "openvino"}.get(
        peer.kind, peer.kind.replace("-", "_")
    )
    if peer.kind != "llama-server" and importlib.util.find_spec(package) is None:
        return f"{package} is not installed"
    if peer.kind == "llama-server" and not peer.server:
        return "it is not on PATH; name it with --llama-server"
    return "" if peer.path.exists() else f"there is no {peer.path.name}"
