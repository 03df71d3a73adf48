"""The catalogue: models that ggrank knows by name, read from ``presets.toml``.

Knows what is written down about a model; not whether its file is on this machine, nor how to get it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ggrank.errors import ModelNotFoundError
from ggrank.types import PoolingType

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PACKAGE = Path(__file__).resolve().parent
BUNDLED_MODELS = _PACKAGE / "models"
"""The directory of the model files that travel inside the package."""


@dataclass(frozen=True)
class Preset:
    """A model by name. What is not known is None or empty, never guessed.

    Attributes:
        name: what people type, such as ``"bge-small-en-v1.5"``.
        summary: one line for a table.
        license: of the weights, an SPDX id.
        file: the file's name in its repo, or in the package.
        repo: the Hugging Face repo that has the file; empty for a bundled model.
        revision: the commit that is pinned; None for the repo's main branch.
        sha256: of the file, 64 hex digits.
        size: of the file, in bytes.
        about_mb: roughly how many megabytes, where ``size`` is not known.
        pooling_type: how the model pools; `PoolingType.RANK` makes it a reranker.
        n_ctx: longest sequence in tokens, where it is not simply the file's own.
        query_prefix: what the model wants before a query.
        document_prefix: what the model wants before a document.
        least_dimensions: how short its vectors may be cut (Matryoshka), after a layer norm over all of them;
            None where they may not.
        bundled: True when the file travels inside the package.

    Example:
        >>> from ggrank.presets import presets
        >>> presets()["nomic-embed-text-v1.5"].query_prefix
        'search_query: '
    """

    name: str
    summary: str
    license: str
    file: str
    repo: str = ""
    revision: str | None = None
    sha256: str | None = None
    size: int | None = None
    about_mb: int | None = None
    pooling_type: PoolingType | None = None
    n_ctx: int | None = None
    query_prefix: str = ""
    document_prefix: str = ""
    least_dimensions: int | None = None
    bundled: bool = False

    @property
    def is_reranker(self) -> bool:
        """True for a model that scores pairs, False for one that makes vectors."""
        return self.pooling_type is PoolingType.RANK


@lru_cache(maxsize=1)
def presets() -> Mapping[str, Preset]:
    """All presets by name, in the catalogue's order: the bundled ones first.

    Example:
        >>> from ggrank.presets import presets
        >>> presets()["all-minilm-l6-v2"].bundled
        True
    """
    catalogue = tomllib.loads((_PACKAGE / "presets.toml").read_text("utf-8"))
    return MappingProxyType({name: _read_preset(name, entry) for name, entry in catalogue.items()})


def _read_preset(name: str, entry: dict[str, Any]) -> Preset:
    pooling = entry.pop("pooling_type", None)
    if entry.get("bundled"):
        entry["sha256"] = _bundled_sums().get(entry["file"])
    return Preset(name=name, pooling_type=PoolingType[pooling.upper()] if pooling else None, **entry)


def _bundled_sums() -> dict[str, str]:
    """The sums beside the bundled files, in the format of ``sha256sum``: ``<sum>  <file>``."""
    try:
        lines = (BUNDLED_MODELS / "SHA256SUMS").read_text("utf-8").splitlines()
    except OSError:
        return {}
    return {file: digest for digest, _, file in (line.partition("  ") for line in lines)}


def bundled_path(preset: Preset) -> Path:
    """The bundled model's file.

    Raises:
        ModelNotFoundError: this installation came without it.
    """
    path = BUNDLED_MODELS / preset.file
    if not path.is_file():
        raise ModelNotFoundError(
            f"The model {preset.name!r} travels inside the package, but {path} is missing: "
            "this installation is incomplete. Install ggrank again."
        )
    return path
