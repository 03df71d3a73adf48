"""Names to files: a preset's name, a path or a Hugging Face repo id becomes a GGUF file on this disk.

    name -> path
         -> preset, repo -> a file that is here | the cache | a download -> size and sha256 checked -> path

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
from ggrank.hub.names import Named, read_name
from ggrank.hub.presets import Preset as Preset
from ggrank.hub.presets import presets as presets


@dataclass(frozen=True)
class ModelSource:
    """A model's file, and the preset of the name that was asked for (None for a path or a repo)."""

    path: Path
    preset: Preset | None


@dataclass(frozen=True)
class DownloadPlan:
    """What `download` would do, without a network call.

    Attributes:
        name: as it was asked for.
        here: the file, if it is on this machine already and nothing would be downloaded.
        url: its address; the repo's, while only the hub knows the file's name; empty for a bundled model.
        target: the file or the cache directory that it would be written to.
        size: in bytes; None if only the hub knows it.
        sha256: what it must have; None if only the hub knows it.
        preset: the preset of that name; None for a repo.
    """

    name: str
    here: Path | None
    url: str
    target: Path
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
    """The file of a model, downloaded first if it is not here.

    Args:
        model: a preset's name; a path (a `pathlib.Path`, any string that ends in ``.gguf``, or a string
            with a path separator that exists); else a repo id ``org/name``.
        filename: the file of the repo; needed if it has several ``.gguf`` files.
        revision: the repo's branch, tag or commit.
        token: for private and gated repos; else ``HF_TOKEN``.
        cache_dir: the folder of downloads; else Hugging Face's own cache.
        endpoint: another hub's address; else ``HF_ENDPOINT``.
        local_files_only: never use the network, as ``HF_HUB_OFFLINE=1`` does.

    Raises:
        ModelNotFoundError: no such preset, path, repo, revision or file; or it is not on this machine
            and the network must not be used.
        DownloadError: the hub cannot be reached or refuses; `ChecksumError` for other bytes than expected.
        InputError: options that do not go together.

    Example:
        >>> find_model("all-minilm-l6-v2").path.name
        'all-minilm-l6-v2-q8_0.gguf'
    """
    named = read_name(model, filename=filename, revision=revision)
    if isinstance(named.location, Path):
        return ModelSource(named.location, named.preset)
    access = HubAccess(token, cache_dir, endpoint, local_files_only)
    return ModelSource(store.obtain(named.location, access), named.preset)


def find_folder(
    repo: str, choose: Callable[[Collection[str]], list[str]], *, revision: str | None = None
) -> Path:
    """A folder with files of a repo, downloaded first if they are not here; its name is the commit's.

    Args:
        repo: ``org/name``.
        choose: takes the names of all files, returns those to download; ``config.json`` is one of them.
        revision: branch, tag or commit; else the main branch.

    Raises:
        ModelNotFoundError: no such repo or revision; or it is not on this machine and the network must not
            be used.
        DownloadError: the hub cannot be reached or refuses; `ChecksumError` for other bytes than expected.
    """
    return store.obtain_folder(HubFile(repo, revision=revision), HubAccess(), choose)


def download(
    model: str | os.PathLike[str],
    *,
    directory: str | os.PathLike[str] | None = None,
    filename: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> ModelSource:
    """Like `find_model`, for a preset or a repo, with a choice of the folder.

    With ``directory`` the file is put there under its own name, as a plain file, and `find_model` finds it
    there from then on; otherwise it is put into the cache. The other options are `find_model`'s.

    Raises:
        InputError: ``model`` is a path. And what `find_model` raises.
    """
    named = read_name(model, filename=filename, revision=revision)
    target = None if directory is None else Path(directory).expanduser()
    if isinstance(named.location, HubFile):
        path = store.obtain(named.location, HubAccess(token, cache_dir, endpoint), target)
    else:
        path = _bundled(named)
        path = path if target is None else store.copy(path, target / path.name)
    return ModelSource(path, named.preset)


def plan(
    model: str | os.PathLike[str],
    *,
    directory: str | os.PathLike[str] | None = None,
    filename: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    endpoint: str | None = None,
) -> DownloadPlan:
    """What `download` would download, from where, to where, and how large it is. Changes nothing."""
    named = read_name(model, filename=filename, revision=revision)
    target = None if directory is None else Path(directory).expanduser()
    if isinstance(named.location, Path):
        path = _bundled(named)
        target = path if target is None else target / path.name
        sha256 = named.preset.sha256 if named.preset else None
        return DownloadPlan(str(model), path, "", target, path.stat().st_size, sha256, named.preset)
    access = HubAccess(cache_dir=cache_dir, endpoint=endpoint)
    file = store.with_name(named.location)
    expected = store.expected_of(file)
    return DownloadPlan(
        name=str(model),
        here=store.present(file, access, target),
        url=access.url_of(file),
        target=access.folder_of(file) if target is None else target / (file.file or ""),
        size=expected.size,
        sha256=expected.sha256,
        preset=named.preset,
    )


def _bundled(named: Named) -> Path:
    if named.preset is None or not isinstance(named.location, Path):
        raise InputError(f"{named.location} is a file, not a name: there is nothing to download")
    return named.location


def list_models(*, cache_dir: str | os.PathLike[str] | None = None) -> tuple[ModelStatus, ...]:
    """Every preset, and where its file is on this machine. No network."""
    access = HubAccess(cache_dir=cache_dir)
    return tuple(ModelStatus(preset, _where(preset, access)) for preset in presets().values())


def _where(preset: Preset, access: HubAccess) -> Path | None:
    try:
        location = read_name(preset.name).location
    except ModelNotFoundError:  # an installation without its bundled file
        return None
    return location if isinstance(location, Path) else store.present(location, access)


def verify(
    model: str | os.PathLike[str] | ModelSource,
    *,
    filename: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Verification:
    """Reads a model's file and compares its sum with the pinned or recorded one. No network.

    Raises:
        ModelNotFoundError: the file is not on this machine.
        ChecksumError: it holds other bytes than expected.
    """
    source = model
    if not isinstance(source, ModelSource):
        source = find_model(
            source, filename=filename, revision=revision, cache_dir=cache_dir, local_files_only=True
        )
    expected = store.expected_at(source.path)
    if expected.sha256 is None and source.preset is not None and source.path.name == source.preset.file_name:
        expected = Expected(source.preset.sha256, source.preset.size, store.PINNED)
    found = check(source.path, expected, again=True)
    return Verification(source.path, source.path.stat().st_size, found, expected.sha256)
