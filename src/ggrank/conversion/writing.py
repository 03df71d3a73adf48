"""Writes GGUF files: keys and tensors, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ggrank.conversion.network import Network
from ggrank.conversion.original import Json, Tensor
from ggrank.engine.library import quantize
from ggrank.errors import GgrankError, InputError, ModelFileError

OnProgress = Callable[[str, int, int], object]
"""Is called with the step, how much of it is done, and how much there is."""

_NARROW = 512
"""Up to this width a q8_0 file keeps its value projections in float16: llama.cpp rounds their inputs to 8
bits as well, and that hurts most there."""


def ignore_progress(_step: str, _done: int, _total: int) -> None:
    """Shows no progress."""


def import_gguf() -> Any:
    """The package ``gguf``; InputError if it is not installed."""
    try:
        import gguf
    except ImportError as error:
        raise InputError("ggrank convert needs the package gguf: pip install 'ggrank[convert]'") from error
    return gguf


def write_model(
    path: Path, network: Network, own_keys: Json, quantization: str, on_progress: OnProgress = ignore_progress
) -> None:
    """Writes the network in that format; until it is done, a float32 file lies beside it."""
    keys = {
        "general.type": "model",
        **own_keys,
        "general.file_type": 0,
        "general.quantization_version": 2,
        **network.keys,
    }
    f32 = path if quantization == "f32" else path.with_name(f"{path.name}.f32")
    write_gguf(f32, network.architecture, keys, network.tensors, on_progress=on_progress)
    if quantization != "f32":
        on_progress("quantizing", 0, 1)
        is_narrow = network.fact("embedding_length") <= _NARROW
        f16_tensors = r"attn_v\.weight" if quantization == "q8_0" and is_narrow else ""
        quantize(f32, path, quantization=quantization, f16_tensors=f16_tensors)
        f32.unlink()


def write_gguf(
    path: Path,
    architecture: str,
    keys: Json,
    tensors: Mapping[str, Tensor],
    *,
    on_progress: OnProgress = ignore_progress,
) -> None:
    """Writes a GGUF in float32; the same bytes for the same arguments.

    Args:
        keys: by name, in the file's order. Numbers become uint32 or float32, lists arrays.
        tensors: by llama.cpp's names, in the file's order; one of them is in memory at a time.
    """
    writer = import_gguf().GGUFWriter(path, architecture)
    adders = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
    }
    for key, value in keys.items():
        adders.get(type(value), writer.add_array)(key, value)
    for name, tensor in tensors.items():
        n_bytes = 4 * int(np.prod(tensor.shape))
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), n_bytes)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for done, tensor in enumerate(tensors.values()):
        on_progress("writing", done, len(tensors))
        writer.write_tensor_data(np.ascontiguousarray(tensor.load(), dtype=np.float32))
    writer.close()


@contextmanager
def replacing(output: Path) -> Iterator[Path]:
    """A temporary path beside ``output``, whose file becomes ``output`` if the block raises nothing."""
    try:
        with TemporaryDirectory(
            dir=output.parent, prefix=".ggrank-convert-", ignore_cleanup_errors=True
        ) as folder:
            path = Path(folder, output.name)
            yield path
            path.replace(output)
    except GgrankError:  # some of them are an OSError too
        raise
    except OSError as error:
        raise ModelFileError(
            f"{output.name} cannot be written: {error.strerror or error}. Choose another folder, or free "
            "space."
        ) from error
