"""Candidate lists -> a cross-encoder, by listwise distillation of the teacher together with the labels.

Each list gives one loss: the cross-entropy between the softmax of the logits and a target that is the
positive's (where there is one) for ``--label-weight`` and the teacher's for the rest. The teacher is
z(cosine) + w * z(BM25) over all candidates of the query.

    python training/train.py work/lists.npz work/model.pt --steps 2000
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from backbone import CrossEncoder, by_length, padded, pair, workers
from numpy.typing import NDArray
from torch import Tensor

SEED = 20261121
POOLS = ("main", "sentences", "long")
LIMITS = {"main": 224, "sentences": 128, "long": 448}
"""Tokens of a pair in training; in use it reads 512."""
SHARES = {
    "sections": 0.24,
    "cloze": 0.14,
    "medquad": 0.14,
    "nq": 0.18,
    "covidqa": 0.06,
    "scifact_train": 0.05,
    "tldr": 0.04,
    "msrd": 0.03,
    "sentences": 0.06,
    "long": 0.06,
}
"""How much of every batch comes from each source; a small source is seen again sooner."""
LABEL_WEIGHTS = {"sections": 0.35, "msrd": 0.3, "sentences": 0.0}
"""How much the label counts beside the teacher, where it is not ``--label-weight``."""


@dataclass(frozen=True)
class Example:
    """One list: sequences, the teacher's scores, and how much the label of the first counts."""

    pairs: list[NDArray[np.int32]]
    teacher: NDArray[np.float32]
    label_weight: float


class Lists:
    """The lists of all pools; draws documents anew whenever a list is read."""

    def __init__(self, path: Path, *, bm25_weight: float, width: int, label_weight: float) -> None:
        arrays = np.load(path)
        self._data = {key: arrays[key] for key in arrays.files}
        self._width = width
        self._rng, self._label_weight = np.random.default_rng(SEED), label_weight
        by_source: dict[str, list[tuple[str, int]]] = {source: [] for source in SHARES}
        for pool in POOLS:
            for row, source in enumerate(self._data[f"{pool}.sources"]):
                by_source[str(source)].append((pool, row))
        self._order = {
            source: [rows[k] for k in self._rng.permutation(len(rows))] for source, rows in by_source.items()
        }
        self._next = dict.fromkeys(SHARES, 0)
        self._teacher = {pool: self._fused(pool, bm25_weight) for pool in POOLS}

    def _fused(self, pool: str, bm25_weight: float) -> NDArray[np.float32]:
        there = self._data[f"{pool}.candidates"] >= 0
        cosine, bm25 = (standardized(self._data[f"{pool}.{key}"], there) for key in ("cosine", "bm25"))
        return cosine + bm25_weight * bm25

    def _ids(self, pool: str, kind: str, row: int) -> NDArray[np.int32]:
        starts = self._data[f"{pool}.{kind}_starts"]
        return self._data[f"{pool}.{kind}"][starts[row] : starts[row + 1]]

    def draw(self, n: int) -> list[Example]:
        """The next ``n`` lists, sources mixed by their shares."""
        sources = self._rng.choice(list(SHARES), size=n, p=np.array(list(SHARES.values())))
        examples = []
        for source in map(str, sources):
            pool, row = self._order[source][self._next[source] % len(self._order[source])]
            self._next[source] += 1
            examples.append(self._example(pool, row, LABEL_WEIGHTS.get(source, self._label_weight)))
        return examples

    def skip(self, n: int) -> None:
        """Passes over lists that an earlier run has seen."""
        for source, share in SHARES.items():
            self._next[source] += int(n * share)

    def _example(self, pool: str, row: int, label_weight: float) -> Example:
        """``width`` documents: the positive, and candidates, the teacher's first ones the likeliest.

        In every fourth list, and for want of others, there are documents from anywhere.
        """
        rng = self._rng
        candidates, teacher = self._data[f"{pool}.candidates"][row], self._teacher[pool][row]
        labelled = bool(self._data[f"{pool}.labelled"][row])
        n, first = int((candidates >= 0).sum()), int(labelled)
        wanted = self._width - first - int(rng.random() < 0.25)
        likely = 1.0 / (4 + np.argsort(np.argsort(-teacher[first:n])))
        others = rng.choice(n - first, min(wanted, n - first), replace=False, p=likely / likely.sum())
        columns = np.concatenate([np.arange(first), first + others]).astype(int)
        strangers = rng.integers(
            len(self._data[f"{pool}.documents_starts"]) - 1, size=self._width - len(columns)
        )
        documents = [*candidates[columns].tolist(), *strangers.tolist()]
        query, limit = self._ids(pool, "queries", row), LIMITS[pool]
        lowest = np.full(len(strangers), teacher[:n].min() - 1.0)
        return Example(
            pairs=[pair(query, self._ids(pool, "documents", one), limit=limit) for one in documents],
            teacher=np.concatenate([teacher[columns], lowest]).astype(np.float32),
            label_weight=label_weight if labelled else 0.0,
        )


def standardized(values: NDArray[np.float32], there: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean 0 and deviation 1 in each row, of what is there."""
    n = there.sum(1, keepdims=True)
    mean = np.where(there, values, 0).sum(1, keepdims=True) / n
    deviation = np.sqrt((np.where(there, values - mean, 0) ** 2).sum(1, keepdims=True) / n)
    return (values - mean) / (deviation + 1e-4)


def gradients(
    model: CrossEncoder, examples: list[Example], pool: ThreadPoolExecutor, *, temperature: float
) -> tuple[float, list[Tensor]]:
    """Mean loss of the lists, and its gradients in float32.

    Sequences of like length are computed together whatever list they come from, so there is next to no
    padding; the lists meet in the loss, between the forward and the backward passes.
    """
    trained = [value for value in model.parameters() if value.requires_grad]
    sequences = [sequence for example in examples for sequence in example.pairs]
    batches = list(by_length(sequences, tokens=2048))
    computed = list(pool.map(lambda rows: model(*padded([sequences[row] for row in rows])), batches))
    logits = torch.zeros(len(sequences))
    for rows, values in zip(batches, computed, strict=True):
        logits[torch.from_numpy(rows)] = values.detach()
    logits.requires_grad_()
    loss = loss_of(logits.view(len(examples), -1), examples, temperature=temperature) / len(examples)
    (slopes,) = torch.autograd.grad(loss, logits)

    def backward(k: int) -> tuple[Tensor, ...]:
        return torch.autograd.grad(computed[k], trained, slopes[torch.from_numpy(batches[k])])

    sums = [torch.zeros_like(value, dtype=torch.float32) for value in trained]
    for grads in pool.map(backward, range(len(batches))):
        for total, grad in zip(sums, grads, strict=True):
            total += grad
    return float(loss.detach()), sums


def copy_weights(model: CrossEncoder, fast: CrossEncoder) -> None:
    """The float32 weights that the optimizer moves, into the copy that computes."""
    with torch.no_grad():
        for value, copied in zip(model.parameters(), fast.parameters(), strict=True):
            if value.requires_grad:
                copied.copy_(value)


def loss_of(logits: Tensor, examples: list[Example], *, temperature: float) -> Tensor:
    """Cross-entropy of the lists against label and teacher, summed."""
    teacher = torch.softmax(torch.from_numpy(np.stack([e.teacher for e in examples])) / temperature, dim=1)
    weight = torch.tensor([e.label_weight for e in examples])[:, None]
    label = torch.zeros_like(teacher)
    label[:, 0] = 1.0
    target = weight * label + (1 - weight) * teacher
    return -(target * torch.log_softmax(logits, dim=1)).sum()


def rate(step: int, steps: int, *, decay: float) -> float:
    """Share of the learning rate: rises for 5 %, stays, falls to 0 over the last ``decay``."""
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm, (steps - step) / max(1.0, steps * decay))


class Average:
    """Exponential moving average of the weights."""

    def __init__(self, model: CrossEncoder, *, horizon: int) -> None:
        self._keep = 1 - 1 / horizon
        self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def update(self, model: CrossEncoder) -> None:
        """Moves towards the model's weights."""
        with torch.no_grad():
            for name, value in model.named_parameters():
                if value.requires_grad:
                    self.weights[name].lerp_(value, 1 - self._keep)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the reranker.")
    parser.add_argument("lists", type=Path)
    parser.add_argument("output", type=Path, help="weights (.pt); the log stands beside it (.jsonl)")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lists-per-step", type=int, default=16)
    parser.add_argument("--width", type=int, default=8, help="documents of a list")
    parser.add_argument("--rate", type=float, default=1.5e-4)
    parser.add_argument("--decay", type=float, default=0.4)
    parser.add_argument("--label-weight", type=float, default=0.5)
    parser.add_argument("--bm25-weight", type=float, default=0.6)
    parser.add_argument("--temperature", type=float, default=0.7)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--first-list", type=int, default=0, help="skip lists that an earlier run has seen")
    parser.add_argument("--save-every", type=int, default=250)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    lists = Lists(
        arguments.lists,
        bm25_weight=arguments.bm25_weight,
        width=arguments.width,
        label_weight=arguments.label_weight,
    )
    model = CrossEncoder(layers=arguments.layers)
    lists.skip(arguments.first_list)
    if arguments.start:
        model.load_state_dict(torch.load(arguments.start))
    train(model, lists, arguments)


def train(model: CrossEncoder, lists: Lists, arguments: argparse.Namespace) -> None:
    """Runs the steps; writes weights and log as it goes."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.01)
    average = Average(model, horizon=max(20, min(200, arguments.steps // 10)))
    pool, fast = workers(), model.in_bf16()
    started, seen, recent = time.monotonic(), 0, []
    log = arguments.output.with_suffix(".jsonl").open("w", encoding="utf-8")
    print(json.dumps({"options": vars(arguments)}, default=str), file=log, flush=True)
    for step in range(arguments.steps):
        examples = lists.draw(arguments.lists_per_step)
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * rate(step, arguments.steps, decay=arguments.decay)
        loss, grads = gradients(fast, examples, pool, temperature=arguments.temperature)
        for value, grad in zip(trained, grads, strict=True):
            value.grad = grad
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        copy_weights(model, fast)
        average.update(model)
        seen += sum(len(example.pairs) for example in examples)
        recent.append(loss)
        if (step + 1) % 25 == 0 or step + 1 == arguments.steps:
            line = {
                "step": step + 1,
                "loss": round(sum(recent) / len(recent), 4),
                "pairs": seen,
                "seconds": round(time.monotonic() - started),
            }
            print(json.dumps(line), file=log, flush=True)
            recent = []
        if (step + 1) % arguments.save_every == 0 or step + 1 == arguments.steps:
            torch.save(average.weights, arguments.output)
            torch.save(model.state_dict(), arguments.output.with_suffix(f".{step + 1}.pt"))
    log.close()


if __name__ == "__main__":
    main()
