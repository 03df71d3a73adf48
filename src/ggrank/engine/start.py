"""Starts the engine that the settings name, and says which files the second one can compute.

Knows the engines' names and what they can do; each is imported when it is asked for.
"""

from __future__ import annotations

from pathlib import Path

from ggrank.gguf_file import GgufFile
from ggrank.types import Engine, EngineSettings


def start_engine(path: Path, settings: EngineSettings) -> Engine:
    """A running engine; the errors are those of `LlamaCppEngine` and `OpenVinoEngine`."""
    if settings.engine == "openvino":
        from ggrank.engine.openvino import OpenVinoEngine

        return OpenVinoEngine(path, settings)
    from ggrank.engine import LlamaCppEngine

    return LlamaCppEngine(path, settings)


def why_not_openvino(file: GgufFile) -> str | None:
    """Why the engine "openvino" cannot compute a file, in a few words; None where it can."""
    if file.architecture != "bert":
        return f"it computes BERT and XLM-R, and {file.path.name} is {file.architecture}"
    if "blk.0.attn_q.weight" not in file.tensors:
        return f"{file.path.name} keeps queries, keys and values in one matrix"
    return None
