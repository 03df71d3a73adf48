"""The models to measure: a folder for each, with the same weights in every form that is there.

Knows files and what a GGUF's header says; loads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ggrank.errors import ModelNotFoundError
from ggrank.gguf_file import GgufFile, open_gguf
from ggrank.hub import find_model

Job = Literal["embed", "rerank"]

BUNDLED = ("all-minilm-l6-v2", "ggrank-reranker-mini")

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
    return [_model(name, [find_model(name).path]) for name in BUNDLED]


def models_in(folder: Path) -> list[BenchModel]:
    """The model in a folder, or those in its folders.

    Raises:
        ModelNotFoundError: no GGUF file is there.
        ModelFileError: a file is no usable GGUF.
    """
    found = [
        _model(place.name, files)
        for place in [folder.resolve(), *sorted(path for path in folder.iterdir() if path.is_dir())]
        if (files := sorted(place.glob("*.gguf")))
    ]
    if not found:
        raise ModelNotFoundError(
            f"expected .gguf files in {folder} or in folders of it, found none; "
            "scripts/make_benchmark_models.py writes models to measure"
        )
    return found


def _model(name: str, files: list[Path]) -> BenchModel:
    headers = [open_gguf(path) for path in files]
    folder = files[0].parent
    onnx = {"fp32": folder / "onnx" / "model.onnx", "int8": folder / "onnx" / "model_int8.onnx"}
    return BenchModel(
        name=name,
        job="rerank" if headers[0].has_head else "embed",
        ggufs={header.quantization: header.path for header in headers},
        n_layer_parameters=_n_layer_parameters(headers[0]),
        n_ctx=min(MOST_TOKENS, headers[0].n_ctx_train),
        folder=folder if (folder / "model.safetensors").is_file() else None,
        onnx={precision: path for precision, path in onnx.items() if path.is_file()},
    )


def _n_layer_parameters(header: GgufFile) -> int:
    matrices = [tensor.shape for name, tensor in header.tensors.items() if name.startswith("blk.")]
    return sum(math.prod(shape) for shape in matrices if len(shape) == 2)
