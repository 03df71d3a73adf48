"""The committed answers of the originals: ``tests/goldens/tiny``. Reads and writes them; needs no torch.

``texts.json`` holds the pairs and texts, ``<kind>.npz`` the token ids and outputs of each, in the same order.
``segments.json`` holds pairs for rerankers with segment ids, in groups, and ``segments.npz`` their logits.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DIRECTORY = Path(__file__).parent.parent / "goldens" / "tiny"


@dataclass(frozen=True)
class Golden:
    """What the original makes of each pair or text.

    Attributes:
        ids: token ids with special tokens, cut to ``n_ctx``.
        outputs: logits, shape (n, 1), or pooled vectors, shape (n, n_embd); float32.
    """

    ids: list[list[int]]
    outputs: NDArray[np.float32]


def pairs() -> list[tuple[str, str]]:
    return [(query, document) for query, document in _texts()["pairs"]]


def texts() -> list[str]:
    return [text for (text,) in _texts()["texts"]]


def save_texts(pairs: list[tuple[str, str]], texts: list[str]) -> None:
    data = {"pairs": pairs, "texts": [[text] for text in texts]}
    text = ",\n".join(f'"{name}": [\n{_lines(rows)}\n]' for name, rows in data.items())
    (DIRECTORY / "texts.json").write_text(f"{{\n{text}\n}}\n", "utf-8")


def load(kind: str) -> Golden:
    with np.load(DIRECTORY / f"{kind}.npz") as data:
        ends = np.cumsum(data["lengths"])
        ids = [part.tolist() for part in np.split(data["ids"].astype(np.int32), ends[:-1])]
        return Golden(ids=ids, outputs=data["outputs"])


def save(kind: str, golden: Golden) -> None:
    np.savez_compressed(
        DIRECTORY / f"{kind}.npz",
        ids=np.concatenate([np.array(ids, dtype=np.int16) for ids in golden.ids]),
        lengths=np.array([len(ids) for ids in golden.ids], dtype=np.int16),
        outputs=golden.outputs.astype(np.float32),
    )


def segment_pairs() -> dict[str, list[tuple[str, str]]]:
    data = json.loads((DIRECTORY / "segments.json").read_text("utf-8"))
    return {group: [(query, document) for query, document in rows] for group, rows in data.items()}


def segment_logits(kind: str, group: str) -> NDArray[np.float32]:
    """Logits of a group's pairs, shape (n,), float32."""
    with np.load(DIRECTORY / "segments.npz") as data:
        logits: NDArray[np.float32] = data[f"{kind}/{group}"]
        return logits


def save_segments(pairs: dict[str, list[tuple[str, str]]], logits: dict[str, NDArray[np.float32]]) -> None:
    groups = (f'"{group}": [\n{_lines(rows)}\n]' for group, rows in pairs.items())
    (DIRECTORY / "segments.json").write_text("{\n" + ",\n".join(groups) + "\n}\n", "utf-8")
    np.savez_compressed(DIRECTORY / "segments.npz", **{name: logits[name] for name in sorted(logits)})


def _lines(rows: Sequence[Sequence[str]]) -> str:
    """One line a row, in ASCII: editors and version control must not touch a single code point."""
    return ",\n".join(json.dumps(row) for row in rows)


def _texts() -> dict[str, list[list[str]]]:
    data: dict[str, list[list[str]]] = json.loads((DIRECTORY / "texts.json").read_text("utf-8"))
    return data
