"""What is compared: ggrank and its peers, each behind one call from strings to scores.

A `Subject` says what to load, and is handed to a process of its own as JSON; there `load` makes the `Runner`.
Knows names; each peer's library is imported by its own file, in that process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from numpy.typing import NDArray

from ggrank.benchmark.models import Job


@dataclass(frozen=True)
class Subject:
    """One way to compute a model's scores.

    Attributes:
        name: as tables and plots have it.
        kind: of `KINDS`.
        variant: of the weights, such as "q8_0", "fp32", "bf16" or "int8".
        path: the file or folder that it loads.
        n_ctx: longest sequence in tokens.
        engine: ggrank's; "" for other kinds.
        server: the program llama-server.
    """

    name: str
    kind: str
    variant: str
    path: str
    job: Job
    n_ctx: int
    n_threads: int
    engine: str = ""
    server: str = ""


class Runner(Protocol):
    """A loaded subject.

    Attributes:
        pid: of the process that computes, for its memory.
        started: when that process was started, by `time.monotonic`; None where it is this one.
    """

    pid: int
    started: float | None

    def run(self, query: str, documents: Sequence[str]) -> NDArray[Any]:
        """Raw logits of the pairs, shape (n,); or the texts' vectors of length 1, shape (n, n_embd)."""
        ...

    def close(self) -> None:
        """Ends what it started."""
        ...


KINDS = {
    "ggrank": "own",
    "llama-server": "llama_server",
    "sentence-transformers": "torch_models",
    "onnxruntime": "onnx_models",
    "fastembed-style": "onnx_models",
}
"""The file that loads each kind."""


def load(subject: Subject) -> Runner:
    """Imports the subject's library and loads its model, in this process."""
    runner: Runner = import_module(f"{__name__}.{KINDS[subject.kind]}").load(subject)
    return runner
