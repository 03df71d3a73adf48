"""The catalogue of models that have a name in ggrank, read from ``presets.toml``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ggrank.errors import InputError, ModelNotFoundError
from ggrank.hub.matryoshka import Matryoshka
from ggrank.types import PoolingType

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PACKAGE = Path(__file__).resolve().parent.parent
BUNDLED_MODELS = _PACKAGE / "models"
"""The directory of the model files that are part of the package."""

_OPEN_SOURCE = ("Apache-2.0", "MIT")


@dataclass(frozen=True)
class Preset:
    """A model by name. Facts that are not known are None or empty.

    Attributes:
        license: of the weights, an SPDX id; "Gemma" for the Gemma Terms of Use.
        file: the file's path in its repo, or its name in the package.
        languages: that it was trained for, as ISO 639-1 codes; if they are many, one word ("100+").
        revision: the commit that is pinned; None for the repo's main branch.
        about_mb: approximate megabytes, if ``size`` is not known.
        n_ctx: the longest sequence that it is loaded with, in tokens, if that is not ggrank's default.
        context: the longest sequence that its file allows, in tokens.
        width: numbers of a vector; None for a reranker.
        blend: of a reranker: the weight of the first stage, in logits (`ggrank.scoring.blend`).
    """

    name: str
    summary: str
    license: str
    file: str
    languages: tuple[str, ...] = ()
    repo: str = ""
    revision: str | None = None
    sha256: str | None = None
    size: int | None = None
    about_mb: int | None = None
    pooling_type: PoolingType | None = None
    n_ctx: int | None = None
    context: int | None = None
    width: int | None = None
    query_prefix: str = ""
    document_prefix: str = ""
    matryoshka: Matryoshka | None = None
    blend: float = 0.0
    bundled: bool = False

    @property
    def is_reranker(self) -> bool:
        """Whether it scores pairs; other models make vectors."""
        return self.pooling_type is PoolingType.RANK

    @property
    def is_multilingual(self) -> bool:
        """Whether it has so many languages that they are not listed."""
        return covers_many(self.languages)

    @property
    def is_open_source(self) -> bool:
        """Whether its licence is an open source licence."""
        return self.license in _OPEN_SOURCE

    @property
    def file_name(self) -> str:
        """The file's name, without the folder of its repo."""
        return self.file.rpartition("/")[2]


def covers_many(languages: Iterable[str]) -> bool:
    """Whether a model's languages are one word such as "100+" or "many"."""
    return any(len(language) != 2 for language in languages)


@lru_cache(maxsize=1)
def presets() -> Mapping[str, Preset]:
    """All presets by name, in the catalogue's order: the bundled ones first."""
    catalogue = tomllib.loads(Path(__file__).with_name("presets.toml").read_text("utf-8"))
    return MappingProxyType({name: _read_preset(name, entry) for name, entry in catalogue.items()})


def _read_preset(name: str, entry: dict[str, Any]) -> Preset:
    pooling = entry.pop("pooling_type", None)
    widths = entry.pop("matryoshka", None)
    if entry.get("bundled"):
        sums = BUNDLED_MODELS / "SHA256SUMS"
        lines = sums.read_text("utf-8").splitlines() if sums.is_file() else []
        entry["sha256"] = next((line[:64] for line in lines if line[66:] == entry["file"]), None)
    return Preset(
        name=name,
        languages=tuple(entry.pop("languages", ())),
        pooling_type=PoolingType[pooling.upper()] if pooling else None,
        matryoshka=Matryoshka.parse(widths) if widths else None,
        **entry,
    )


def preset_of_file(name: str) -> Preset | None:
    """The preset whose model a file holds, in whatever quantization, by the file's name."""
    names = (preset for preset in presets().values() if name.lower().startswith(preset.name))
    exact = (preset for preset in presets().values() if name == preset.file_name)
    return next(exact, None) or max(names, key=lambda preset: len(preset.name), default=None)


def multilingual_preset(*, reranker: bool) -> Preset:
    """The model to recommend if another cannot read a text."""
    return next(one for one in presets().values() if one.is_multilingual and one.is_reranker is reranker)


def check_dimensions(dimensions: int, *, model: str, n_embd: int, trained: Matryoshka | None) -> None:
    """Raises InputError if vectors must not be cut to this width; the model's own is always allowed."""
    if dimensions == n_embd or (trained and dimensions < n_embd and dimensions in trained.widths):
        return
    if trained is not None:
        whole = "" if n_embd in trained.widths else f", or {n_embd} for the whole vector"
        raise InputError(f"dimensions of {model} must be {trained}{whole}; found {dimensions}")
    allowing = [preset.name for preset in presets().values() if preset.matryoshka is not None]
    raise InputError(
        f"dimensions must be {n_embd}, found {dimensions}: {model} was not trained for shorter vectors "
        f"(Matryoshka). Models whose vectors may be cut: {', '.join(allowing)}"
    )


def bundled_path(preset: Preset) -> Path:
    """The bundled model's file."""
    path = BUNDLED_MODELS / preset.file
    if not path.is_file():
        raise ModelNotFoundError(
            f"The model {preset.name!r} is part of the package, but {path} is missing: "
            "this installation is incomplete. Install ggrank again."
        )
    return path
