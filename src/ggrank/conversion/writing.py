"""The one writer of GGUF files: keys and tensors, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ggrank.conversion.original import Json, Tensor
from ggrank.errors import GgrankError, InputError, ModelFileError

OnProgress = Callable[[str, int, int], object]
"""Is called with the step, how much of it is done, and how much there is."""


def ignore_progress(_step: str, _done: int, _total: int) -> None:
    """Shows no progress."""


def import_gguf() -> Any:
    """The package ``gguf``.

    Raises:
        InputError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise InputError("ggrank convert needs the package gguf: pip install 'ggrank[convert]'") from error
    return gguf


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
    """A temporary path in the folder of ``output``; its file becomes ``output`` if the block raises nothing.

    Raises:
        ModelFileError: the disk is full, or must not be written to.
    """
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


def check_output(output: Path, *, force: bool) -> None:
    """Raises InputError if a file would be overwritten, or its folder does not exist."""
    if output.is_dir() or not output.parent.is_dir():
        raise InputError(f"expected the path of a file to write in a folder that exists, found {output}")
    if output.exists() and not force:
        raise InputError(f"{output} exists already: set --force to replace it, or give another name")
