"""The model to convert: a folder or repo in the layout of transformers or sentence-transformers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError, ModelFileError, ModelNotFoundError
from ggrank.hub import find_folder
from ggrank.hub.names import REPO_ID

if TYPE_CHECKING:
    from gguf.utility import LocalTensor

Json = dict[str, Any]
Floats = NDArray[np.float32]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_READ = re.compile(
    r"(\d+_[A-Za-z]\w*/)?(model(-\d+-of-\d+)?\.safetensors|[^/]+\.json|vocab\.txt|sentencepiece\.bpe\.model)"
    r"|README\.md"
)
_NO_MODEL = (
    "has no config.json. Expected a model as transformers or sentence-transformers save it, with "
    "config.json, model.safetensors and a tokenizer."
)
_N_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
"""Of the types of numbers that can be read; https://huggingface.co/docs/safetensors, "Format"."""


@dataclass(frozen=True)
class Tensor:
    """Numbers that are read when they are needed: ``load`` gives float32 of ``shape``."""

    shape: tuple[int, ...]
    load: Callable[[], Floats]


Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Module:
    """One entry of modules.json: the last word of its type, such as "Pooling", its folder and settings."""

    name: str
    folder: Path
    config: Json


@dataclass(frozen=True)
class Original:
    """The model to convert, in the folder ``root``."""

    root: Path
    name: str
    repo: str = ""
    """``org/name``, if it came from a hub; ``commit`` is then the revision that was fetched."""
    commit: str = ""
    modules: tuple[Module, ...] = ()
    """Those of sentence-transformers, in order; empty for a folder of transformers alone."""

    @property
    def folder(self) -> Path:
        """The folder of config.json, the weights and the tokenizer."""
        return self.modules[0].folder if self.modules else self.root

    @cached_property
    def config(self) -> Json:
        """config.json."""
        if not (self.folder / "config.json").is_file():
            raise ModelFileError(f"{self.folder} {_NO_MODEL}")
        return self.json("config.json")

    def json(self, name: str) -> Json:
        """A file of settings beside config.json; empty if there is none."""
        return read_json(self.folder / name)

    @cached_property
    def card(self) -> Json:
        """Licence and languages from the head of README.md."""
        from huggingface_hub.repocard import metadata_load

        try:
            return dict(metadata_load(self.root / "README.md") or {})
        except Exception:  # a missing or broken card does not make the model unusable
            return {}

    @cached_property
    def readme(self) -> str:
        """README.md; empty if there is none."""
        path = self.root / "README.md"
        return path.read_text("utf-8", "replace") if path.is_file() else ""


def find_original(source: str | Path, *, revision: str | None) -> Original:
    """The model in the folder ``source``, else in the Hugging Face repo of that name."""
    path, name = Path(source).expanduser(), str(source)
    if path.is_dir():
        if revision is not None:
            raise InputError(f"revision {revision!r} chooses inside a Hugging Face repo; {name} is a folder")
        original = Original(path, path.resolve().name)
    elif not path.exists() and REPO_ID.fullmatch(name):
        root = find_folder(name, lambda names: _choose_files(names, name), revision=revision)
        commit = root.name if _COMMIT.fullmatch(root.name) else ""
        original = Original(root, name.split("/")[1], name, commit)
    else:
        raise ModelNotFoundError(
            f"Expected a folder with a model of transformers, or a Hugging Face repo id (org/name), "
            f"found {name!r}"
        )
    return replace(original, modules=_modules(original.root))


def _choose_files(names: Collection[str], source: str) -> list[str]:
    chosen = [name for name in names if _READ.fullmatch(name)]
    if not any(name.endswith(".safetensors") for name in chosen):
        _refuse_pickles(names, source)
    if not any(name.rpartition("/")[2] in ("config.json", "modules.json") for name in chosen):
        is_gguf = any(name.lower().endswith(".gguf") for name in names)
        advice = " It holds GGUF files, which need no conversion: load it by its name." if is_gguf else ""
        raise ModelFileError(f"{source} {_NO_MODEL}{advice}")
    return chosen


def _refuse_pickles(names: Iterable[str], source: str | Path) -> None:
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        raise ModelFileError(
            f"{source} holds its weights as pickles ({', '.join(pickles[:3])}), which can run any code when "
            "they are read. Expected safetensors: load it with transformers where you trust it and save it "
            "again with save_pretrained(folder), or try https://huggingface.co/spaces/safetensors/convert."
        )


def read_json(path: Path) -> Json:
    """An object of JSON; empty if there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelFileError(f"{path} is not JSON ({error}): download or save it again.") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} should hold a JSON object, found {type(value).__name__}")
    return value


def _modules(root: Path) -> tuple[Module, ...]:
    path = root / "modules.json"
    if not path.is_file():
        return ()
    try:
        entries = json.loads(path.read_text("utf-8"))
        listed = [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path} is not a list of modules ({error!r}): save the model again.") from None
    # The first module's config.json, in no folder of its own, is the transformer's.
    return tuple(
        Module(name, root / folder, read_json(root / folder / "config.json") if folder else {})
        for name, folder in listed
    )


def read_tensors(folder: Path) -> Tensors:
    """The tensors of a folder's safetensors, in one file or in several with an index."""
    index = read_json(folder / "model.safetensors.index.json").get("weight_map")
    names = sorted(set(index.values())) if isinstance(index, dict) else ["model.safetensors"]
    tensors: Tensors = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            _refuse_pickles((file.name for file in folder.iterdir()), folder)
            raise ModelFileError(
                f"{path} is missing: expected the model's weights. Save or download it again."
            )
        tensors |= _tensors_of(path)
    if isinstance(index, dict) and (missing := sorted(set(index) - set(tensors))):
        raise ModelFileError(f"{folder} lacks {missing[0]!r} and {len(missing) - 1} more of its index.")
    return tensors


def _tensors_of(path: Path) -> Tensors:
    from gguf.utility import SafetensorsLocal

    try:
        stored = SafetensorsLocal(path).tensors
        in_order = sorted(stored.items(), key=lambda item: item[1].data_range.offset)
        return {name: _tensor(one, path.stat().st_size) for name, one in in_order}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFileError(
            f"{path} is not a safetensors file, or is cut off ({error}): save or download it again."
        ) from None


def _tensor(stored: LocalTensor, file_size: int) -> Tensor:
    shape, n_bytes = stored.shape, stored.data_range.size
    expected = math.prod(shape) * _N_BYTES.get(stored.dtype, 0)
    if stored.data_range.offset + n_bytes > file_size or expected not in (0, n_bytes):
        raise ValueError(f"{n_bytes:,} bytes of type {stored.dtype} for shape {shape}")
    return Tensor(shape, lambda: _read(stored).reshape(shape))


def _read(stored: LocalTensor) -> Floats:
    if stored.dtype not in _N_BYTES:
        raise ModelFileError(
            f"{stored.data_range.filename} holds numbers of type {stored.dtype}; expected float32, float16 "
            "or bfloat16. Convert the model that was trained, not a quantized copy of it."
        )
    data = stored.mmap_bytes()
    if stored.dtype == "BF16":
        return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)
    return data.view("<f4" if stored.dtype == "F32" else "<f2").astype(np.float32)
