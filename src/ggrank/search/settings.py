"""What an index is made with, and must stay the same as long as it lives."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ggrank.errors import InputError, SearchIndexError
from ggrank.hub.checksums import Expected, check
from ggrank.remote import RemoteEmbedder
from ggrank.search.models import Embedder, token_counter
from ggrank.search.vectors import VectorType
from ggrank.text.inputs import check_choice, check_count

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


@dataclass(frozen=True)
class Wanted:
    """What a caller asks of an index; None leaves it to the index, or to the default of a new one."""

    vectors: VectorType | None = None
    chunk_tokens: int | None = None
    overlap: int | None = None

    def __post_init__(self) -> None:
        if self.vectors is not None:
            check_choice(self.vectors, "vectors", get_args(VectorType))
        for name, least in (("chunk_tokens", 16), ("overlap", 0)):
            if (value := getattr(self, name)) is not None:
                check_count(value, name, least=least)


def settings_for(embedder: Embedder, wanted: Wanted, made: IndexSettings | None = None) -> IndexSettings:
    """The settings of a new index. Raises InputError where its passages do not fit the model.

    Args:
        made: those of the index that is made anew; what a caller leaves open stays, where the model reads so
            many tokens, and where passages do not become shorter than the overlap was meant for.
    """
    n_ctx = n_ctx_of(embedder)
    before = made.chunk_tokens if made and made.chunk_tokens <= n_ctx else None
    chunk_tokens = wanted.chunk_tokens or before or min(DEFAULT_CHUNK_TOKENS, n_ctx)
    overlap = min(DEFAULT_OVERLAP, chunk_tokens // 5)
    if wanted.overlap is not None:
        overlap = wanted.overlap
    elif made and chunk_tokens >= made.chunk_tokens:
        overlap = made.overlap
    _check_length(chunk_tokens, embedder)
    if passage_tokens(embedder, chunk_tokens) <= 2 * overlap:
        raise InputError(
            f"chunk_tokens {chunk_tokens} leaves too little room beside the model's own tokens and "
            f"overlap {overlap}: the overlap must be less than half of what is left"
        )
    vectors = wanted.vectors or (made.vectors if made else "float32")
    return IndexSettings(**_of(embedder), vectors=vectors, chunk_tokens=chunk_tokens, overlap=overlap)


def _of(embedder: Embedder) -> dict[str, Any]:
    """The settings that a model decides; of a server's model no more than its name is known."""
    known = {name: getattr(embedder, name) for name in ("n_embd", "query_prefix", "document_prefix")}
    if isinstance(embedder, RemoteEmbedder):
        return {"model": embedder.model, "model_sha256": "", "pooling_type": "", "n_ctx": 0, **known}
    return {
        "model": str(embedder.model_path.absolute()),
        "model_sha256": check(embedder.model_path, Expected()),
        "pooling_type": embedder.pooling_type.name,
        "n_ctx": embedder.n_ctx,
        **known,
    }


def _check_length(chunk_tokens: int, embedder: Embedder) -> None:
    n_ctx = n_ctx_of(embedder)
    if chunk_tokens > n_ctx:
        raise InputError(f"chunk_tokens {chunk_tokens} is more than the model reads: n_ctx is {n_ctx}")


def n_ctx_of(embedder: Embedder) -> int:
    """The most tokens that the model reads; no server says it, so its models pass for long ones."""
    return 2**31 if isinstance(embedder, RemoteEmbedder) else embedder.n_ctx


def passage_tokens(embedder: Embedder, chunk_tokens: int) -> int:
    """Tokens of a passage at most, without special ones and the prefix."""
    if isinstance(embedder, RemoteEmbedder):
        return chunk_tokens - token_counter(embedder)(embedder.document_prefix) - 2
    return chunk_tokens - embedder.count_tokens(embedder.document_prefix)


def check_same(made: IndexSettings, embedder: Embedder, wanted: Wanted, *, folder: Path) -> None:
    """Raises SearchIndexError where an index was made with something else than is used now."""
    now = _of(embedder)
    given = {name: value for name, value in vars(wanted).items() if value is not None}
    for name, after in {**now, **given}.items():
        before = getattr(made, name)
        # A file may lie elsewhere today; a server's model has nothing but its name.
        is_moved = name == "model" and made.model_sha256 and now["model_sha256"]
        if before == after or is_moved or name == "n_ctx":
            continue
        if name == "model_sha256":
            name = "the model"
            before = f"{Path(made.model).name}, sha256 {before[:12]}..."
            after = f"{Path(now['model']).name}, sha256 {after[:12]}..."
        raise SearchIndexError(
            f"{folder} was made with {name} {before!r}, now it is {after!r}: use the same again, or make the "
            f"index anew with: {command(folder, '--rebuild')}"
        )
    _check_length(made.chunk_tokens, embedder)


def check_origin(made: IndexSettings, origin: Mapping[str, Any]) -> None:
    """Raises InputError where an index cannot take the vectors that ``ggrank job embed`` made like this."""
    if origin.get("model_sha256") != made.model_sha256:
        raise InputError(
            f"its vectors were made with {origin.get('model')}, the index with {Path(made.model).name}: "
            "give it an index of its own, or leave out the column of vectors"
        )
    wanted = {"pooling_type": made.pooling_type, "prefix": made.document_prefix, "dimensions": None}
    for name, value in wanted.items():
        if origin.get(name) != value:
            raise InputError(
                f"its vectors were made with {name} {origin.get(name)!r}, an index has {value!r}"
            )


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
    """``ggrank index`` as a user types it for the index in a folder."""
    where = f"--index {shlex.quote(str(folder))} "
    if folder == Path(DEFAULT_FOLDER):
        where = ""
    elif folder.parent == indexes_folder():
        where = f"--name {shlex.quote(folder.name)} "
    return f"ggrank index {where}{arguments}"
