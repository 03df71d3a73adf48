"""The committed answers of the originals: ``tests/goldens/tiny``. Reads and writes them; needs no torch.

``texts.json`` holds the pairs and texts, ``<kind>.npz`` the token ids and outputs of each, in the same order.
"""

from __future__ import annotations

import json
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
    # One line a pair, in ASCII: editors and version control must not touch a single code point.
    lines = {name: ",\n".join(json.dumps(row) for row in rows) for name, rows in data.items()}
    text = ",\n".join(f'"{name}": [\n{rows}\n]' for name, rows in lines.items())
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


def _texts() -> dict[str, list[list[str]]]:
    data: dict[str, list[list[str]]] = json.loads((DIRECTORY / "texts.json").read_text("utf-8"))
    return data
