"""The original: a folder or a repo in the layout of transformers, and of sentence-transformers on top of it.

Reads configurations, and lists the tensors of safetensors files, whose numbers are read one tensor at a time.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import InputError, ModelFileError, ModelNotFoundError
from ggrank.hub import find_folder

Json = dict[str, Any]
Floats = NDArray[np.float32]

WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MODULE = r"(\d+_[A-Za-z]\w*/)?"
_WANTED = re.compile(
    rf"{_MODULE}({WEIGHTS.pattern}|[^/]+\.json|vocab\.txt|sentencepiece\.bpe\.model)|README\.md"
)
_NO_MODEL = (
    "has no config.json. Expected a model as transformers or sentence-transformers save it, with "
    "config.json, model.safetensors and a tokenizer."
)
_TYPES = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of the numbers that can be read; https://huggingface.co/docs/safetensors, "Format"."""


@dataclass(frozen=True)
class Tensor:
    """Numbers that are made when they are needed: ``load`` gives float32 of ``shape``."""

    shape: tuple[int, ...]
    load: Callable[[], Floats]


@dataclass(frozen=True)
class Module:
    """One entry of modules.json: the last word of its type, such as "Pooling", its folder and settings."""

    kind: str
    folder: Path
    config: Json


@dataclass(frozen=True)
class Original:
    """What is to be converted.

    Attributes:
        root: the folder that holds it.
        name: the model's name, from its folder or repo.
        repo: ``org/name``, where it came from a hub; ``commit`` is then the revision that was fetched.
        modules: those of sentence-transformers, in order; empty for a folder of transformers alone.
    """

    root: Path
    name: str
    repo: str = ""
    commit: str = ""
    modules: tuple[Module, ...] = field(default=())

    @property
    def folder(self) -> Path:
        """Where config.json, the weights and the tokenizer lie."""
        return self.modules[0].folder if self.modules else self.root

    @cached_property
    def config(self) -> Json:
        """config.json."""
        if not (self.folder / "config.json").is_file():
            raise ModelFileError(f"{self.folder} {_NO_MODEL}")
        return self.json("config.json")

    def json(self, name: str) -> Json:
        """A file of settings beside config.json; empty where there is none."""
        return read_json(self.folder / name)

    @cached_property
    def card(self) -> Json:
        """What the head of README.md says: licence, languages."""
        from huggingface_hub.repocard import metadata_load

        path = self.root / "README.md"
        try:
            return dict(metadata_load(path) or {}) if path.is_file() else {}
        except Exception:  # the card is for people: whatever is wrong with it, the model is not
            return {}

    @cached_property
    def readme(self) -> str:
        """README.md; empty where there is none."""
        path = self.root / "README.md"
        return path.read_text("utf-8", "replace") if path.is_file() else ""

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the weights, by name."""
        return read_tensors(self.folder)


def find_original(source: str | Path, *, revision: str | None) -> Original:
    """The original that ``source`` means: a folder that exists, else a Hugging Face repo.

    Raises:
        ModelNotFoundError: neither a folder nor the name of a repo.
        InputError: ``revision`` for a folder.
        ModelFileError: the weights are pickles, or a settings file is no JSON.
        DownloadError: the hub could not be reached, or refused.
    """
    path, name = Path(source).expanduser(), str(source)
    if path.is_dir():
        if revision is not None:
            raise InputError(f"revision={revision!r} chooses inside a Hugging Face repo; {name} is a folder")
        original = Original(path, path.resolve().name)
    elif not path.exists() and _REPO_ID.fullmatch(name):
        root = find_folder(name, lambda names: choose_files(names, name), revision=revision)
        commit = root.name if _COMMIT.fullmatch(root.name) else ""
        original = Original(root, name.split("/")[1], name, commit)
    else:
        raise ModelNotFoundError(
            f"Expected a folder with a model of transformers, or a Hugging Face repo id (org/name), "
            f"found {name!r}"
        )
    return replace(original, modules=tuple(_modules(original.root)))


def choose_files(names: Collection[str], source: str) -> list[str]:
    """The files that a conversion reads.

    Raises:
        ModelFileError: there are pickles and no safetensors, or no model in this layout.
    """
    wanted = [name for name in names if _WANTED.fullmatch(name)]
    if not any(name.endswith(".safetensors") for name in wanted):
        _refuse_pickles(names, source)
    if not any(name.rpartition("/")[2] in ("config.json", "modules.json") for name in wanted):
        is_gguf = any(name.lower().endswith(".gguf") for name in names)
        advice = "It holds GGUF files, which need no conversion: load it by its name." if is_gguf else ""
        raise ModelFileError(f"{source} {_NO_MODEL} {advice}".rstrip())
    return wanted


def _refuse_pickles(names: Iterable[str], source: str | Path) -> None:
    if pickles := sorted(name for name in names if name.endswith(PICKLES)):
        raise ModelFileError(
            f"{source} holds its weights as pickles ({', '.join(pickles[:3])}), which can run any code when "
            "they are read. Expected safetensors: load it with transformers where you trust it and save it "
            "again with save_pretrained(folder), or try https://huggingface.co/spaces/safetensors/convert."
        )


def read_json(path: Path) -> Json:
    """An object of JSON; empty where there is no such file.

    Raises:
        ModelFileError: it is something else.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelFileError(f"{path} is no JSON ({error}): download or save it again.") from None
    if not isinstance(value, dict):
        raise ModelFileError(f"{path} should hold a JSON object, found {type(value).__name__}")
    return value


def _modules(root: Path) -> Iterable[Module]:
    path = root / "modules.json"
    if not path.is_file():
        return
    try:
        entries = json.loads(path.read_text("utf-8"))
        listed = [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise ModelFileError(f"{path} is no list of modules ({error!r}): save the model again.") from None
    for kind, folder in listed:
        # The first module's config.json is the transformer's own.
        yield Module(kind, root / folder, read_json(root / folder / "config.json") if folder else {})


# -- safetensors


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder's safetensors, in one file or in several with an index.

    Raises:
        ModelFileError: there are none, one is missing, or one is damaged.
    """
    index = read_json(folder / "model.safetensors.index.json").get("weight_map")
    names = sorted(set(index.values())) if isinstance(index, dict) else ["model.safetensors"]
    tensors: dict[str, Tensor] = {}
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


def _tensors_of(path: Path) -> dict[str, Tensor]:
    """Source: https://huggingface.co/docs/safetensors, "Format": 8 bytes of length, a JSON header, data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(n_header if n_header <= size else 0))
            header.pop("__metadata__", None)
            return {name: _tensor(path, 8 + n_header, size, entry) for name, entry in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelFileError(
                f"{path} is no safetensors file, or is cut off ({error}): save or download it again."
            ) from None


def _tensor(path: Path, start: int, size: int, entry: Mapping[str, Any]) -> Tensor:
    kind, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
    begin, end = (start + int(offset) for offset in entry["data_offsets"])
    if end > size or (kind in _TYPES and end - begin != math.prod(shape) * _TYPES[kind]):
        raise ValueError(f"{end - begin:,} bytes of type {kind} for shape {shape}")
    return Tensor(shape, lambda: _read(path, begin, end, kind).reshape(shape))


def _read(path: Path, begin: int, end: int, kind: str) -> Floats:
    if kind not in _TYPES:
        raise ModelFileError(
            f"{path} holds numbers of type {kind}; expected float32, float16 or bfloat16. Convert the model "
            "that was trained, not a quantized copy of it."
        )
    with path.open("rb") as file:
        file.seek(begin)
        data = np.fromfile(file, "<u4" if kind == "F32" else "<u2", (end - begin) // _TYPES[kind])
    if kind == "BF16":
        return (data.astype(np.uint32) << 16).view(np.float32)
    return data.view("<f4") if kind == "F32" else data.view("<f2").astype(np.float32)
