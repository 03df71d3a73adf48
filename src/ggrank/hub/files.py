"""Which file of which repo, and how the hub is reached: two values that the stages hand on.

Knows the environment variables that huggingface_hub reads (through its ``constants``, which load no
network code), and keeps the token out of every text. Opens nothing, asks nobody.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ggrank.errors import InputError

_SECRETS = re.compile(r"hf_[A-Za-z0-9]{16,}|Bearer [^\s'\"]+|(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True)
class HubFile:
    """One file of a repo, as far as it is known.

    Attributes:
        repo: ``"org/name"``.
        file: None means the repo's only ``.gguf`` file.
        revision: branch, tag or commit; None means the main branch.
        sha256: what the file must have, where that is known.
        size: in bytes, likewise.

    Example:
        >>> from ggrank.hub.files import HubFile
        >>> str(HubFile("org/model-GGUF", "model-q8_0.gguf"))
        'org/model-GGUF/model-q8_0.gguf'
    """

    repo: str
    file: str | None = None
    revision: str | None = None
    sha256: str | None = None
    size: int | None = None

    def __str__(self) -> str:
        return f"{self.repo}/{self.file}" if self.file else self.repo


@dataclass(frozen=True)
class HubAccess:
    """How the hub is reached; None leaves it to huggingface_hub and its environment variables.

    Raises:
        InputError: the token has characters that no token has. The message does not show it.

    Example:
        >>> from ggrank.hub.files import HubAccess
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
            raise InputError("token= holds spaces, line ends or other characters that no token has")

    @property
    def offline(self) -> bool:
        """True when the network must not be used."""
        from huggingface_hub import constants

        return self.local_files_only or bool(constants.HF_HUB_OFFLINE)

    @property
    def address(self) -> str:
        """The hub's address, without a slash at the end."""
        from huggingface_hub import constants

        return (self.endpoint or constants.ENDPOINT).rstrip("/")

    @property
    def cache(self) -> Path:
        """The directory of Hugging Face's cache."""
        from huggingface_hub import constants

        return Path(self.cache_dir or constants.HF_HUB_CACHE).expanduser()

    @property
    def page(self) -> str:
        """The hub's address for people to read: without a password that it may hold."""
        return self.without_secrets(self.address)

    def without_secrets(self, text: str) -> str:
        """The text without tokens, and without the password in an address."""
        for token in (self.token or "", os.environ.get("HF_TOKEN", "").strip()):
            # A "token" of two letters is none, and replacing it would garble every sentence.
            text = text.replace(token, "***") if len(token) > 5 else text
        return _SECRETS.sub("***", text)

    def url_of(self, file: HubFile) -> str:
        """Where the file is, for people to read: the repo's page while the file's name is unknown."""
        page = f"{self.page}/{file.repo}"
        return f"{page}/resolve/{file.revision or 'main'}/{file.file}" if file.file else page

    def folder_of(self, file: HubFile) -> Path:
        """The cache's directory for the file's repo, whether or not it exists."""
        return self.cache / f"models--{file.repo.replace('/', '--')}"
