"""What a server sent, checked: a score or a vector for every text that was sent, and no other.

Anything that does not fit raises, because a score in the wrong place would never be noticed.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import RemoteError
from ggrank.remote.dialects import Dialect

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MOST = 1.001
"""The largest score of 0 to 1, with room for rounding in half precision."""


@dataclass(frozen=True)
class Results:
    """Scores, shape (n,), or vectors, shape (n, n_embd), in input order; which texts were cut; tokens."""

    values: NDArray[np.float32]
    truncated: list[bool]
    n_tokens: int


def read_answer(answer: object, n: int, dialect: Dialect) -> Results:
    """The scores or vectors of ``n`` texts.

    Raises:
        RemoteError: one is missing, there twice, of no text that was sent, no finite number, or not on the
            dialect's scale.

    Example:
        >>> from ggrank.remote.dialects import RERANK
        >>> answer = [{"index": 1, "score": 2.5}, {"index": 0, "score": -1}]
        >>> read_answer(answer, 2, RERANK["tei"]).values.tolist()
        [-1.0, 2.5]
    """
    is_vectors = dialect.scale == "cosine"
    subject, word = ("text", "vector") if is_vectors else ("document", "score")
    items = _items(answer, "" if dialect.is_list else "data" if is_vectors else "results")
    if is_vectors and dialect.is_list:
        items = [{"index": i, "embedding": vector} for i, vector in enumerate(items)]
    field = "embedding" if is_vectors else "score" if dialect.is_list else "relevance_score"
    objects = _in_order(items, n, f"one {word} for each of {n} {subject}s")
    read = _vector if is_vectors else _number
    rows = [read(one.get(field), f"the {word} of {subject} {i}") for i, one in enumerate(objects)]
    _check_widths([np.shape(row) for row in rows])
    values = np.array(rows, np.float32)
    if dialect.scale == "probability":
        _check_probabilities(values, dialect.name)
    return Results(values, [one.get("truncated") is True for one in objects], _n_tokens(answer))


def joined(parts: Sequence[Results]) -> Results:
    """The results of several requests as one. Raises RemoteError for vectors of different widths."""
    if not parts:
        return Results(np.empty(0, np.float32), [], 0)
    _check_widths([part.values.shape[1:] for part in parts])
    return Results(
        np.concatenate([part.values for part in parts]),
        [one for part in parts for one in part.truncated],
        sum(part.n_tokens for part in parts),
    )


def _items(answer: object, field: str) -> list[Any]:
    found = answer.get(field) if field and isinstance(answer, dict) else answer
    if not isinstance(found, list):
        where = f" under {field!r}" if field else ""
        raise RemoteError(
            f"the server's answer should hold a list{where}: check dialect. The server sent {answer!r}"
        )
    return found


def _in_order(items: list[Any], n: int, expected: str) -> list[dict[str, object]]:
    """One object for each position from 0 to ``n``, by its ``index``."""
    positions: list[Any] = [item.get("index") if isinstance(item, dict) else None for item in items]
    if any(type(position) is not int for position in positions) or sorted(positions) != list(range(n)):
        raise RemoteError(f"the server should give {expected}, but gave them for positions {positions}")
    return sorted(items, key=lambda item: int(item["index"]))


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _FLOAT32_MAX:
        raise RemoteError(f"{name} should be a finite number, but the server sent {value!r}")
    return float(value)


def _vector(value: object, name: str) -> NDArray[np.float32]:
    """Shape (n_embd,), from a list of numbers or the base64 of little-endian float32."""
    try:
        packed = base64.b64decode(value, validate=True) if isinstance(value, str) else None
        vector = np.array(value) if packed is None else np.frombuffer(packed, "<f4")
    except ValueError:
        raise RemoteError(f"{name} should be a list of numbers or base64 of float32: it is neither") from None
    if vector.ndim != 1 or not vector.size or vector.dtype.kind not in "iuf":
        raise RemoteError(f"{name} should be a list of numbers, but the server sent {value!r}")
    if not np.all(np.abs(vector) <= _FLOAT32_MAX):
        raise RemoteError(f"{name} should hold finite numbers, but the server sent others")
    return vector.astype(np.float32)


def _check_widths(shapes: list[tuple[int, ...]]) -> None:
    if len(set(shapes)) > 1:
        widths = " and ".join(str(shape[0]) for shape in sorted(set(shapes)))
        raise RemoteError(f"the server gave vectors of {widths} numbers: does more than one model answer?")


def _check_probabilities(values: NDArray[np.float32], dialect: str) -> None:
    """Scores below 0 are let through down to -1: listwise models give cosines."""
    wrong = np.flatnonzero(np.abs(values) > _MOST)
    if wrong.size:
        raise RemoteError(
            f"dialect {dialect!r} is for scores of 0 to 1, but the server gave document {wrong[0]} the score "
            f"{values[wrong[0]]:g}. If its scores are logits, name the dialect for them: 'llama-server' for "
            "llama.cpp's own server, 'jina-logits' for others that have /v1/rerank"
        )


def _n_tokens(answer: object) -> int:
    """Tokens that the server counted: in ``usage`` (OpenAI, Jina) or ``meta.tokens`` (Cohere); else 0."""
    for names in (("usage", "total_tokens"), ("meta", "tokens", "input_tokens")):
        found = answer
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, (int, float)) and not isinstance(found, bool) and isfinite(found) and found > 0:
            return int(found)
    return 0
