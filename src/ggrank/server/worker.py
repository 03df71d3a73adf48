"""One thread a model that computes for all callers: requests in flight share micro-batches.

A micro-batch is planned over what all requests wait for, and the next one to be computed always holds a
sequence of the request that has waited longest for a turn. So a thousand documents fill what others leave
free, and a newcomer's turn comes after one micro-batch for each request that came before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import ClosedError, EngineError, GgrankError, InputError
from ggrank.hub.matryoshka import cut
from ggrank.llama import Llama
from ggrank.loading.cache import ResultCache
from ggrank.loading.model import LoadedModel
from ggrank.scoring import l2_normalize
from ggrank.server.errors import RefusedError
from ggrank.text.packing import plan_micro_batches
from ggrank.text.pairing import single_sequence
from ggrank.types import Engine, EngineSettings, Mode, TokenIds, Truncate

PLAN_TOKENS = 32_768
"""Tokens that are planned at once, of all requests together: planning stays under a few milliseconds."""

NEVER = -1
"""The turn of what must come first."""

log = logging.getLogger("ggrank.server")


class Request:
    """One caller's request: tokens that it may cost, whether it comes first, and whether it is wanted."""

    def __init__(self, *, max_tokens: int | None = None, is_urgent: bool = False) -> None:
        self.is_urgent = is_urgent
        self._max_tokens = max_tokens
        self._n_tokens = 0
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._results: Future[NDArray[np.float32]] | None = None

    def cancel(self) -> None:
        """Drops what waits for it; the thread that waits gets `concurrent.futures.CancelledError`."""
        with self._lock:
            self._is_cancelled = True
            if self._results is not None:
                self._results.cancel()

    def spend(self, n_tokens: int) -> None:
        """Counts tokens that are made or computed for it. Refuses more than it may have."""
        self._n_tokens += n_tokens
        if self._max_tokens is not None and self._n_tokens > self._max_tokens:
            raise RefusedError(
                f"the request has more than {self._max_tokens:,} tokens, as many as one request may have; "
                "send fewer or shorter texts at a time, or start the server with a larger --max-tokens",
                status=413,
            )

    def expect(self, n_tokens: int) -> Future[NDArray[np.float32]]:
        """What will hold the results of its next sequences."""
        self.spend(n_tokens)
        with self._lock:
            self._results = Future()
            if self._is_cancelled:
                self._results.cancel()
            return self._results


CURRENT: ContextVar[Request | None] = ContextVar("ggrank_request", default=None)
"""The request in whose name a thread computes."""


def spend(n_tokens: int) -> None:
    """Counts tokens that a thread makes in the name of its request."""
    request = CURRENT.get()
    if request is not None:
        request.spend(n_tokens)


@dataclass(frozen=True)
class Outcome:
    """What one micro-batch was: for metrics."""

    n_requests: int
    n_sequences: int
    n_tokens: int
    fill: float
    seconds: float


@dataclass(frozen=True)
class Pulse:
    """How long a micro-batch is running, if one is, and how the last one ended; "" is well."""

    running_seconds: float | None
    idle_seconds: float
    failure: str


class _Job:
    """The sequences that one request waits for."""

    def __init__(self, sequences: Sequence[TokenIds], *, n_outputs: int, request: Request) -> None:
        self.sequences = sequences
        self.lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
        self.is_urgent = request.is_urgent
        self.turn = NEVER
        self.results = request.expect(int(self.lengths.sum()))
        self._out = np.empty((len(sequences), n_outputs), dtype=np.float32)
        self._order = np.argsort(-self.lengths, kind="stable")
        self._waits = np.ones(len(sequences), dtype=np.bool_)

    @property
    def n_waiting_tokens(self) -> int:
        return int(self.lengths[self._waits].sum())

    def next(self, n_tokens: int) -> list[int]:
        """The longest sequences that wait, up to a number of tokens; at least one."""
        waiting = self._order[self._waits[self._order]]
        n_fit = int(np.searchsorted(np.cumsum(self.lengths[waiting]), n_tokens, side="right"))
        return [int(i) for i in waiting[: max(1, n_fit)]]

    def put(self, indices: list[int], values: NDArray[np.float32]) -> None:
        """Takes results; with the last one the request has all of them."""
        self._out[indices] = values
        self._waits[indices] = False
        if not self._waits.any() and self.results.set_running_or_notify_cancel():
            self.results.set_result(self._out)

    def fail(self, error: GgrankError) -> None:
        if not self.results.done() and self.results.set_running_or_notify_cancel():
            self.results.set_exception(error)


_Part = tuple[_Job, int]
"""A sequence: whose it is, and its position there."""


class Worker:
    """The thread of one engine."""

    def __init__(self, engine: Engine, settings: EngineSettings, *, name: str) -> None:
        self.on_computed: Callable[[Outcome], None] = lambda computed: None
        self.tokens_per_second = 1000.0
        self._engine = engine
        self._settings = settings
        self._changed = threading.Condition()
        self._jobs: list[_Job] = []
        self._planned: list[list[_Part]] = []
        self._clock = 0
        self._began: float | None = None
        self._ended_well = time.monotonic()
        self._failure = ""
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name=f"ggrank-{name}", daemon=True)
        self._thread.start()

    @property
    def n_waiting_tokens(self) -> int:
        """Tokens of all requests that wait to be computed."""
        with self._changed:
            return sum(job.n_waiting_tokens for job in self._jobs if not job.results.done())

    def compute(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        """Waits until they are computed: shape (n, n_outputs), float32, in input order."""
        if not sequences:
            return np.empty((0, self._engine.n_outputs), dtype=np.float32)
        request = CURRENT.get() or Request()
        job = _Job(sequences, n_outputs=self._engine.n_outputs, request=request)
        with self._changed:
            if self._is_closed:
                raise ClosedError("the model was closed; the server is stopping")
            job.turn = NEVER if job.is_urgent else self._tick()
            self._jobs.append(job)
            self._planned = []  # What is planned was planned without it.
            self._changed.notify()
        return job.results.result()

    def pulse(self) -> Pulse:
        """For the health check; waits for nothing."""
        now, began = time.monotonic(), self._began
        running = None if began is None else now - began
        failure = "its thread has ended" if self._is_closed else self._failure
        return Pulse(running, now - self._ended_well, failure)

    def close(self) -> None:
        """Ends after the micro-batch that is computed now; requests that still wait get `ClosedError`."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        try:
            while (batch := self._wait_for_batch()) is not None:
                if batch:
                    self._compute(batch)
        finally:
            with self._changed:
                self._is_closed = True
                for job in self._jobs:
                    job.fail(ClosedError("the model was closed before it came to this request"))
                self._jobs = []

    def _wait_for_batch(self) -> list[_Part] | None:
        """The next micro-batch, empty where it is not wanted any more; None at the end."""
        with self._changed:
            self._changed.wait_for(self._has_work)
            if self._is_closed:
                return None
            self._planned = self._planned or self._plan()
            batch = min(self._planned, key=lambda batch: min(job.turn for job, _ in batch))
            self._planned.remove(batch)
            turn = self._tick()
            for job, _ in batch:
                job.turn = turn
            return [(job, i) for job, i in batch if not job.results.done()]

    def _has_work(self) -> bool:
        self._jobs = [job for job in self._jobs if not job.results.done()]
        return bool(self._jobs) or self._is_closed

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _plan(self) -> list[list[_Part]]:
        """Micro-batches over the next sequences of all requests that wait."""
        share = PLAN_TOKENS // len(self._jobs)
        parts = [(job, i) for job in self._jobs for i in job.next(share)]
        batches = plan_micro_batches(
            [int(job.lengths[i]) for job, i in parts],
            max_tokens=self._settings.n_ubatch,
            max_sequences=self._settings.n_seq_max,
            attention=self._engine.attention,
            n_embd=self._engine.n_embd,
        )
        return [[parts[i] for i in batch] for batch in batches]

    def _compute(self, batch: list[_Part]) -> None:
        jobs = {id(job): job for job, _ in batch}
        started = time.perf_counter()
        try:
            values = self._run([job.sequences[i] for job, i in batch])
        except Exception as error:
            # The words of an error that is not ggrank's may hold a text.
            own = isinstance(error, GgrankError)
            self._failure = str(error) if own else f"the engine failed with {type(error).__name__}"
            log.error("a micro-batch failed: %s", self._failure)
            for job in jobs.values():
                job.fail(EngineError(self._failure))
            return
        self._failure, self._ended_well = "", time.monotonic()
        seconds = time.perf_counter() - started
        for job in jobs.values():
            rows = [row for row, (owner, _) in enumerate(batch) if owner is job]
            job.put([batch[row][1] for row in rows], values[rows])
        n_tokens = sum(int(job.lengths[i]) for job, i in batch)
        self.tokens_per_second += (n_tokens / max(seconds, 1e-6) - self.tokens_per_second) / 10
        fill = n_tokens / self._settings.n_ubatch
        self.on_computed(Outcome(len(jobs), len(batch), n_tokens, fill, seconds))

    def _run(self, sequences: list[TokenIds]) -> NDArray[np.float32]:
        self._began = time.monotonic()
        try:
            values = self._engine.run(sequences)
        finally:
            self._began = None
        if not np.isfinite(values).all():
            raise EngineError("the model computed values that are not finite (NaN or infinity)")
        return values


class SharedLlama(Llama):
    """A loaded model with a worker; everything that `Llama` computes goes through it."""

    def __init__(self, model: LoadedModel, *, cache: ResultCache | None = None) -> None:
        super().__init__(model, cache=cache)
        self.worker = Worker(model.engine, model.settings, name=model.file.path.stem)
        self._n_vocab = len(model.file.strings("tokenizer.ggml.tokens"))

    def vectors(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        prefix: str,
        normalize: bool,
        truncate: Truncate,
        dimensions: int | None,
    ) -> tuple[NDArray[np.float32], int, list[bool]]:
        """As `embed_many`, with the number of tokens, and which texts were cut. A text may be token ids."""
        if all(isinstance(text, str) for text in texts):
            results = self._vectors(cast(Sequence[str], texts), prefix=prefix, truncate=truncate)
            values, n_tokens, truncated = results.values, results.n_tokens, results.truncated
        else:
            self._require(Mode.EMBEDDING)
            frame, n_ctx = self._frame, self.n_ctx
            sequences = [
                single_sequence(self._inner(text, name), frame, n_ctx=n_ctx, name=name, truncate=truncate)
                for text, name in ((text, f"text {i}") for i, text in enumerate(texts))
            ]
            values = self._run(sequences)
            n_tokens = sum(len(sequence.tokens) for sequence in sequences)
            truncated = [sequence.truncated for sequence in sequences]
        values = cut(values, dimensions, self.matryoshka)
        return (l2_normalize(values) if normalize else values), n_tokens, truncated

    def framed(self, text: str) -> TokenIds:
        """Token ids of a text between its special tokens, not cut."""
        parts = (self._frame.head, self.tokenize(text), self._frame.tail)
        return np.concatenate([np.array(part, dtype=np.int32) for part in parts])

    def detokenize(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self._engine.detokenize(self._checked(tokens, "tokens"))

    def close(self) -> None:
        """Ends the worker and frees the model; twice is fine."""
        self.worker.close()
        super().close()

    def _compute(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        return self.worker.compute(sequences)

    def _checked(self, tokens: Sequence[int] | str, name: str) -> TokenIds:
        if isinstance(tokens, str):
            raise InputError(f"{name} is a string among lists of token ids; send one or the other")
        # A list of Python's numbers may hold one that no array can.
        if tokens and (min(tokens) < 0 or max(tokens) >= self._n_vocab):
            raise InputError(
                f"{name} must hold token ids of {self.model_path.stem}, 0 to {self._n_vocab - 1}"
            )
        return np.array(tokens, dtype=np.int32)

    def _inner(self, tokens: Sequence[int] | str, name: str) -> TokenIds:
        """Ids without the special tokens around them, by which they are known to be this model's."""
        ids, head, tail = self._checked(tokens, name), self._frame.head, self._frame.tail
        inner = ids[len(head) : len(ids) - len(tail)]
        if not (head or tail) or [*head, *inner.tolist(), *tail] != ids.tolist():
            expected = " ... ".join(" ".join(map(str, part)) for part in (head, tail) if part)
            raise InputError(
                f"{name} may be another tokenizer's ids: those of {self.model_path.stem} begin and end with "
                f"its special tokens ({expected or 'it has none, so its ids cannot be known'}). Send "
                "strings; in LangChain OpenAIEmbeddings(check_embedding_ctx_length=False) does"
            )
        return inner
