"""What a server sent, checked: a score or a vector for every text that was asked about, and no other.

Knows JSON values and positions; not where they come from. Whatever does not fit raises: a score in the wrong
place would never be noticed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import RemoteError

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MOST = 1.001
"""The largest score of 0 to 1, with room for rounding in half precision."""


@dataclass
class Results:
    """What the requests for one list of texts gave so far, in input order: scores or vectors, and facts."""

    parts: list[NDArray[np.float32]] = field(default_factory=list)
    truncated: list[bool] = field(default_factory=list)
    n_tokens: int = 0

    @property
    def values(self) -> NDArray[np.float32]:
        """All scores, shape (n,), or all vectors, shape (n, n_embd)."""
        return np.concatenate(self.parts)

    def add(self, values: NDArray[np.float32], truncated: list[bool], n_tokens: int) -> None:
        """Takes what one request gave. Raises RemoteError for vectors of another width than before."""
        if self.parts and self.parts[-1].shape[1:] != values.shape[1:]:
            raise RemoteError(
                f"the server gave vectors of {self.parts[-1].shape[1]} numbers, then of {values.shape[1]}: "
                "does more than one model answer?"
            )
        self.parts.append(values)
        self.truncated += truncated
        self.n_tokens += n_tokens


def read_scores(answer: object, n_documents: int, *, results: str | None, score: str, into: Results) -> None:
    """Adds one answer's scores in input order.

    Args:
        results: where the list of results lies; None where the answer is that list.
        score: the field that holds a result's score.

    Raises:
        RemoteError: a score is missing, there twice, of no document that was sent, or no finite number.

    Example:
        >>> found = Results()
        >>> answer = [{"index": 1, "score": 2.5}, {"index": 0, "score": -1}]
        >>> read_scores(answer, 2, results=None, score="score", into=found)
        >>> found.values.tolist()
        [-1.0, 2.5]
    """
    items = _in_order(_items(answer, results), n_documents, "document", "score")
    values = [_number(item.get(score), f"the score of document {i}") for i, item in enumerate(items)]
    into.add(
        np.array(values, np.float32), [item.get("truncated") is True for item in items], _n_tokens(answer)
    )


def check_probabilities(values: NDArray[np.float32], dialect: str) -> None:
    """Raises RemoteError where scores cannot be 0 to 1. Below 0 some are: listwise models give cosines.

    Example:
        >>> check_probabilities(np.float32([0.25, 0.75]), "jina")
    """
    wrong = np.flatnonzero(np.abs(values) > _MOST)
    if wrong.size:
        raise RemoteError(
            f"dialect {dialect!r} is for scores of 0 to 1, but the server gave document {wrong[0]} the score "
            f"{values[wrong[0]]:g}. If its scores are logits, name the dialect for them: 'llama-server' for "
            "llama.cpp's own server, 'jina-logits' for others that have /v1/rerank"
        )


def read_vectors(answer: object, n_texts: int, *, rows: str | None, into: Results) -> None:
    """Adds one answer's vectors in input order: shape (n_texts, n_embd).

    Args:
        rows: where OpenAI's list of objects lies; None where the answer is a list of vectors.

    Raises:
        RemoteError: a vector is missing, there twice, of another width, or holds what is no finite number.

    Example:
        >>> found = Results()
        >>> read_vectors([[1, 2], [3, 4]], 2, rows=None, into=found)
        >>> found.values.shape
        (2, 2)
    """
    items = _items(answer, rows)
    if rows is None:
        _check_number(items, n_texts, "text", "vector")
        vectors, truncated = items, [False] * n_texts
    else:
        objects = _in_order(items, n_texts, "text", "vector")
        vectors = [one.get("embedding") for one in objects]
        truncated = [one.get("truncated") is True for one in objects]
    found = [_vector(value, f"the vector of text {i}") for i, value in enumerate(vectors)]
    widths = {len(vector) for vector in found}
    if len(widths) > 1:
        raise RemoteError(f"the server gave vectors of different widths, {_shown(sorted(widths))}")
    into.add(np.stack(found), truncated, _n_tokens(answer))


def _items(answer: object, key: str | None) -> list[object]:
    found = answer if key is None else answer.get(key) if isinstance(answer, dict) else None
    if not isinstance(found, list):
        where = "" if key is None else f" under {key!r}"
        raise RemoteError(
            f"the server's answer should hold a list{where}, found {_shown(answer)}: check dialect"
        )
    return found


def _in_order(items: list[object], n: int, subject: str, value: str) -> list[dict[str, object]]:
    """One object for each position from 0 to ``n``, by its ``index``."""
    places: dict[int, dict[str, object]] = {}
    for item in items:
        index = item.get("index") if isinstance(item, dict) else None
        if not isinstance(item, dict) or isinstance(index, bool) or not isinstance(index, int):
            raise RemoteError(f"the server gave a {value} without a position: {_shown(item)}")
        if not 0 <= index < n:
            raise RemoteError(f"the server gave a {value} for {subject} {index}, but only {n} were sent")
        if index in places:
            raise RemoteError(f"the server gave {subject} {index} two {value}s")
        places[index] = item
    missing = [i for i in range(n) if i not in places]
    if missing:
        raise RemoteError(
            f"the server gave no {value} for {subject} {_shown(missing)} of the {n} that were sent"
        )
    return [places[i] for i in range(n)]


def _check_number(items: list[object], n: int, subject: str, value: str) -> None:
    if len(items) != n:
        raise RemoteError(f"the server gave {len(items)} {value}s for the {n} {subject}s that were sent")


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _FLOAT32_MAX:
        raise RemoteError(f"{name} should be a finite number, but the server sent {_shown(value)}")
    return float(value)


def _vector(value: object, name: str) -> NDArray[np.float32]:
    """Shape (n_embd,), from a list of numbers or the base64 of little-endian float32."""
    if isinstance(value, str):
        vector = _from_base64(value, name)
    elif isinstance(value, list) and value:
        vector = np.array([_number(one, f"each number of {name}") for one in value], np.float32)
    else:
        raise RemoteError(f"{name} should be a list of numbers, but the server sent {_shown(value)}")
    if not len(vector) or not np.isfinite(vector).all():
        raise RemoteError(f"{name} should hold finite numbers, but the server sent others")
    return vector


def _from_base64(value: str, name: str) -> NDArray[np.float32]:
    try:
        return np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
    except (binascii.Error, ValueError):
        raise RemoteError(f"{name} should be the base64 of float32 numbers, but it cannot be read") from None


def _n_tokens(answer: object) -> int:
    """Tokens that the server counted: in ``usage`` (OpenAI, Jina) or ``meta.tokens`` (Cohere); else 0."""
    if not isinstance(answer, dict):
        return 0
    usage, meta = answer.get("usage"), answer.get("meta")
    tokens = meta.get("tokens") if isinstance(meta, dict) else None
    counts: Iterable[object] = (
        usage.get("total_tokens") if isinstance(usage, dict) else None,
        tokens.get("input_tokens") if isinstance(tokens, dict) else None,
    )
    return next((int(count) for count in counts if _is_count(count)), 0)  # type: ignore[call-overload]


def _is_count(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and value > 0


def _shown(value: object) -> str:
    """Cut between words: a key has no space, so none is cut in half, and whoever hides it finds it whole."""
    text = repr(value)
    if len(text) <= 80:
        return text
    return f"{text[:77].rpartition(' ')[0] or type(value).__name__} ..."
