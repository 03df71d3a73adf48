"""Names to files: a preset's name, a path or a Hugging Face repo id becomes a GGUF file on this disk.

    names.py       what a name means
    presets.py     what is known of a model: the catalogue in presets.toml
    store.py       where a repo's file is, and what it must hold
    client.py      the Hugging Face hub and its cache
    checksums.py   sha256 sums, remembered
    matryoshka.py  widths to which vectors may be cut

A file that is here needs no network call; for a bundled model or a path no network code is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from ggrank.errors import InputError, ModelNotFoundError
from ggrank.hub import store
from ggrank.hub.checksums import Expected, check
from ggrank.hub.client import HubAccess, HubFile
from ggrank.hub.names import read_name
from ggrank.hub.presets import Preset as Preset
from ggrank.hub.presets import presets as presets


@dataclass(frozen=True)
class ModelSource:
    """A model's file, and the preset of the name that was asked for (None for a path or a repo)."""

    path: Path
    preset: Preset | None


@dataclass(frozen=True)
class DownloadPlan:
    """What `download` would do, as far as it is known without a network call."""

    name: str
    here: Path | None
    """The file, if it is on this machine already and nothing would be downloaded."""
    url: str
    """The repo's, while only the hub knows the file's name; empty for a bundled model."""
    target: Path
    """The file or the cache directory that it would be written to."""
    size: int | None
    sha256: str | None
    preset: Preset | None


@dataclass(frozen=True)
class ModelStatus:
    """A preset, and its file on this machine; None if it must be downloaded first."""

    preset: Preset
    path: Path | None


@dataclass(frozen=True)
class Verification:
    """A file that was read: its sum, and the expected sum (None if it is not known)."""

    path: Path
    size: int
    sha256: str
    expected: str | None


def find_model(
    model: str | os.PathLike[str],
    *,
    filename: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
    local_files_only: bool = False,
) -> ModelSource:
    """The file of a model, downloaded first if it is not here; the options are those of `ggrank.LlamaParams`.

    Raises:
        ModelNotFoundError: no such preset, path, repo, revision or file; or it is not on this machine
            and the network must not be used.
        DownloadError: the hub cannot be reached or refuses; `ChecksumError` for other bytes than expected.
        InputError: options that do not go together.
    """
    location, preset = read_name(model, filename=filename, revision=revision)
    if isinstance(location, HubFile):
        location = store.obtain(location, HubAccess(token, cache_dir, endpoint, local_files_only))
    return ModelSource(location, preset)


def find_folder(
    repo: str, choose: Callable[[Collection[str]], list[str]], *, revision: str | None = None
) -> Path:
    """A folder with files of a repo, downloaded first if they are not here; its name is the commit's.

    ``choose`` takes the names of all files and returns those to download; ``config.json`` is one of them.
    """
    return store.obtain_folder(HubFile(repo, revision=revision), HubAccess(), choose)


def download(
    model: str | os.PathLike[str],
    *,
    directory: str | os.PathLike[str] | None = None,
    filename: str | None = None,
    revision: str | None = None,
    endpoint: str | None = None,
) -> ModelSource:
    """Like `find_model`, for a preset or a repo, into a folder or the cache.

    A file in ``directory`` has its own name and is no link; `find_model` finds it there from then on.
    """
    location, preset = read_name(model, filename=filename, revision=revision)
    target = None if directory is None else Path(directory).expanduser()
    if isinstance(location, HubFile):
        return ModelSource(store.obtain(location, HubAccess(endpoint=endpoint), target), preset)
    _refuse_path(location, preset)
    return ModelSource(location if target is None else store.copy(location, target / location.name), preset)


def plan(
    model: str | os.PathLike[str],
    *,
    directory: str | os.PathLike[str] | None = None,
    filename: str | None = None,
    revision: str | None = None,
    endpoint: str | None = None,
) -> DownloadPlan:
    """What `download` would download, from where, to where, and how large it is. Changes nothing."""
    location, preset = read_name(model, filename=filename, revision=revision)
    target = None if directory is None else Path(directory).expanduser()
    if isinstance(location, Path):
        sha256 = _refuse_path(location, preset).sha256
        target = location if target is None else target / location.name
        size = location.stat().st_size
        return DownloadPlan(str(model), location, "", target, size, sha256, preset)
    access = HubAccess(endpoint=endpoint)
    file = store.with_name(location)
    expected = store.expected_of(file)
    page, cache = f"{access.page}/{file.repo}", access.cache / f"models--{file.repo.replace('/', '--')}"
    return DownloadPlan(
        name=str(model),
        here=store.present(file, access, target),
        url=f"{page}/resolve/{file.revision or 'main'}/{file.file}" if file.file else page,
        target=cache if target is None else target / (file.file or ""),
        size=expected.size,
        sha256=expected.sha256,
        preset=preset,
    )


def _refuse_path(location: Path, preset: Preset | None) -> Preset:
    if preset is None:
        raise InputError(f"{location} is a file, not a name: there is nothing to download")
    return preset


def list_models() -> list[ModelStatus]:
    """Every preset, and where its file is on this machine. No network."""
    return [ModelStatus(preset, _where(preset)) for preset in presets().values()]


def _where(preset: Preset) -> Path | None:
    try:
        location, _ = read_name(preset.name)
    except ModelNotFoundError:  # an installation without its bundled file
        return None
    return location if isinstance(location, Path) else store.present(location, HubAccess())


def verify(model: str | os.PathLike[str] | ModelSource) -> Verification:
    """Reads a model's file and compares its sum with the pinned or recorded one. No network."""
    source = model if isinstance(model, ModelSource) else find_model(model, local_files_only=True)
    expected = store.expected_at(source.path)
    if expected.sha256 is None and source.preset is not None and source.path.name == source.preset.file_name:
        expected = Expected(source.preset.sha256, source.preset.size, store.PINNED)
    found = check(source.path, expected, again=True)
    return Verification(source.path, source.path.stat().st_size, found, expected.sha256)
