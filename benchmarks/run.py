"""Measures ggrank beside its peers: ``python benchmarks/run.py [FOLDER ...]``. docs/benchmark.md explains it.

A FOLDER holds models, each in a folder of its own (make_models.py writes some); without one the bundled
models are measured. Every peer stays loaded in a process of its own (peers.py) and computes the same texts
(workload.py), one round after the other. Results are written into --output after every cell (report.py).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np

import report
from ggrank.errors import GgrankError
from peers import Peer, Resident, obstacle
from workload import FULL, QUICK, Cell, make_cells

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
PACKAGES = ("ggrank", "llama-cpp-python", "numpy", "openvino", "torch", "transformers",
            "sentence-transformers", "onnxruntime", "tokenizers")  # fmt: skip
BUNDLED = ("all-minilm-l6-v2", "ggrank-reranker-mini")
MOST_TOKENS = 512

Json = dict[str, Any]
Scores = list[Any]


@dataclass(frozen=True)
class Model:
    """One model: its folder, and its GGUF files by quantization."""

    name: str
    folder: Path
    ggufs: dict[str, Path]
    is_reranker: bool
    n_ctx: int


def main(arguments: Sequence[str] | None = None) -> int:
    from ggrank.loading.tuning import default_threads

    parser = argparse.ArgumentParser(description="Measure ggrank beside its peers.")
    parser.add_argument("folders", type=Path, nargs="*", help="models; else the bundled ones")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="little work; says nothing about speed")
    parser.add_argument("--only", action="append", help="peers with this in their name; repeatable")
    parser.add_argument("--llama-server", default="llama-server", help="its path; else the one on PATH")
    parser.add_argument("--threads", type=int, default=default_threads(), help="of every peer")
    parser.add_argument("--output", type=Path, default=Path("build/benchmark"), help="folder of the results")
    options = parser.parse_args(arguments)
    options.llama_server = shutil.which(options.llama_server) or ""
    os.environ |= {**dict.fromkeys(THREAD_VARIABLES, str(options.threads)), "HF_HUB_OFFLINE": "1"}
    models = [model for folder in options.folders for model in models_in(folder)] or bundled_models()
    result: Json = {"made_with": made_with(options), "models": []}
    stopped = ""
    try:
        for model in models:
            measure(model, options, result)
    except (KeyboardInterrupt, GgrankError) as reason:
        stopped = str(reason) or "interrupted"
        print(f"{stopped}; what was measured is reported", file=sys.stderr)
    report.save(result, options.output)
    print(report.markdown(result), end="")
    return 1 if stopped else 0


# -- models


def bundled_models() -> list[Model]:
    from ggrank.hub import find_model

    return [read_model(name, [find_model(name).path]) for name in BUNDLED]


def models_in(folder: Path) -> list[Model]:
    """One of every folder with GGUF files."""
    folders = sorted({path.parent for path in folder.resolve().rglob("*.gguf")})
    if not folders:
        sys.exit(f"{folder}: expected .gguf files in it or in its folders, found none")
    return [read_model(one.name, sorted(one.glob("*.gguf"))) for one in folders]


def read_model(name: str, paths: Sequence[Path]) -> Model:
    from ggrank.gguf import open_gguf

    files = [open_gguf(path) for path in paths]
    ggufs = {file.quantization: file.path for file in files}
    if len(ggufs) < len(files):
        sys.exit(f"{paths[0].parent}: two files of one quantization; give each model a folder of its own")
    n_ctx = min(MOST_TOKENS, files[0].n_ctx_train)
    return Model(name, paths[0].parent, ggufs, files[0].has_head, n_ctx)


def peers_of(model: Model, options: argparse.Namespace) -> list[Peer]:
    """All that could be measured, whether it can be here or not."""
    onnx, weights = model.folder / "onnx", model.folder / "model.safetensors"
    quantized = {name: path for name, path in model.ggufs.items() if name != "f32"} or model.ggufs
    paths = {
        (kind, name): path
        for kind in ("ggrank llama.cpp", "ggrank openvino", "llama-server")
        for name, path in quantized.items()
    }
    paths |= {("sentence-transformers", "fp32"): weights, ("sentence-transformers", "bf16"): weights}
    paths |= {("onnxruntime", "fp32"): onnx / "model.onnx", ("onnxruntime", "int8"): onnx / "model_int8.onnx"}
    return [peer_of(model, options, *key, path) for key, path in paths.items()]


def peer_of(model: Model, options: argparse.Namespace, kind: str, variant: str, path: Path) -> Peer:
    return Peer(kind, variant, path, model.is_reranker, model.n_ctx, options.threads, options.llama_server)


# -- measuring


def measure(model: Model, options: argparse.Namespace, result: Json) -> None:
    """Adds one model to the result: every cell, by each peer in turn."""
    wanted = [
        one
        for one in peers_of(model, options)
        if not options.only or any(part in one.name for part in options.only)
    ]
    left_out = {one.name: reason for one in wanted if (reason := obstacle(one))}
    peers = {one.name: one for one in wanted if one.name not in left_out}
    found: Json = {"name": model.name, "cells": {}, "peers": {}, "left_out": left_out}
    result["models"].append(found)
    if not peers:
        return
    found["reference"] = "ggrank llama.cpp f32" if "f32" in model.ggufs else next(iter(peers))
    cells = cells_of(model, options)
    found["cells"] = {cell.name: cell.n_tokens for cell in cells}
    found["peers"] = {
        name: {"kind": one.kind, "variant": one.variant, "seconds": {}} for name, one in peers.items()
    }
    reference = reference_scores(model, options, cells)
    with ExitStack() as stack:
        residents: dict[str, Resident] = {}
        for name, peer in peers.items():  # one after the other, so that each starts alone
            residents[name] = stack.enter_context(Resident(peer))
            found["peers"][name]["start"] = attempt(residents, name, found, lambda one: start(one, cells[0]))
        scores: dict[str, Scores] = {name: [] for name in residents}
        for cell in cells:
            measure_cell(residents, cell, options.rounds, found, scores)
            compare(scores, reference, found)
            report.save(result, options.output)
            print(f"{model.name}: {cell.name} done", file=sys.stderr, flush=True)


def cells_of(model: Model, options: argparse.Namespace) -> list[Cell]:
    from ggrank import Llama, PoolingType

    smallest = min(model.ggufs.values(), key=lambda path: path.stat().st_size)
    pooling = PoolingType.RANK if model.is_reranker else None
    with Llama.load(str(smallest), pooling_type=pooling, n_ctx=model.n_ctx, n_gpu_layers=0) as llama:
        return list(make_cells(llama, QUICK if options.quick else FULL))


def start(resident: Resident, cell: Cell) -> float:
    """Seconds from starting a process to its first scores."""
    started = resident.wait()
    resident.run(cell.requests)
    return time.monotonic() - started


def measure_cell(
    residents: dict[str, Resident], cell: Cell, rounds: int, found: Json, scores: dict[str, Scores]
) -> None:
    """A round to warm up, whose scores are compared, then those that count.

    Every other round goes in the opposite order, so that no peer always follows the same one.
    """
    for number in range(rounds + 1):
        for name in list(residents) if number % 2 else list(residents)[::-1]:
            answer = attempt(residents, name, found, lambda resident: resident.run(cell.requests))
            if answer is None:
                continue
            peer = found["peers"][name]
            peer["bytes"] = max(answer.n_bytes or 0, peer.get("bytes", 0))
            if number:
                peer["seconds"].setdefault(cell.name, []).append(answer.seconds)
            else:
                scores[name] += answer.scores


def attempt(left: dict[str, Any], name: str, found: Json, act: Callable[[Any], Any]) -> Any:
    """What a peer answers; None from one that fails, which is then left out with its reason."""
    try:
        return act(left[name])
    except Exception as error:  # whatever a peer's library raises belongs into the report
        del left[name]
        found["left_out"][name] = f"{type(error).__name__}: {error}"
        return None


def reference_scores(model: Model, options: argparse.Namespace, cells: Sequence[Cell]) -> Scores | None:
    """Those of ggrank's llama.cpp on the float32 file; None without that file."""
    if "f32" not in model.ggufs:
        return None
    with Resident(peer_of(model, options, "ggrank llama.cpp", "f32", model.ggufs["f32"])) as resident:
        resident.wait()
        return [scores for cell in cells for scores in resident.run(cell.requests).scores]


def compare(scores: dict[str, Scores], reference: Scores | None, found: Json) -> None:
    """How near each peer's scores are to the reference's, or to the first peer's, over the cells so far."""
    expected = reference or next(iter(scores.values()))
    for name, own in scores.items():
        if own and len(own) <= len(expected):
            found["peers"][name]["agreement"] = agreement(own, expected[: len(own)])


def agreement(scores: Scores, expected: Scores) -> float:
    """Pearson's correlation of logits, or the mean cosine of vectors."""
    own, other = np.concatenate(scores).astype(np.float64), np.concatenate(expected).astype(np.float64)
    if own.ndim == 1:
        return float(np.corrcoef(own, other)[0, 1])
    lengths = np.linalg.norm(own, axis=1) * np.linalg.norm(other, axis=1)
    return float(((own * other).sum(axis=1) / lengths).mean())


# -- what it was made with


def made_with(options: argparse.Namespace) -> Json:
    from ggrank.engine.hardware import find_processor

    processor = find_processor()
    found = {one.metadata["Name"].lower().replace("_", "-"): one.version for one in distributions()}
    return {
        "command": " ".join(["python", *sys.argv]),
        "quick": options.quick,
        "rounds": options.rounds,
        "threads": options.threads,
        "processor": f"{processor.name}, {processor.n_cores} cores, {' '.join(processor.features)}",
        "system": f"{platform.platform()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {found[name]}" for name in PACKAGES if name in found),
        "llama-server": server_version(options.llama_server),
    }


def server_version(server: str) -> str:
    if not server:
        return "not here"
    done = subprocess.run([server, "--version"], capture_output=True, text=True, errors="replace", timeout=60)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return next((line for line in lines if line.startswith("version")), "of unknown version")


if __name__ == "__main__":
    sys.exit(main())
