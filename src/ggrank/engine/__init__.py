"""llama.cpp, and OpenVINO for the files that it knows, behind one interface: `ggrank.types.Engine`.

    llama_cpp_engine.py, openvino/    the two engines
    base.py                           their common part: llama.cpp's tokenizer, limits, closing
    library.py                        llama.cpp's library
    weights.py                        a file's tensors as NumPy arrays
    lifetime.py, hardware.py          forks and the interpreter's end; this machine's processor

Importing this package loads neither library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ggrank.gguf import GgufFile
    from ggrank.types import Engine, EngineSettings


def start_engine(file: GgufFile, settings: EngineSettings) -> Engine:
    """A running engine."""
    if settings.engine == "openvino":
        from ggrank.engine.openvino import OpenVinoEngine

        return OpenVinoEngine(file, settings)
    from ggrank.engine.llama_cpp_engine import LlamaCppEngine

    return LlamaCppEngine(file, settings)


def why_not_openvino(file: GgufFile) -> str | None:
    """Why the engine "openvino" cannot compute a file, in a few words; None if it can."""
    if file.architecture != "bert":
        return f"it computes BERT and XLM-R, and {file.path.name} is {file.architecture}"
    if "blk.0.attn_q.weight" not in file.tensors:
        return f"{file.path.name} keeps queries, keys and values in one matrix"
    return None
