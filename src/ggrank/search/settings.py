"""What an index is made with, and must stay the same as long as it lives."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from ggrank.errors import InputError, SearchIndexError
from ggrank.hub.checksums import Expected, check
from ggrank.remote import RemoteEmbedder
from ggrank.search.models import Embedder, token_counter
from ggrank.search.vectors import VectorType
from ggrank.text.inputs import check_count

DEFAULT_CHUNK_TOKENS = 200
"""About 150 English words: room for a query beside it in a reranker's 256 tokens."""

DEFAULT_OVERLAP = 40

DEFAULT_FOLDER = ".ggrank"
"""Of ``ggrank index``, which need not name it."""


@dataclass(frozen=True)
class IndexSettings:
    """What decides an index's vectors and passages.

    Attributes:
        model: the embedder's file, for loading it again; or a server's name for its model.
        model_sha256: of that file; "" for a server's model.
        pooling_type: its name, such as "MEAN"; "" for a server's model.
        n_embd: width of a vector.
        n_ctx: that the embedder was loaded with, for loading it again; 0 for a server's model.
        query_prefix, document_prefix: what the embedder sets before texts.
        vectors: "float32" or "int8".
        chunk_tokens: of a passage, the prefix and special tokens included.
        overlap: tokens at most that a passage shares with the one before.
    """

    model: str
    model_sha256: str
    pooling_type: str
    n_embd: int
    n_ctx: int
    query_prefix: str
    document_prefix: str
    vectors: VectorType
    chunk_tokens: int
    overlap: int

    def to_json(self) -> str:
        """As the index keeps them."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> IndexSettings:
        """The same again. Raises ValueError where one is missing."""
        values = json.loads(text)
        try:
            return cls(**{field.name: values[field.name] for field in fields(cls)})
        except (KeyError, TypeError) as error:
            raise ValueError(f"the index's settings lack {error}") from error


@dataclass(frozen=True)
class Wanted:
    """What a caller asks of an index; None leaves it to the index, or to the default of a new one.

    Raises:
        InputError: numbers that cannot be used.
    """

    vectors: VectorType | None = None
    chunk_tokens: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        if self.vectors not in (None, *get_args(VectorType)):
            raise InputError(f"vectors must be 'float32' or 'int8'; found {self.vectors!r}")
        for name, least in (("chunk_tokens", 16), ("overlap", 0)):
            if (value := getattr(self, name)) is not None:
                check_count(value, name, least=least)


def settings_for(embedder: Embedder, wanted: Wanted) -> IndexSettings:
    """The settings of a new index.

    Raises:
        InputError: ``chunk_tokens`` above the model's ``n_ctx``, or too little room beside the model's own
            tokens and the overlap.
    """
    n_ctx = n_ctx_of(embedder)
    chunk_tokens = wanted.chunk_tokens or min(DEFAULT_CHUNK_TOKENS, n_ctx)
    overlap = min(DEFAULT_OVERLAP, chunk_tokens // 5) if wanted.overlap is None else wanted.overlap
    if chunk_tokens > n_ctx:
        raise InputError(f"chunk_tokens={chunk_tokens} is more than the model reads: n_ctx is {n_ctx}")
    if passage_tokens(embedder, chunk_tokens) <= 2 * overlap:
        raise InputError(
            f"chunk_tokens={chunk_tokens} leaves too little room beside the model's own tokens and "
            f"overlap={overlap}: the overlap must be less than half of what is left"
        )
    return IndexSettings(
        *_identity(embedder),
        n_embd=embedder.n_embd,
        n_ctx=0 if isinstance(embedder, RemoteEmbedder) else n_ctx,
        query_prefix=embedder.query_prefix,
        document_prefix=embedder.document_prefix,
        vectors=wanted.vectors or "float32",
        chunk_tokens=chunk_tokens,
        overlap=overlap,
    )


def _identity(embedder: Embedder) -> tuple[str, str, str]:
    """Of a model: its file, that file's sha256, its pooling; of a server's model its name alone."""
    if isinstance(embedder, RemoteEmbedder):
        return embedder.model, "", ""
    path = embedder.model_path
    return str(path), check(path, Expected()), embedder.pooling_type.name


def n_ctx_of(embedder: Embedder) -> int:
    """The most tokens that the model reads; no server says it, so its models pass for long ones."""
    return 2**31 if isinstance(embedder, RemoteEmbedder) else embedder.n_ctx


def passage_tokens(embedder: Embedder, chunk_tokens: int) -> int:
    """Tokens of a passage at most, without special ones and the prefix."""
    if isinstance(embedder, RemoteEmbedder):
        return chunk_tokens - token_counter(embedder)(embedder.document_prefix) - 2
    return chunk_tokens - embedder.count_tokens(embedder.document_prefix)


def kept(wanted: Wanted, made: IndexSettings | None, *, n_ctx: int) -> Wanted:
    """What is wanted of an index that is made anew: what a caller leaves open stays as it was made, where
    the model reads so many tokens, and where passages do not become shorter than the overlap was meant for.
    """
    if made is None:
        return wanted
    chunk_tokens = wanted.chunk_tokens or (made.chunk_tokens if made.chunk_tokens <= n_ctx else None)
    overlap = wanted.overlap
    if overlap is None and chunk_tokens is not None and chunk_tokens >= made.chunk_tokens:
        overlap = made.overlap
    return Wanted(vectors=wanted.vectors or made.vectors, chunk_tokens=chunk_tokens, overlap=overlap)


def check_same(made: IndexSettings, embedder: Embedder, wanted: Wanted, *, folder: Path) -> None:
    """Raises SearchIndexError where an index was made with something else than is used now."""
    asked = Wanted(
        vectors=wanted.vectors or made.vectors,
        chunk_tokens=wanted.chunk_tokens or made.chunk_tokens,
        overlap=made.overlap if wanted.overlap is None else wanted.overlap,
    )
    now = settings_for(embedder, asked)
    for field in fields(IndexSettings):
        before, after = getattr(made, field.name), getattr(now, field.name)
        # A file may lie elsewhere today; a server's model has nothing but its name.
        if field.name == "model" and made.model_sha256 and now.model_sha256:
            continue
        name = field.name
        if name != "n_ctx" and before != after:
            if name == "model_sha256":
                name = "the model"
                before, after = (
                    f"{Path(one.model).name}, sha256 {one.model_sha256[:12]}..." for one in (made, now)
                )
            raise SearchIndexError(
                f"{folder} was made with {name} {before!r}, now it is "
                f"{after!r}: use the same again, or make the index anew with: {command(folder, '--rebuild')}"
            )


def foreign_vector(made: IndexSettings, origin: Mapping[str, Any]) -> str:
    """Why an index cannot take the vectors of a file, "" where it can.

    Args:
        origin: what they were made with, as ``ggrank job embed`` wrote it.
    """
    model = Path(made.model).name
    if origin.get("model_sha256") != made.model_sha256:
        return (
            f"its vectors were made with {origin.get('model')}, the index with {model}: give it an index of "
            "its own, or leave out the column of vectors"
        )
    wanted = {"pooling_type": made.pooling_type, "prefix": made.document_prefix, "dimensions": None}
    for name, value in wanted.items():
        if origin.get(name) != value:
            return f"its vectors were made with {name} {origin.get(name)!r}, an index has {value!r}"
    return ""


def indexes_folder() -> Path:
    """Where indexes with a name are: in ``$GGRANK_DATA_DIR``, else the platform's place for a user's data."""
    if chosen := os.environ.get("GGRANK_DATA_DIR"):
        return Path(chosen) / "indexes"
    home = Path("~").expanduser()
    places = {
        "darwin": home / "Library" / "Application Support",
        "win32": Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"),
    }
    other = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return places.get(sys.platform, other) / "ggrank" / "indexes"


def command(folder: Path, arguments: str) -> str:
    """``ggrank index`` as a user types it for the index in a folder.

    Example:
        >>> command(Path(".ggrank"), "--rebuild"), command(Path("my notes"), "--rebuild")
        ('ggrank index --rebuild', "ggrank index --index 'my notes' --rebuild")
    """
    where = f"--index {shlex.quote(str(folder))} "
    if folder == Path(DEFAULT_FOLDER):
        where = ""
    elif folder.parent == indexes_folder():
        where = f"--name {shlex.quote(folder.name)} "
    return f"ggrank index {where}{arguments}"
