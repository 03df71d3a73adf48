"""Candidate lists -> an embedder or a cross-encoder, taught by three embedders and BM25.

    python training/train.py embedder work/lists.npz work/embedder.pt --steps 1500 --minutes 95
    python training/train.py reranker work/lists.npz work/reranker.pt --start work/start --minutes 95

A run ends after ``--steps`` or ``--minutes``. The same command goes on where the last one ended: the
checkpoint beside the output (``.state``) holds everything, and a step's lists depend on its number alone.

The embedder learns where the teachers together place each text (`Targets`), and to order each batch's
documents as they do. The cross-encoder learns the order of each list: the divergence between the softmax of
its logits and the teachers', and the label where there is one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from backbone import (
    WIDTH,
    CrossEncoder,
    Embedder,
    Student,
    by_length,
    in_bf16,
    minilm_folder,
    padded,
    pair,
    single,
    start_from,
    workers,
)
from numpy.typing import NDArray
from torch import Tensor

SEED = 20261201
POOLS = ("main", "sentences", "long")
LIMITS = {"main": 224, "sentences": 128, "long": 448}
"""Tokens of a sequence in training; in use it may have 512."""
SHARES = {
    "sections": 0.26,
    "cloze": 0.16,
    "medquad": 0.12,
    "nq": 0.16,
    "covidqa": 0.06,
    "scifact_train": 0.05,
    "tldr": 0.04,
    "msrd": 0.03,
    "sentences": 0.07,
    "long": 0.05,
}
"""How much of every batch comes from each source."""
LABEL_WEIGHTS = {"nq": 0.5, "covidqa": 0.5, "medquad": 0.4, "scifact_train": 0.5, "tldr": 0.5}
"""How much the label counts beside the teachers; 0.25 elsewhere, for many labels are headings of sections."""

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class Example:
    """A query and its documents: token ids, the teachers' vectors and scores, and the label's weight.

    The first document is the labelled one where ``label_weight`` is above 0.
    """

    query: Ids
    documents: list[Ids]
    vectors: NDArray[np.float32]  # (1 + n_documents, 3 * 384), the query's first
    scores: NDArray[np.float32]  # (n_documents,): z of cosines, and BM25's by its weight
    label_weight: float
    limit: int


class Lists:
    """The lists of all pools. A step's number decides which lists, and which of their documents, it gets."""

    def __init__(self, path: Path, *, width: int) -> None:
        arrays = np.load(path)
        self._data = {key: arrays[key] for key in arrays.files}
        self._width = width
        self._rows: dict[str, list[tuple[str, int]]] = {source: [] for source in SHARES}
        for pool in POOLS:
            for row, source in enumerate(self._data[f"{pool}.sources"]):
                self._rows[str(source)].append((pool, row))
        self._rows = {source: rows for source, rows in self._rows.items() if rows}
        self._scores = {pool: self._fused(pool) for pool in POOLS}
        self.spread = self._data["main.spread"]

    def vectors(self, *, kind: str, n: int) -> NDArray[np.float32]:
        """The teachers' vectors of the first ``n`` "documents" or "queries" of the main pool."""
        return self._data[f"main.{kind}_vectors"][:n].astype(np.float32)

    def draw(self, step: int, n: int) -> list[Example]:
        """``n`` lists, sources mixed by their shares."""
        rng = np.random.default_rng([SEED, step])
        names = list(self._rows)
        shares = np.array([SHARES[name] for name in names])
        examples = []
        for source in rng.choice(len(names), size=n, p=shares / shares.sum()):
            rows = self._rows[names[source]]
            examples.append(self._example(*rows[rng.integers(len(rows))], names[source], rng))
        return examples

    def _fused(self, pool: str) -> NDArray[np.float32]:
        there = self._data[f"{pool}.candidates"] >= 0
        cosines = self._data[f"{pool}.cosine"]
        together = sum(standardized(cosines[..., k], there) for k in range(cosines.shape[2]))
        bm25 = standardized(self._data[f"{pool}.bm25"], there)
        weight = self._data[f"{pool}.bm25_weight"][:, None]
        return standardized(standardized(together, there) + weight * bm25, there)

    def _ids(self, pool: str, kind: str, row: int) -> Ids:
        starts = self._data[f"{pool}.{kind}_starts"]
        return self._data[f"{pool}.{kind}"][starts[row] : starts[row + 1]]

    def _example(self, pool: str, row: int, source: str, rng: np.random.Generator) -> Example:
        """The positive, where there is one, and candidates, the teachers' first ones the likeliest."""
        candidates, scores = self._data[f"{pool}.candidates"][row], self._scores[pool][row]
        labelled = bool(self._data[f"{pool}.labelled"][row])
        n, first = int((candidates >= 0).sum()), int(labelled)
        likely = 1.0 / (4 + np.argsort(np.argsort(-scores[first:n])))
        wanted = min(self._width - first, n - first)
        others = first + rng.choice(n - first, wanted, replace=False, p=likely / likely.sum())
        columns = np.concatenate([np.arange(first), others]).astype(int)
        documents = candidates[columns]
        vectors = [
            self._data[f"{pool}.queries_vectors"][row][None],
            self._data[f"{pool}.documents_vectors"][documents],
        ]
        return Example(
            query=self._ids(pool, "queries", row),
            documents=[self._ids(pool, "documents", one) for one in documents],
            vectors=np.concatenate(vectors).astype(np.float32),
            scores=scores[columns],
            label_weight=LABEL_WEIGHTS.get(source, 0.25) if labelled else 0.0,
            limit=LIMITS[pool],
        )


def standardized(values: NDArray[np.float32], there: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Mean 0 and deviation 1 in each row, of what is there."""
    n = there.sum(1, keepdims=True)
    mean = np.where(there, values, 0).sum(1, keepdims=True) / n
    deviation = np.sqrt((np.where(there, values - mean, 0) ** 2).sum(1, keepdims=True) / n)
    return np.where(there, (values - mean) / (deviation + 1e-4), 0).astype(np.float32)


# -- what each student is taught


class Targets:
    """One vector of 384 numbers for the three of the teachers, near to the first teacher's own.

    The teachers' vectors side by side, each by 1 / sqrt(spread), have the sum of the standardized cosines as
    their product. Their common mean is taken out, so that texts which have nothing in common have a cosine
    near 0. The first 384 principal directions of the rest keep nearly all of it, and are turned (Procrustes)
    so that the student, which starts as the first teacher, has little way to go.
    """

    def __init__(self, lists: Lists, *, n: int = 20_000) -> None:
        self._scale = np.repeat(1 / np.sqrt(lists.spread), WIDTH).astype(np.float32)
        groups = [lists.vectors(kind=kind, n=n) for kind in ("documents", "queries")]
        self._mean = np.mean([(group * self._scale).mean(0) for group in groups], axis=0)
        sample = np.concatenate(groups)
        centred = normalized(sample * self._scale - self._mean)
        _, directions = np.linalg.eigh(centred.T @ centred)
        main = directions[:, -WIDTH:].astype(np.float32)
        left, _, right = np.linalg.svd(normalized(centred @ main).T @ sample[:, :WIDTH])
        self._turned = main @ (left @ right)

    def of(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shape (n, 384), length 1, for the teachers' (n, 3 * 384)."""
        return normalized(normalized(vectors * self._scale - self._mean) @ self._turned)


def normalized(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@dataclass(frozen=True)
class Lesson:
    """Sequences to compute, and the loss of what the student gives for them."""

    sequences: list[Ids]
    loss: Callable[[Tensor], Tensor]


def embedder_lesson(examples: list[Example], targets: Targets, *, scale: float = 20.0) -> Lesson:
    """Every text to its target, and all documents of the batch in the teachers' order for every query."""
    sequences, is_query = [], []
    for example in examples:
        sequences += [single(ids, limit=example.limit) for ids in (example.query, *example.documents)]
        is_query += [True] + [False] * len(example.documents)
    wanted = torch.from_numpy(targets.of(np.concatenate([example.vectors for example in examples])))
    query = torch.tensor(is_query)
    likely = torch.softmax(scale * wanted[query] @ wanted[~query].T, dim=1)

    def loss(found: Tensor) -> Tensor:
        place = (1 - (found * wanted).sum(1)).mean()
        order = -(likely * torch.log_softmax(scale * found[query] @ found[~query].T, dim=1)).sum(1).mean()
        order = order + (likely * likely.clamp_min(1e-9).log()).sum(1).mean()  # the entropy: 0 is the least
        return 5 * place + order

    return Lesson(sequences, loss)


def reranker_lesson(examples: list[Example], *, temperature: float = 0.6) -> Lesson:
    """Every list in the teachers' order, its labelled document first by the label's weight."""
    sequences = [
        pair(example.query, ids, limit=example.limit) for example in examples for ids in example.documents
    ]

    def loss(found: Tensor) -> Tensor:
        logits = found[:, 0].split([len(example.documents) for example in examples])
        return torch.stack(
            [of_list(*one, temperature=temperature) for one in zip(logits, examples, strict=True)]
        ).mean()

    return Lesson(sequences, loss)


def of_list(logits: Tensor, example: Example, *, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the softmax of the logits from the target; 0 is the least."""
    target = (1 - example.label_weight) * torch.softmax(torch.from_numpy(example.scores) / temperature, 0)
    target[0] += example.label_weight
    return (target * (target.log() - torch.log_softmax(logits, 0))).sum()


# -- steps


def gradients(student: Student, lesson: Lesson, pool: ThreadPoolExecutor) -> tuple[float, list[Tensor]]:
    """The loss, and its gradients in float32.

    Sequences of like length are computed together whatever list they come from, so there is next to no
    padding; they meet in the loss, between the forward and the backward passes.
    """
    trained = [value for value in student.parameters() if value.requires_grad]
    batches = list(by_length(lesson.sequences, tokens=2048))
    computed = list(pool.map(lambda rows: student(*padded([lesson.sequences[row] for row in rows])), batches))
    found = torch.zeros(len(lesson.sequences), student.outputs)
    for rows, values in zip(batches, computed, strict=True):
        found[torch.from_numpy(rows)] = values.detach()
    found.requires_grad_()
    loss = lesson.loss(found)
    (slopes,) = torch.autograd.grad(loss, found)

    def backward(k: int) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(
            computed[k], trained, slopes[torch.from_numpy(batches[k])], allow_unused=True
        )

    sums = [torch.zeros_like(value, dtype=torch.float32) for value in trained]
    for grads in pool.map(backward, range(len(batches))):
        for total, grad in zip(sums, grads, strict=True):
            if grad is not None:
                total += grad
    return float(loss.detach()), sums


def rate(step: int, steps: int, *, decay: float) -> float:
    """Share of the learning rate: rises for 5 %, stays, falls to 0 over the last ``decay``."""
    warm = max(1, steps // 20)
    return min(1.0, (step + 1) / warm, (steps - step) / max(1.0, steps * decay))


class Run:
    """A student with its optimizer and the moving average of its weights, saved and read as one."""

    def __init__(self, student: Student, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self.student, self.step = student, 0
        self.trained = [value for value in student.parameters() if value.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=arguments.rate, betas=(0.9, 0.98), weight_decay=0.01
        )
        self.average = {name: value.detach().clone() for name, value in student.state_dict().items()}
        self._state_path = arguments.output.with_suffix(".state")
        if self._state_path.is_file():
            state = torch.load(self._state_path)
            student.load_state_dict(state["student"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.average = state["step"], state["average"]

    def apply(self, grads: list[Tensor]) -> None:
        """One step of the optimizer and of the average."""
        arguments = self._arguments
        for group in self.optimizer.param_groups:
            group["lr"] = arguments.rate * rate(self.step, arguments.steps, decay=arguments.decay)
        for value, grad in zip(self.trained, grads, strict=True):
            value.grad = grad
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.step += 1
        keep = min(1 - 1 / 100, self.step / (self.step + 10))
        with torch.no_grad():
            for name, value in self.student.named_parameters():
                if value.requires_grad:
                    self.average[name].lerp_(value, 1 - keep)

    def save(self) -> None:
        """The averaged weights, and the checkpoint that the next run starts from."""
        state = {
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "average": self.average,
        }
        for path, value in ((self._state_path, state), (self._arguments.output, self.average)):
            unfinished = path.with_suffix(".unfinished")
            torch.save(value, unfinished)
            unfinished.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedder or the reranker.")
    parser.add_argument("student", choices=("embedder", "reranker"))
    parser.add_argument("lists", type=Path)
    parser.add_argument("output", type=Path, help="weights (.pt); its log (.jsonl) lies beside it")
    parser.add_argument("--start", type=Path, help="weights, a folder or a GGUF; else all-MiniLM")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=95)
    parser.add_argument("--lists-per-step", type=int, default=16)
    parser.add_argument("--width", type=int, default=8, help="documents of a list")
    parser.add_argument("--rate", type=float, default=1.5e-4)
    parser.add_argument("--decay", type=float, default=0.4)
    parser.add_argument("--save-every", type=int, default=50)
    arguments = parser.parse_args()
    torch.manual_seed(SEED)
    student: Student = Embedder() if arguments.student == "embedder" else CrossEncoder()
    start_from(student, arguments.start or minilm_folder())
    train(Run(student, arguments), Lists(arguments.lists, width=arguments.width), arguments)


def train(run: Run, lists: Lists, arguments: argparse.Namespace) -> None:
    """Runs the steps; writes weights and log as it goes."""
    started, recent = time.monotonic(), []
    fast = in_bf16(type(run.student)())
    for value, copied in zip(run.student.parameters(), fast.parameters(), strict=True):
        copied.requires_grad_(value.requires_grad)
        copied.data.copy_(value.data)
    targets = Targets(lists) if arguments.student == "embedder" else None
    pool = workers()
    with arguments.output.with_suffix(".jsonl").open("a", encoding="utf-8") as log:

        def note(**facts: Any) -> None:
            print(json.dumps(facts, default=str), file=log, flush=True)

        note(options=vars(arguments), step=run.step)
        while run.step < arguments.steps and time.monotonic() - started < 60 * arguments.minutes:
            examples = lists.draw(run.step, arguments.lists_per_step)
            lesson = embedder_lesson(examples, targets) if targets else reranker_lesson(examples)
            loss, grads = gradients(fast, lesson, pool)
            run.apply(grads)
            with torch.no_grad():
                for value, copied in zip(run.student.parameters(), fast.parameters(), strict=True):
                    if value.requires_grad:
                        copied.copy_(value)
            recent.append(loss)
            if run.step % 25 == 0 or run.step == arguments.steps:
                seconds = round(time.monotonic() - started)
                note(step=run.step, loss=round(sum(recent) / len(recent), 4), seconds=seconds)
                recent = []
            if run.step % arguments.save_every == 0:
                run.save()
    run.save()


if __name__ == "__main__":
    main()
