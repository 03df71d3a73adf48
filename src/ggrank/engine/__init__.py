"""What computes: llama.cpp, and OpenVINO for the files that it knows, with one small interface.

That interface is `ggrank.types.Engine`: tokenize, run a micro-batch, free. Here is only which one to start;
each is imported when it is asked for, so that importing this package loads neither library.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggrank.gguf import GgufFile
    from ggrank.types import Engine, EngineSettings


def start_engine(path: Path, settings: EngineSettings) -> Engine:
    """A running engine; the errors are those of `LlamaCppEngine` and `OpenVinoEngine`."""
    if settings.engine == "openvino":
        from ggrank.engine.openvino import OpenVinoEngine

        return OpenVinoEngine(path, settings)
    from ggrank.engine.llama_cpp_engine import LlamaCppEngine

    return LlamaCppEngine(path, settings)


def why_not_openvino(file: GgufFile) -> str | None:
    """Why the engine "openvino" cannot compute a file, in a few words; None where it can."""
    if file.architecture != "bert":
        return f"it computes BERT and XLM-R, and {file.path.name} is {file.architecture}"
    if "blk.0.attn_q.weight" not in file.tensors:
        return f"{file.path.name} keeps queries, keys and values in one matrix"
    return None
