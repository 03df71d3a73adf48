"""Files of Hugging Face repos: what is in the cache, what the hub has, fetching, and failures in our words.

Knows ``huggingface_hub``, which is imported when a repo's file is asked for and not before. Knows no
presets and no GGUF. Written against huggingface_hub 2.4.
"""

from __future__ import annotations

import difflib
import errno
import logging
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ggrank.errors import DownloadError, GgrankError, InputError, ModelNotFoundError
from ggrank.hub.files import HubAccess, HubFile

T = TypeVar("T")

_log = logging.getLogger(__name__)

_SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.gguf$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


def cached(file: HubFile, access: HubAccess) -> Path | None:
    """The file in the cache, for that revision, or None. No network, nothing written."""
    from huggingface_hub import try_to_load_from_cache

    def look() -> object:
        return try_to_load_from_cache(
            file.repo, file.file or "", cache_dir=access.cache, revision=file.revision
        )

    found = _ask(look, file, access)
    return Path(found) if isinstance(found, str) else None


def sum_in_cache(path: Path) -> str | None:
    """The sha256 that the hub gave for a cached file: its link leads to a blob of that name."""
    if not path.is_symlink():
        return None
    name = path.readlink().name
    return name if _SHA256.fullmatch(name) else None


def look_up(file: HubFile, access: HubAccess) -> HubFile:
    """What the hub has: the file's name, sha256 and size. One request, not repeated.

    Raises:
        ModelNotFoundError: no such repo, revision or file, or several files to choose from.
        DownloadError: the hub cannot be reached or refuses.
    """
    files = list_files(file, access)
    name = file.file or _only_gguf(file.repo, files)
    if name not in files:
        raise ModelNotFoundError(f"{file.repo} has no file {name!r}.{_offer(name, files)}")
    return replace(files[name], revision=file.revision)


def list_files(repo: HubFile, access: HubAccess) -> dict[str, HubFile]:
    """All files of a repo's revision by name, each at the commit that the revision means now. One request.

    Raises:
        ModelNotFoundError: no such repo or revision.
        DownloadError: the hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=access.address, token=access.token, library_name="ggrank")
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    info = _ask(
        lambda: api.model_info(repo.repo, revision=repo.revision, files_metadata=True, timeout=timeout),
        repo,
        access,
    )
    return {
        one.rfilename: HubFile(
            repo.repo,
            one.rfilename,
            info.sha,
            sha256=one.lfs.sha256 if one.lfs else None,
            size=one.lfs.size if one.lfs else one.size,
        )
        for one in info.siblings or ()
    }


def _gguf_files(names: Collection[str]) -> list[str]:
    """The files that hold a whole model: no piece of one, no image projector."""
    return sorted(
        name
        for name in names
        if name.endswith(".gguf") and not _SHARD.search(name) and not name.split("/")[-1].startswith("mmproj")
    )


def _only_gguf(repo: str, names: Collection[str]) -> str:
    files = _gguf_files(names)
    if len(files) == 1:
        return files[0]
    if files:
        raise ModelNotFoundError(
            f"{repo} has {len(files)} .gguf files; say which one with filename=: {', '.join(files)}"
        )
    if any(_SHARD.search(name) for name in names):
        raise ModelNotFoundError(
            f"{repo} holds its model only in several pieces, which ggrank does not load: "
            "join them with llama.cpp's llama-gguf-split --merge and load the result by its path."
        )
    raise ModelNotFoundError(f"{repo} has no .gguf file: look for the model's repo with GGUF in its name.")


def _offer(name: str, names: Collection[str]) -> str:
    files = _gguf_files(names)
    near = difflib.get_close_matches(name, files, n=1)
    meant = f" Did you mean {near[0]!r}?" if near else ""
    return f"{meant} Its .gguf files: {', '.join(files) or 'none'}"


def fetch(file: HubFile, access: HubAccess, directory: Path | None = None) -> Path:
    """Downloads into the cache, or as a plain file into ``directory``; broken connections are resumed.

    The client writes to a file of another name and moves it when it is whole. Progress is shown on a
    terminal only. Both are huggingface_hub's doing.

    Raises:
        ModelNotFoundError: no such repo, revision or file.
        DownloadError: no network, no permission, no room on the disk, or a connection that broke for good.
    """
    from huggingface_hub import hf_hub_download

    def get() -> str:
        return hf_hub_download(
            file.repo,
            file.file or "",
            revision=file.revision,
            cache_dir=access.cache,
            local_dir=directory,
            token=access.token,
            endpoint=access.address,
            library_name="ggrank",
        )

    return Path(_ask(lambda: _despite_resets(get), file, access, directory))


def _despite_resets(get: Callable[[], T], *, resets: int = 2) -> T:
    """Tries again when the connection was reset, which the client takes for final.

    It resumes after a quiet end and after a timeout, but not after a reset (``ReadError`` is missing
    from what ``http_get`` in its file_download.py catches, version 2.4). Then the download begins anew.
    """
    try:
        return get()
    except Exception as error:
        if resets == 0 or not isinstance(_root(error), ConnectionResetError):
            raise
    _log.warning("The connection was reset. Starting the download again.")
    return _despite_resets(get, resets=resets - 1)


def _ask(question: Callable[[], T], file: HubFile, access: HubAccess, directory: Path | None = None) -> T:
    """The client's answer, or its failure as one error of ours."""
    try:
        return question()
    except Exception as error:  # the client lets through what five libraries raise
        problem = _explain(error, file, access, directory or access.cache)
    # Raised out here so that it drags no chain along: five tracebacks that say less than the
    # message, from libraries that put request headers, and so the token, into some of their errors.
    raise problem


def _explain(error: Exception, file: HubFile, access: HubAccess, target: Path) -> GgrankError:
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return _explain_status(error, file, access)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        return DownloadError(
            f"No room to write {file} ({_bytes(file.size)}) to {target}: {error.strerror}; {_free(target)}. "
            "Free some, or choose another place: cache_dir=, or the environment variable HF_HOME."
        )
    if isinstance(error, OSError) and error.errno in _NO_PLACE:
        return DownloadError(
            f"{error.filename or target} cannot be written to: {error.strerror}. "
            "Choose another place: cache_dir=, or the environment variable HF_HOME."
        )
    if isinstance(error, UnicodeEncodeError):  # a request's header, which holds the token
        return InputError("HF_TOKEN holds characters that no token has: copy it again")
    if isinstance(error, ValueError):
        return InputError(f"{file}: {access.without_secrets(str(error))}")
    return DownloadError(
        f"Could not download {file} from {access.page}: {_in_one_line(_root(error), access)}. "
        "Check the network and try again; HF_ENDPOINT chooses another hub."
    )


def _explain_status(error: Exception, file: HubFile, access: HubAccess) -> GgrankError:
    """For an answer of the hub that is not a success."""
    from huggingface_hub import errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    hub = access.page
    pass_token = "HF_TOKEN (or token=) must hold a token that has access to it."
    if isinstance(error, errors.GatedRepoError):
        page = f"{hub}/{file.repo}"
        return DownloadError(f"{file.repo} is gated: accept its terms at {page}. Then {pass_token}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelNotFoundError(
            f"{hub} has no repo {file.repo!r}, or it is private (status {status}). "
            f"Check the spelling; for a private repo, {pass_token}"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFoundError(f"{file.repo} at {hub} has no revision {file.revision!r}.")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return ModelNotFoundError(f"{file.repo} at {hub} has no file {file.file!r}.")
    if status in (401, 403):
        return DownloadError(f"{hub} refuses {file} (status {status}): {pass_token}")
    if status == 404:
        return ModelNotFoundError(f"{hub} knows nothing of {file} (status 404). Is it a Hugging Face hub?")
    return DownloadError(f"{hub} answered {file} with status {status}: try again later.")


def _root(error: BaseException) -> BaseException:
    """The first failure behind the client's own words."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _in_one_line(error: BaseException, access: HubAccess) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {access.without_secrets(lines[0])}" if lines else type(error).__name__


def _bytes(size: int | None) -> str:
    return "size unknown" if size is None else f"{size:,} bytes"


def _free(target: Path) -> str:
    existing = next(place for place in (target, *target.absolute().parents) if place.exists())
    return f"{shutil.disk_usage(existing).free:,} bytes are free there"
