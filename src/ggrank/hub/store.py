"""A repo's file on this disk: found where it is already, else downloaded, and compared with its sum."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from ggrank.errors import ChecksumError, DownloadError, InputError, ModelNotFoundError
from ggrank.hub import client
from ggrank.hub.checksums import Expected, check
from ggrank.hub.client import HubAccess, HubFile
from ggrank.rows import records
from ggrank.rows.writing import written

DOWNLOADS = "downloads"
"""The record of repos' files: ``repo@revision/file`` -> sha256, size, path; ``repo@revision`` -> file."""

PINNED = "as ggrank's catalogue pins it"
_RECORDED = "as recorded at its first download"
_NAMED = "as the hub names it"


def obtain(file: HubFile, access: HubAccess, directory: Path | None = None) -> Path:
    """The file's path, after a download if it is not here yet; checked, and remembered for the next time."""
    file = with_name(file)
    path = present(file, access, directory)
    if path is None:
        file = _ask_hub(file, access)
        path = client.fetch(file, access, directory)
    found = check(path, expected_of(file, path))
    if directory is not None and file.file and path != directory / file.file:
        path = copy(path, directory / file.file)
        check(path, expected_of(file, path))
    _remember(file, sha256=found, size=path.stat().st_size, path=str(path.absolute()))
    return path


def obtain_folder(repo: HubFile, access: HubAccess, choose: Callable[[Collection[str]], list[str]]) -> Path:
    """A folder of the cache with those of a repo's files that ``choose`` returns for the list of their names.

    Without network it is the folder of an earlier call.
    """
    if access.offline:
        cached = (client.cached(replace(repo, file=name), access) for name in ("config.json", "modules.json"))
        found = next(filter(None, cached), None)
        if found is None:
            raise ModelNotFoundError(_not_here(repo, access))
        return found.parent
    files = client.list_files(repo, access)
    for name in choose(files):
        file = files[name]
        path = client.cached(file, access) or client.fetch(file, access)
        check(path, Expected(file.sha256, file.size, _NAMED))
    return path.parents[name.count("/")]


def present(file: HubFile, access: HubAccess, directory: Path | None = None) -> Path | None:
    """Where the file is on this machine, or None: ``directory``, the last download, the cache."""
    if file.file is None:
        return None
    if directory is not None and (directory / file.file).is_file():
        return directory / file.file
    recorded = _recall(file).get("path")
    # Callers who name a cache expect the file in there, not one that lies elsewhere.
    if recorded and access.cache_dir is None and Path(str(recorded)).is_file():
        return Path(str(recorded))
    return client.cached(file, access)


def with_name(file: HubFile) -> HubFile:
    """The same file, with its name if an earlier call has asked the hub for it."""
    return file if file.file else replace(file, file=_recall(file).get("file"))


def expected_of(file: HubFile, path: Path | None = None) -> Expected:
    """The expected sum: the pinned one, else the recorded one, else the one that names the cache's blob."""
    recorded = _recall(file)
    size = file.size or recorded.get("size")
    if file.sha256:
        return Expected(file.sha256, size, PINNED)
    if recorded.get("sha256"):
        return Expected(recorded["sha256"], size, _RECORDED)
    return Expected(client.sum_in_cache(path) if path else None, size, _NAMED)


def expected_at(path: Path) -> Expected:
    """The expected sum of the file at that path, if it was downloaded by ggrank."""
    for facts in records.recall(DOWNLOADS).values():
        if isinstance(facts, dict) and facts.get("path") == str(path.absolute()):
            return Expected(facts.get("sha256"), facts.get("size"), _RECORDED)
    return Expected()


def copy(source: Path, target: Path) -> Path:
    """Copies a file; one that is at ``target`` already is left alone."""
    if target.is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with written(target) as unfinished:
            shutil.copyfile(source, unfinished)
            shutil.copymode(source, unfinished)
    except (OSError, InputError) as error:
        raise DownloadError(f"Cannot copy {source} to {target}: {error}") from None
    return target


def _ask_hub(file: HubFile, access: HubAccess) -> HubFile:
    """The file with its name and expected size.

    The sum is recorded before the download begins. Otherwise a damaged download that ends in an error would
    be taken for the original at the next start.
    """
    if access.offline:
        raise ModelNotFoundError(_not_here(file, access))
    remote = client.look_up(file, access)
    known = expected_of(replace(file, file=remote.file))
    if known.sha256 and remote.sha256 and known.sha256 != remote.sha256:
        raise ChecksumError(
            f"The hub now has another file as {remote}: sha256 {remote.sha256}, expected {known.sha256}, "
            f"{known.source}. Nothing was downloaded. If the new file is wanted, choose its revision."
        )
    if file.file is None:
        records.remember(DOWNLOADS, {_key(file): {"file": remote.file}})
    file = replace(file, file=remote.file)
    _remember(file, sha256=known.sha256 or remote.sha256, size=known.size or remote.size)
    return replace(file, size=known.size or remote.size)


def _not_here(file: HubFile, access: HubAccess) -> str:
    return (
        f"{file} is not on this machine, and HF_HUB_OFFLINE or local_files_only keeps ggrank off the "
        f"network. Looked in {access.cache}. Download it once with the network on, or give a path."
    )


def _key(file: HubFile) -> str:
    repo = f"{file.repo}@{file.revision or 'main'}"
    return f"{repo}/{file.file}" if file.file else repo


def _recall(file: HubFile) -> dict[str, Any]:
    facts = records.recall(DOWNLOADS).get(_key(file))
    return facts if isinstance(facts, dict) else {}


def _remember(file: HubFile, **facts: Any) -> None:
    known = _recall(file)
    if {**known, **facts} != known:
        records.remember(DOWNLOADS, {_key(file): {**known, **facts}})
