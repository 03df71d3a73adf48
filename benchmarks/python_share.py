"""Which share of a ranking's wall time is Python's: ``python benchmarks/python_share.py MODEL.gguf``.

    $ python benchmarks/make_models.py models
    $ python benchmarks/python_share.py models/bge-reranker-base-shape/bge-reranker-base-shape-q4_k_m.gguf

The network is computed inside one call, `llama_encode` (`llama_decode` for causal models, OpenVINO's
`InferRequest.infer`). That call is timed from outside; all the rest is Python's: checking texts, tokenising,
pairing, packing, filling batches, reading back, sorting. The tokenizer's own C++ counts as Python's too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "src"))

from ggrank import Llama  # noqa: E402

LEAST_SECONDS = 2.0
"""Short lists are ranked again until so much time has gone by."""


class Stopwatch:
    """Adds up the time that calls take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def timed(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure Python's share of a ranking's wall time.")
    parser.add_argument("model", help="a reranker or an embedder: a preset or a .gguf file")
    parser.add_argument("--engine", default="llama.cpp")
    parser.add_argument("--pairs", type=int, nargs="+", default=[20, 10_000])
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 128], help="of each pair")
    arguments = parser.parse_args()
    network = Stopwatch()
    wrap(network, arguments.engine)
    print(f"{'pairs':>8} {'tokens':>8} {'ms':>10} {'tokens/s':>10} {'Python':>8}")
    with Llama.load(arguments.model, engine=arguments.engine) as llama:
        for n_tokens in arguments.tokens:
            for n_pairs in arguments.pairs:
                measure(llama, network, n_pairs, n_tokens)
    return 0


def wrap(network: Stopwatch, engine: str) -> None:
    """Times the call that computes the network."""
    if engine == "openvino":
        import openvino

        openvino.InferRequest.infer = network.around(openvino.InferRequest.infer)
        return
    import llama_cpp.llama_cpp as api

    for name in ("llama_encode", "llama_decode"):
        setattr(api, name, network.around(getattr(api, name)))


def measure(llama: Llama, network: Stopwatch, n_pairs: int, n_tokens: int) -> None:
    """Prints one row."""
    query = "who pays for travel in the united states"
    documents = list(texts(llama, n_pairs, n_tokens - llama.count_tokens(query) - 1))
    llama.rank(query, documents[:20])
    network.seconds, n_ranked, n_done = 0.0, 0, 0
    started = time.perf_counter()
    while n_ranked == 0 or time.perf_counter() - started < LEAST_SECONDS:
        n_done += llama.rank(query, documents).n_tokens
        n_ranked += 1
    total = time.perf_counter() - started
    share = 1 - network.seconds / total
    tokens = n_done / n_ranked / n_pairs
    speed = f"{1e3 * total / n_ranked:>10.1f} {n_done / total:>10.0f}"
    print(f"{n_pairs:>8} {tokens:>8.0f} {speed} {share:>8.2%}", flush=True)


def texts(llama: Llama, n: int, n_tokens: int) -> Iterable[str]:
    """Different texts of about so many tokens, from the books in tests/data."""
    words = (ROOT / "tests" / "data" / "english.txt").read_text("utf-8").split()
    per_word = llama.count_tokens(" ".join(words[:400])) / 400
    n_words = max(1, round(n_tokens / per_word))
    for i in range(n):
        start = 7 * i % (len(words) - n_words)
        yield f"{' '.join(words[start : start + n_words])} {i}"


if __name__ == "__main__":
    sys.exit(main())
