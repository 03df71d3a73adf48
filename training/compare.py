"""The exported files beside the weights in PyTorch: how far their logits are apart over 1,000 pairs.

python training/compare.py work/f32.pt SET_FOLDER work/f32.gguf work/q8_0.gguf
"""

from __future__ import annotations

import argparse
from pathlib import Path

import beir
import numpy as np
import torch
from backbone import CrossEncoder, load_tokenizer, pair, score, tokenize

from ggrank import Llama, PoolingType

SEED = 20261121
N_TOKENS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare GGUFs with the trained model.")
    parser.add_argument("weights", type=Path, help="as export.py wrote them, calibrated (.pt)")
    parser.add_argument("set", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--pairs", type=int, default=1000)
    arguments = parser.parse_args()
    pairs = draw(beir.read(arguments.set), arguments.pairs)
    expected = torch_logits(arguments.weights, pairs)
    print(f"{len(pairs):,} pairs; logits in PyTorch {expected.min():.2f} to {expected.max():.2f}")
    for file in arguments.files:
        with Llama.load(file, pooling_type=PoolingType.RANK, n_ctx=N_TOKENS) as reranker:
            difference = np.abs(reranker.score_pairs(pairs) - expected)
        print(f"{file.name}: max {difference.max():.5f}, mean {difference.mean():.5f}")


def draw(test: beir.TestSet, n: int) -> list[tuple[str, str]]:
    """Half of them a query with a relevant document, half with any."""
    rng = np.random.default_rng(SEED)
    found = []
    while len(found) < n:
        row = int(rng.integers(len(test.queries)))
        chosen = (rng.choice(list(test.relevant[row])), rng.integers(len(test.documents)))
        found += [(test.queries[row], test.documents[int(document)]) for document in chosen]
    return found[:n]


def torch_logits(weights: Path, pairs: list[tuple[str, str]]) -> np.ndarray:
    model = CrossEncoder().eval()
    model.load_state_dict(torch.load(weights))
    tokenizer = load_tokenizer()
    queries, documents = (tokenize(tokenizer, list(side)) for side in zip(*pairs, strict=True))
    sequences = [pair(q, d, limit=N_TOKENS) for q, d in zip(queries, documents, strict=True)]
    return score(model, sequences, bf16=False)


if __name__ == "__main__":
    main()
