"""The models to measure: a folder for each, with the same weights in every form that is there.

Knows files and what a GGUF's header says; loads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggrank.errors import InputError, ModelNotFoundError
from ggrank.gguf import GgufFile, open_gguf
from ggrank.hub import find_model

Job = Literal["embed", "rerank"]

BUNDLED = ("all-minilm-l6-v2", "ggrank-reranker-mini")

SAME_WEIGHTS = "model.safetensors"
"""The file of a Hugging Face folder that peers load."""

MOST_TOKENS = 512
"""Longest sequence that any subject is set up for; every text of the benchmark is shorter."""


@dataclass(frozen=True)
class BenchModel:
    """One model.

    Attributes:
        name: of its folder, or its preset.
        job: what it is measured at.
        ggufs: the GGUF files by quantization.
        n_layer_parameters: values of all matrices in its layers; each token is multiplied with every one.
        n_ctx: longest sequence in tokens.
        folder: its Hugging Face folder; None where there are only GGUF files.
        onnx: the ONNX files by precision, "fp32" and "int8".
    """

    name: str
    job: Job
    ggufs: Mapping[str, Path]
    n_layer_parameters: int
    n_ctx: int
    folder: Path | None
    onnx: Mapping[str, Path]


def bundled_models() -> list[BenchModel]:
    """The models in the package.

    Example:
        >>> [(model.name, model.job) for model in bundled_models()]
        [('all-minilm-l6-v2', 'embed'), ('ggrank-reranker-mini', 'rerank')]
    """
    return [_model(name, [open_gguf(find_model(name).path)]) for name in BUNDLED]


def models_in(folder: Path) -> list[BenchModel]:
    """The models in a folder, and in its folders.

    Files of one folder are one model where their names differ by the quantization only, such as
    ``bge-small-q8_0.gguf`` and ``bge-small-q4_k_m.gguf``, or where Hugging Face files lie beside them.

    Raises:
        ModelNotFoundError: no GGUF file is there.
        ModelFileError: a file is no usable GGUF.
        InputError: two files of one model have the same quantization.
    """
    places = [folder.resolve(), *sorted(path for path in folder.iterdir() if path.is_dir())]
    found = [model for place in places for model in _models_of(place)]
    if not found:
        raise ModelNotFoundError(
            f"expected .gguf files in {folder} or in folders of it, found none; "
            "scripts/make_benchmark_models.py writes models to measure"
        )
    return found


def _models_of(folder: Path) -> list[BenchModel]:
    models = _by_name(folder)
    return [_model(name if len(models) > 1 else folder.name, files) for name, files in models.items()]


def _by_name(folder: Path) -> dict[str, list[GgufFile]]:
    """The files of each model in one folder, by its name."""
    files = [open_gguf(path) for path in sorted(folder.glob("*.gguf"))]
    if files and (folder / SAME_WEIGHTS).is_file():
        return {folder.name: files}
    found: dict[str, list[GgufFile]] = {}
    for file in files:
        found.setdefault(_without_quantization(file), []).append(file)
    return found


def _without_quantization(file: GgufFile) -> str:
    stem, ending = file.path.stem, file.quantization
    return stem[: -len(ending)].rstrip("-._") if stem.lower().endswith(ending) else stem


def _model(name: str, headers: list[GgufFile]) -> BenchModel:
    ggufs = {header.quantization: header.path for header in headers}
    if len(ggufs) < len(headers):
        names = ", ".join(f"{header.path.name} ({header.quantization})" for header in headers)
        raise InputError(
            f"expected one file of each quantization in {headers[0].path.parent}, found {names}; give each "
            "model a folder of its own"
        )
    folder = headers[0].path.parent
    onnx = {"fp32": folder / "onnx" / "model.onnx", "int8": folder / "onnx" / "model_int8.onnx"}
    return BenchModel(
        name=name,
        job="rerank" if headers[0].has_head else "embed",
        ggufs=ggufs,
        n_layer_parameters=_n_layer_parameters(headers[0]),
        n_ctx=min(MOST_TOKENS, headers[0].n_ctx_train),
        folder=folder if (folder / SAME_WEIGHTS).is_file() else None,
        onnx={precision: path for precision, path in onnx.items() if path.is_file()},
    )


def _n_layer_parameters(header: GgufFile) -> int:
    matrices = [tensor.shape for name, tensor in header.tensors.items() if name.startswith("blk.")]
    return sum(math.prod(shape) for shape in matrices if len(shape) == 2)
