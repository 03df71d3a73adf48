"""Every error that ggrank raises on purpose, and the one warning.

A message says what was expected, what was found and what to do next.

    GgrankError
    ├── ModelNotFoundError   (FileNotFoundError)  no such preset, path, repo or file in it
    ├── ModelFileError       (ValueError)         a file that llama.cpp must not or cannot read
    ├── ModelModeError                            the model does another job than the call wants
    ├── DownloadError        (OSError)            the hub could not be reached or refused
    │   └── ChecksumError                         the bytes are not the ones that were expected
    ├── InputError           (ValueError)         an argument or a text that cannot be used
    │   ├── InputTypeError   (TypeError)          ... because it has the wrong type
    │   └── InputTooLongError                     ... because it has more tokens than n_ctx
    ├── SearchIndexError                          an index on disk that cannot be used as it is
    ├── RemoteError                               a server could not be reached, refused, or answered nonsense
    │   └── RemoteInputError     (InputError)     ... because of the texts or options that were sent
    └── EngineError          (RuntimeError)       the computation failed or gave NaN
        └── ClosedError                           the model was closed, or belongs to another process

    GgrankWarning            (UserWarning)        the scores may not be what was expected

Example:
    >>> from ggrank import GgrankError, Llama
    >>> try:
    ...     Llama.load("no/such/file.gguf")
    ... except GgrankError as error:
    ...     print(type(error).__name__)
    ModelNotFoundError
"""

from __future__ import annotations

import sys
import warnings


class GgrankError(Exception):
    """The root of every error that ggrank raises on purpose."""


class ModelNotFoundError(GgrankError, FileNotFoundError):
    """No such preset, path, Hugging Face repo, or file inside a repo."""


class ModelFileError(GgrankError, ValueError):
    """The file exists, but is not a GGUF that can be loaded: damaged, cut off, or something else."""


class ModelModeError(GgrankError):
    """The loaded model does another job than the one asked for (embedding against reranking)."""


class DownloadError(GgrankError, OSError):
    """A download failed: no network, no permission, or a connection that broke."""


class ChecksumError(DownloadError):
    """A downloaded file has another size or sha256 than the pinned or remembered one."""


class InputError(GgrankError, ValueError):
    """A text or an argument that cannot be used as it is."""


class InputTypeError(InputError, TypeError):
    """A text or an argument of the wrong type, such as a document that is not a string."""


class InputTooLongError(InputError):
    """A text or pair has more tokens than ``n_ctx``, and ``truncate="error"`` was asked for.

    Attributes:
        facts: what has how many tokens, and how many there is room for: the message without its advice.
        is_query: whether it is the query that is too long.
    """

    def __init__(self, facts: str, advice: str, *, is_query: bool = False) -> None:
        super().__init__(facts, advice)  # both, so that it can be pickled
        self.facts, self.is_query = facts, is_query

    def __str__(self) -> str:
        return ". ".join(map(str, self.args))


class SearchIndexError(GgrankError):
    """An index on disk is missing, damaged, locked, foreign, or made with another model or settings."""


class RemoteError(GgrankError):
    """A server could not be reached, refused, or gave an answer that cannot be used.

    Attributes:
        status: the HTTP status that it answered with; None if there was no answer.
    """

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class RemoteInputError(RemoteError, InputError):
    """The server cannot use the texts or options that were sent to it (status 400, 413 or 422)."""


class EngineError(GgrankError, RuntimeError):
    """The engine could not compute, or computed values that are not finite."""


class ClosedError(EngineError):
    """The model was closed, or was loaded in another process (before a fork)."""


class GgrankWarning(UserWarning):
    """Scores are computed, but may not be what was expected of this model or machine."""


def warn(message: str) -> None:
    """A `GgrankWarning` that shows the line which called ggrank."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "ggrank":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, GgrankWarning, stacklevel=level)
