"""Measures how far scores move with what shares their micro-batch: ``python scripts/measure_batch_noise.py``.

Each bundled model is written in four formats: its own numbers in float32, and what llama.cpp makes of that.
Real texts are computed alone, then together with others drawn by chance, round after round. A cell holds the
largest difference of any logit, or of any element of a vector of length 1, and the share of texts for which
it was over 0.0001. docs/llama-cpp.md has the table and the cause. Takes about three minutes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

import make_goldens_reranker  # noqa: E402
import tiny_models  # noqa: E402
from ggrank import Llama  # noqa: E402
from ggrank.hub.presets import bundled_path, presets  # noqa: E402
from ggrank.loading.tuning import has_openvino  # noqa: E402
from make_goldens_bundled import read_texts  # noqa: E402

FORMATS = ("f32", "f16", "q8_0", "q4_k_m")

SETTINGS: dict[str, dict[str, Any]] = {
    "flash_attn=False": {"engine": "llama.cpp", "flash_attn": False, "use_extra_bufts": False},
    "flash_attn=True": {"engine": "llama.cpp", "flash_attn": True, "use_extra_bufts": False},
    "True, repacked": {"engine": "llama.cpp", "flash_attn": True, "use_extra_bufts": True},
    "OpenVINO": {"engine": "openvino"},
}
SMALL = 1e-4
SEED = 6

Compute = Callable[[Sequence[int]], NDArray[np.float32]]
"""Results of the texts with these numbers, computed in one call: shape (n, n_outputs)."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how scores move with their company.")
    parser.add_argument("--n-texts", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    settings = {name: one for name, one in SETTINGS.items() if name != "OpenVINO" or has_openvino()}
    print(f"| model, format | {' | '.join(settings)} |\n|{'---|' * (len(settings) + 1)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("ggrank-reranker-mini", "all-minilm-l6-v2"):
            for dtype in FORMATS:
                path = write(bundled_path(presets()[name]), Path(folder), dtype)
                cells = [measure(path, one, arguments) for one in settings.values()]
                print(f"| {name}, {dtype} | {' | '.join(cells)} |", flush=True)
    return 0


def write(bundled: Path, folder: Path, dtype: str) -> Path:
    """The bundled q8_0 file itself, or its numbers in another format."""
    if dtype == "q8_0":
        return bundled
    source = bundled if dtype == "f32" else folder / f"{bundled.stem}-f32.gguf"
    target = folder / f"{bundled.stem}-{dtype}.gguf"
    tiny_models.quantize(source, target, dtype=dtype)
    return target


def measure(path: Path, settings: dict[str, Any], arguments: argparse.Namespace) -> str:
    """One cell of the table."""
    draw = np.random.default_rng(SEED)
    with Llama.load(path, n_threads=1, **settings) as llama:
        compute, n_texts = batches_of(llama, arguments.n_texts)
        alone = np.concatenate([compute([i]) for i in range(n_texts)])
        moved = np.zeros(n_texts)
        for _ in range(arguments.rounds):
            chosen = draw.choice(n_texts, size=draw.integers(2, n_texts), replace=False)
            differences = np.abs(compute(chosen.tolist()) - alone[chosen]).max(axis=1)
            moved[chosen] = np.maximum(moved[chosen], differences)
    return f"{moved.max():.1g} ({np.mean(moved > SMALL):.0%})"


def batches_of(llama: Llama, n_texts: int) -> tuple[Compute, int]:
    if llama.mode == "rerank":
        pairs = sorted(set(make_goldens_reranker.pairs()))[:: max(1, 1000 // n_texts)][:n_texts]
        return lambda chosen: llama.score_pairs([pairs[i] for i in chosen])[:, None], len(pairs)
    texts = sorted({text for _, text in read_texts()})[:n_texts]
    return lambda chosen: llama.embed_many([texts[i] for i in chosen]), len(texts)


if __name__ == "__main__":
    sys.exit(main())
