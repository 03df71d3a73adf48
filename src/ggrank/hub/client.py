"""The Hugging Face hub: the cache, the list of a repo's files, downloads, and failures in ggrank's words.

``huggingface_hub`` is imported when a repo's file is asked for and not before; written against version 2.4.
"""

from __future__ import annotations

import difflib
import errno
import logging
import os
import re
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from ggrank.errors import DownloadError, GgrankError, InputError, ModelNotFoundError

T = TypeVar("T")

_log = logging.getLogger(__name__)

_SECRETS = re.compile(r"hf_[A-Za-z0-9]{16,}|Bearer [^\s'\"]+|(?<=://)[^/@\s]+(?=@)")
_SHARD = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.gguf$")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


@dataclass(frozen=True)
class HubFile:
    """One file of a repo ``"org/name"``."""

    repo: str
    file: str | None = None
    """Its path in the repo; None means the repo's only ``.gguf`` file."""
    revision: str | None = None
    sha256: str | None = None
    size: int | None = None

    def __str__(self) -> str:
        return f"{self.repo}/{self.file}" if self.file else self.repo


@dataclass(frozen=True)
class HubAccess:
    """How the hub is reached; None leaves it to huggingface_hub and its environment variables.

    Example:
        >>> HubAccess("hf_secret", endpoint="https://name:password@mirror.example/").page
        'https://***@mirror.example'
        >>> HubAccess("hf_secret")
        HubAccess(cache_dir=None, endpoint=None, local_files_only=False)
    """

    token: str | None = field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None
    endpoint: str | None = None
    local_files_only: bool = False

    def __post_init__(self) -> None:
        if self.token is not None and not re.fullmatch(r"[!-~]+", self.token):
            raise InputError("the token holds spaces, line ends or other characters that no token has")

    @property
    def offline(self) -> bool:
        """Whether the network must not be used."""
        return self.local_files_only or bool(_constants().HF_HUB_OFFLINE)

    @property
    def address(self) -> str:
        """The hub's address, without a slash at the end."""
        return (self.endpoint or _constants().ENDPOINT).rstrip("/")

    @property
    def cache(self) -> Path:
        """The directory of Hugging Face's cache."""
        return Path(self.cache_dir or _constants().HF_HUB_CACHE).expanduser()

    @property
    def page(self) -> str:
        """The hub's address for people to read: without a password that it may hold."""
        return self.without_secrets(self.address)

    def without_secrets(self, text: str) -> str:
        """The text without tokens, and without the password in an address."""
        for token in (self.token or "", os.environ.get("HF_TOKEN", "").strip()):
            # Replacing a "token" of two letters would garble every sentence.
            text = text.replace(token, "***") if len(token) > 5 else text
        return _SECRETS.sub("***", text)


def _constants() -> ModuleType:
    from huggingface_hub import constants

    return constants


def cached(file: HubFile, access: HubAccess) -> Path | None:
    """The file of that revision in the cache, or None. No network, nothing is written."""
    from huggingface_hub import try_to_load_from_cache

    def look() -> object:
        return try_to_load_from_cache(file.repo, file.file or "", access.cache, file.revision)

    found = _translate_errors(look, file, access)
    return Path(found) if isinstance(found, str) else None


def sum_in_cache(path: Path) -> str | None:
    """The sha256 that the hub gave for a cached file: it is the name of the blob that the file links to."""
    name = path.readlink().name if path.is_symlink() else ""
    return name if _SHA256.fullmatch(name) else None


def look_up(file: HubFile, access: HubAccess) -> HubFile:
    """The file's name, sha256 and size from the hub, in one request."""
    files = list_files(file, access)
    name = file.file or _only_gguf(file.repo, files)
    if name not in files:
        ggufs = _gguf_files(files)
        meant = "".join(f" Did you mean {near!r}?" for near in difflib.get_close_matches(name, ggufs, n=1))
        listed = ", ".join(ggufs) or "none"
        raise ModelNotFoundError(f"{file.repo} has no file {name!r}.{meant} Its .gguf files: {listed}")
    return replace(files[name], revision=file.revision)


def list_files(repo: HubFile, access: HubAccess) -> dict[str, HubFile]:
    """All files of a repo's revision by name, with the commit that the revision names now; one request."""
    from huggingface_hub import HfApi

    api = HfApi(endpoint=access.address, token=access.token, library_name="ggrank")
    options = {"revision": repo.revision, "timeout": _constants().HF_HUB_ETAG_TIMEOUT}
    info = _translate_errors(lambda: api.model_info(repo.repo, files_metadata=True, **options), repo, access)
    files = {}
    for one in info.siblings or ():
        sha256, size = (one.lfs.sha256, one.lfs.size) if one.lfs else (None, one.size)
        files[one.rfilename] = HubFile(repo.repo, one.rfilename, info.sha, sha256, size)
    return files


def _gguf_files(names: Collection[str]) -> list[str]:
    """The files that hold a whole model: no pieces of one, no image projectors."""
    whole = re.compile(r"(.*/)?(?!mmproj)[^/]+\.gguf")
    return sorted(name for name in names if whole.fullmatch(name) and not _SHARD.search(name))


def _only_gguf(repo: str, names: Collection[str]) -> str:
    files = _gguf_files(names)
    if len(files) == 1:
        return files[0]
    if files:
        raise ModelNotFoundError(
            f"{repo} has {len(files)} .gguf files; say which one with --filename (filename in Python): "
            f"{', '.join(files)}"
        )
    if any(_SHARD.search(name) for name in names):
        raise ModelNotFoundError(
            f"{repo} holds its model only in several pieces, which ggrank does not load: "
            "join them with llama.cpp's llama-gguf-split --merge and load the result by its path."
        )
    raise ModelNotFoundError(f"{repo} has no .gguf file: look for the model's repo with GGUF in its name.")


def fetch(file: HubFile, access: HubAccess, directory: Path | None = None) -> Path:
    """Downloads into the cache, or as a plain file into ``directory``.

    huggingface_hub resumes broken connections, shows progress on a terminal, and renames a file when it is
    complete.
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

    return Path(_translate_errors(lambda: _despite_resets(get), file, access, directory))


def _despite_resets(get: Callable[[], T], *, resets: int = 2) -> T:
    """Downloads again if the connection was reset, after which huggingface_hub 2.4 does not resume.

    ``http_get`` in its file_download.py does not catch ``ReadError``.
    """
    try:
        return get()
    except Exception as error:
        if resets == 0 or not isinstance(_root(error), ConnectionResetError):
            raise
    _log.warning("The connection was reset. Starting the download again.")
    return _despite_resets(get, resets=resets - 1)


def _translate_errors(
    call: Callable[[], T], file: HubFile, access: HubAccess, directory: Path | None = None
) -> T:
    """The client's answer; a failure of it becomes one of ggrank's errors."""
    try:
        return call()
    except Exception as error:  # errors of five libraries come through the client
        problem = _explain(error, file, access, directory or access.cache)
    # Not raised in the ``except`` block, so that it has no chain of causes: some of those libraries put
    # request headers, and so the token, into their errors.
    raise problem


def _explain(error: Exception, file: HubFile, access: HubAccess, target: Path) -> GgrankError:
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return _explain_status(error, file, access)
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        size = "size unknown" if file.size is None else f"{file.size:,} bytes"
        existing = next(place for place in (target, *target.absolute().parents) if place.exists())
        free = f"{shutil.disk_usage(existing).free:,} bytes are free there"
        return DownloadError(
            f"No room to write {file} ({size}) to {target}: {error.strerror}; {free}. "
            "Free some, or choose another folder with HF_HOME (cache_dir in Python)."
        )
    if isinstance(error, OSError) and error.errno in _NO_PLACE:
        return DownloadError(
            f"{error.filename or target} cannot be written to: {error.strerror}. "
            "Choose another folder with HF_HOME (cache_dir in Python)."
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
    """The error for an answer of the hub that is not a success."""
    from huggingface_hub import errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    hub = access.page
    pass_token = "HF_TOKEN (or token in Python) must hold a token that has access to it."
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
    """The first error in the chain of causes."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _in_one_line(error: BaseException, access: HubAccess) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {access.without_secrets(lines[0])}" if lines else type(error).__name__
