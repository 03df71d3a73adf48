"""Measures what each format of a GGUF costs: ``python scripts/measure_formats.py FOLDER ...``.

Each folder is an original that `ggrank convert` reads. It is written in every format and compared with what
sentence-transformers computes from it. The last rows are the bundled reranker's own weights: written from its
q8_0 file in each format, and compared with the same in float32. docs/convert.md has the table. Needs the
packages of requirements/parity.lock.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

import make_goldens_reranker  # noqa: E402
import tiny_models  # noqa: E402
from ggrank import Llama  # noqa: E402
from ggrank.conversion import FORMATS, convert_model  # noqa: E402
from ggrank.conversion.checking import spearman  # noqa: E402

N_PAIRS = 500


def main(sources: Sequence[str]) -> int:
    print("| model | format | MB | largest deviation | rank correlation |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for source in sources:
            for quantization in FORMATS:
                measure_original(Path(source), quantization, Path(scratch))
        measure_reranker(Path(scratch))
    return 0


def measure_original(source: Path, quantization: str, folder: Path) -> None:
    path, comparison = convert_model(
        source, folder / "model.gguf", quantize=quantization, check=True, force=True
    )
    if comparison is not None:
        show(source.name, quantization, path, comparison.deviation, comparison.correlation)


def measure_reranker(folder: Path) -> None:
    pairs = make_goldens_reranker.pairs()[:N_PAIRS]
    exact = tiny_models.quantize(make_goldens_reranker.MODEL, folder / "f32.gguf", dtype="f32")
    with Llama.load(exact) as llama:
        expected = llama.score_pairs(pairs)
    for quantization in ("f16", "q8_0", "q4_k_m"):
        path = tiny_models.quantize(exact, folder / f"{quantization}.gguf", dtype=quantization)
        with Llama.load(path, engine="llama.cpp") as llama:
            logits = llama.score_pairs(pairs)
        deviation = float(np.abs(logits - expected).max())
        show("ggrank-reranker-mini", quantization, path, deviation, spearman(logits, expected))


def show(name: str, quantization: str, path: Path, deviation: float, correlation: float) -> None:
    size = path.stat().st_size / 1e6
    print(f"| {name} | {quantization} | {size:.0f} | {deviation:.2g} | {correlation:.5f} |", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
