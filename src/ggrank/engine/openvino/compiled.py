"""Graphs compiled for this processor, in files that the next start maps into memory."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ggrank.engine.hardware import find_processor
from ggrank.engine.openvino.graph import VERSION, Precision, build_graph
from ggrank.engine.openvino.library import ov
from ggrank.engine.weights import Weights
from ggrank.errors import EngineError, InputError
from ggrank.gguf import GgufFile
from ggrank.hub.checksums import Expected, check
from ggrank.rows.records import cache_dir
from ggrank.rows.writing import UNFINISHED, written
from ggrank.types import EngineSettings

log = logging.getLogger("ggrank.openvino")

MOST_KEPT = 8
"""Compiled graphs on the disk; each is as large as its GGUF without the vocabulary."""

_HOUR = 3600

_DIGEST = 64
"""Bytes before a graph: its sha256 in hex. A multiple of 64, to which arrays in a graph are aligned."""


def compiled_graph(
    file: GgufFile, weights: Weights, *, precision: Precision, settings: EngineSettings
) -> tuple[Any, Any]:
    """The compiled model, from the disk or made and written there; and the file's ``memmap``.

    The map, None for a new model, must live as long as the model.
    """
    core = ov.Core()
    options = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 32 if precision == "int8" else 0,
        "INFERENCE_NUM_THREADS": settings.n_threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    facts = (VERSION, version("openvino"), find_processor(), check(file.path, Expected()))
    key = repr((*facts, settings.pooling_type, precision, settings.n_threads))
    path = cache_dir() / "openvino" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.blob"
    found = _read(core, path, options)
    if found is not None:
        return found
    try:
        graph = build_graph(file, weights, pooling=settings.pooling_type, precision=precision)
        compiled = core.compile_model(graph, "CPU", options)
    except RuntimeError as error:
        what = str(error).strip().splitlines()[0][:300]
        raise EngineError(
            f"OpenVINO could not compile {file.path.name}: {what}. Use the engine llama.cpp."
        ) from error
    _write(path, compiled)
    return compiled, None


def _read(core: ov.Core, path: Path, options: dict[str, Any]) -> tuple[Any, Any] | None:
    """The graph of a file; None if there is none, or it is damaged or refused."""
    try:
        if not _is_whole(path):
            return None
        os.utime(path)
        mapped = np.memmap(path, np.uint8, mode="c", offset=_DIGEST)  # OpenVINO takes no read-only array
        model = core.import_model(ov.Tensor(mapped, shared_memory=True), "CPU", options)
    except (RuntimeError, OSError, ValueError) as error:
        log.info("a compiled graph could not be read; the model is compiled again: %s", error)
        return None
    return model, mapped


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return False
    with path.open("rb") as file:
        digest, found = file.read(_DIGEST), hashlib.sha256()
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest().encode() == digest


def _write(path: Path, compiled: Any) -> None:
    """Writes the graph; a folder that cannot be written is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        blob = compiled.export_model().getvalue()
        with written(path) as unfinished:
            unfinished.write_bytes(hashlib.sha256(blob).hexdigest().encode() + blob)
        by_use = sorted(path.parent.glob("*.blob"), key=lambda blob: blob.stat().st_mtime)
        # Processes that were killed while they wrote have left the unfinished ones.
        unfinished_ones = path.parent.glob(f"*{UNFINISHED}")
        abandoned = [one for one in unfinished_ones if time.time() - one.stat().st_mtime > _HOUR]
        for old in (*by_use[:-MOST_KEPT], *abandoned):
            old.unlink()
    except (OSError, InputError, RuntimeError) as error:
        log.info("the compiled graph is not saved: %s", error)
