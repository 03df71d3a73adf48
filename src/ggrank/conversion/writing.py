"""The one writer of GGUF files: keys and tensors, one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from ggrank.conversion.original import Json, Tensor
from ggrank.errors import InputError, ModelFileError

if TYPE_CHECKING:
    import gguf

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and how much there is."""


def quiet(_what: str, _done: int, _total: int) -> None:
    """No progress to anyone."""


def write_gguf(
    path: Path, architecture: str, keys: Json, tensors: Mapping[str, Tensor], *, progress: Progress = quiet
) -> None:
    """Writes a GGUF in float32; the same bytes for the same arguments.

    Args:
        keys: by name, in the file's order. Numbers become uint32 or float32, lists arrays.
        tensors: by llama.cpp's names, in the file's order. Each is loaded, written and forgotten.
    """
    gguf = import_gguf()
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys.items():
        _add(writer, key, value)
    for name, tensor in tensors.items():
        n_bytes = 4 * int(np.prod(tensor.shape))
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), n_bytes)
    with _writing(path):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
    for done, tensor in enumerate(tensors.values()):
        progress("writing", done, len(tensors))
        values = np.ascontiguousarray(tensor.load(), dtype=np.float32)
        with _writing(path):
            writer.write_tensor_data(values)
    progress("writing", len(tensors), len(tensors))
    with _writing(path):
        writer.close()


def copy_gguf(source: Path, target: Path, changed: Json) -> None:
    """The same tensors, byte by byte, and the same keys but for those that are ``changed`` or added."""
    gguf = import_gguf()
    reader = gguf.GGUFReader(source)
    old = {
        name: field.contents()
        for name, field in reader.fields.items()
        if not name.startswith(("GGUF.", "general.arch"))
    }
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for key, value in {**old, **changed}.items():
        _add(writer, key, value)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


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


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


@contextmanager
def unfinished(output: Path, *, force: bool) -> Iterator[Path]:
    """A scratch path beside ``output``, which takes its place when the block ends well.

    Raises:
        InputError: there is a file already, and no ``force``; or the folder is none.
        ModelFileError: the disk is full, or may not be written to.
    """
    refuse_to_overwrite(output, force=force)
    with _writing(output):
        scratch = TemporaryDirectory(dir=output.parent, prefix=".ggrank-convert-", ignore_cleanup_errors=True)
    with scratch:
        path = Path(scratch.name) / output.name
        yield path
        with _writing(output):
            path.replace(output)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelFileError(
            f"{path.name} cannot be written: {error.strerror or error}. Choose another folder, or free space."
        ) from error


def refuse_to_overwrite(output: Path, *, force: bool) -> None:
    """Raises InputError where a file would be overwritten, or there is no folder for it."""
    if output.is_dir() or not output.parent.is_dir():
        raise InputError(f"expected the path of a file to write in a folder that exists, found {output}")
    if output.exists() and not force:
        raise InputError(f"{output} exists already: give --force (force=True) to replace it, or another name")
