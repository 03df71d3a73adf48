"""Writes the small GGUF models that tests load: ``write("bert-reranker", directory)``.

Each kind has a seed: a file has the same bytes wherever it is written. `KINDS` are sound models, with goldens
from torch in ``tests/goldens/tiny``; `tiny.models.MORE_KINDS` and `tiny.gguf_layout.CHANGES` have more.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tiny import gguf_layout, models

KINDS = tuple(models.KINDS)

_FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "q4_k_m": 15}
"""``enum llama_ftype``, llama.h."""


def write(kind: str, directory: Path, *, dtype: str = "f32") -> Path:
    """Writes one model, or finds it there, and returns its path: ``directory / f"{kind}-{dtype}.gguf"``.

    Args:
        kind: one of those.
        directory: made when it does not exist; one directory for a whole test session writes each file once.
        dtype: "f32"; or "f16", "q8_0", "q4_k_m", which llama.cpp's own quantizer makes from it.
    """
    path = Path(directory) / f"{kind}-{dtype}.gguf"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    if dtype == "f32":
        gguf_layout.write(kind, unfinished)
    else:
        quantize(write(kind, directory), unfinished, dtype=dtype)
    shutil.move(unfinished, path)
    return path


def quantize(source: Path, target: Path, *, dtype: str) -> Path:
    """Writes a model in another format, by llama.cpp's own quantizer; in "f32" its numbers stay."""
    from ggrank.engine.library import api, start_backend

    start_backend()  # llama.cpp's log goes to ours: llama-cpp-python's cannot read a word that is cut off
    params = api.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = _FILE_TYPES[dtype], True
    params.nthread = 1
    status = api.llama_model_quantize(str(source).encode(), str(target).encode(), params)
    if status != 0:
        raise RuntimeError(f"llama.cpp could not write {source.name} as {dtype}")
    return target
