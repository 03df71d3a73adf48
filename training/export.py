"""Trained weights -> a folder for transformers -> the GGUF in q8_0, by `ggrank.convert`.

    python training/export.py work/embedder.pt work/ggrank-embedder-mini
    python training/export.py work/reranker.pt work/ggrank-reranker-mini --lists work/lists.npz

writes FOLDER and FOLDER-q8_0.gguf. A reranker's loss knows only differences of logits: before they are
written, its output layer is scaled and shifted so that sigmoid(logit) says how likely a candidate is the
labelled one, and 0 is the line between the two.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import torch
from backbone import CrossEncoder, State, compute, pair, save_folder
from train import Lists

from ggrank import convert

CARD = """---
license: apache-2.0
language: en
base_model: sentence-transformers/all-MiniLM-L6-v2
---
"""
UNSEEN = 10**6
"""The number of a step that training never reaches."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a student as GGUF.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path, help="the folder's name is the model's")
    parser.add_argument("--lists", type=Path, help="candidate lists, for the scale of a reranker's logits")
    parser.add_argument("--calibrate", type=int, default=400, metavar="N", help="lists for that scale")
    parser.add_argument("--quantize", default="q8_0")
    arguments = parser.parse_args()
    weights = torch.load(arguments.weights)
    if arguments.lists:
        calibrate(weights, arguments.lists, n=arguments.calibrate)
    save_folder(weights, arguments.folder, card=CARD)
    digest = hashlib.sha256((arguments.folder / "model.safetensors").read_bytes()).hexdigest()
    output = arguments.folder.with_name(f"{arguments.folder.name}-{arguments.quantize}.gguf")
    path = convert(arguments.folder, output, quantize=arguments.quantize, force=True)
    print(f"wrote {path}, {path.stat().st_size:,} bytes; sha256 of the unquantized tensors {digest}")


def calibrate(weights: State, lists: Path, *, n: int) -> None:
    """Scales and shifts the output layer by logistic regression on labelled lists (Platt)."""
    model = CrossEncoder().eval()
    model.load_state_dict(weights)
    examples = [example for example in Lists(lists, width=8).draw(UNSEEN, n) if example.label_weight]
    pairs = [pair(one.query, ids, limit=one.limit) for one in examples for ids in one.documents]
    labels = torch.cat([torch.eye(len(one.documents))[0] for one in examples])
    logits = torch.from_numpy(compute(model, pairs)[:, 0])
    line = torch.tensor([1.0, 0.0], requires_grad=True)
    optimizer = torch.optim.LBFGS([line], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        moved = line[0] * logits + line[1]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(moved, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    slope, shift = line.detach()
    if slope <= 0:
        raise SystemExit(f"higher logits are not the better ones (slope {slope:.3f}): train longer")
    weights["output.weight"] *= slope
    weights["output.bias"] = weights["output.bias"] * slope + shift
    print(f"logits: {slope:.3f} x {shift:+.3f}")


if __name__ == "__main__":
    main()
