"""The worker: shared micro-batches, turns, cancelling, and every way to end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ggrank.engine.base import check_micro_batch
from ggrank.errors import ClosedError, EngineError
from ggrank.server.errors import RefusedError
from ggrank.server.worker import CURRENT, PLAN_TOKENS, Outcome, Request, Worker
from ggrank.types import Attention, EngineSettings, PoolingType, TokenIds
from serving import LONG, wait_until

LIMITS = EngineSettings(PoolingType.MEAN, n_ctx=32, n_ubatch=64, n_seq_max=8, n_threads=1)
BAD = 666
FATAL = 667


class Adder:
    """An engine whose result is a sequence's sum and length, and which a test can stop."""

    name, device, n_embd, n_outputs = "adder", "CPU", 8, 2

    def __init__(self, attention: Attention = "packed", limits: EngineSettings = LIMITS) -> None:
        self.attention, self.limits = attention, limits
        self.batches: list[list[TokenIds]] = []
        self.may_run = threading.Event()
        self.may_run.set()
        self.entered = threading.Event()

    def run(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        self.entered.set()
        assert self.may_run.wait(LONG)
        check_micro_batch(sequences, self.limits)
        self.batches.append(list(sequences))
        if any(BAD in sequence for sequence in sequences):
            raise EngineError("status -3 on 7 tokens")
        if any(FATAL in sequence for sequence in sequences):
            raise SystemExit
        return expected(sequences)


def expected(sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
    return np.array([[sequence.sum(), len(sequence)] for sequence in sequences], np.float32).reshape(-1, 2)


def tokens(*ids: int) -> TokenIds:
    return np.array(ids, np.int32)


@contextmanager
def working(engine: Adder) -> Iterator[Worker]:
    worker = Worker(engine, engine.limits, name="test")  # type: ignore[arg-type]
    try:
        yield worker
    finally:
        engine.may_run.set()
        worker.close()


class Callers:
    """Threads that each compute in the name of a request."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._pool = ThreadPoolExecutor(32)

    def ask(
        self, sequences: Sequence[TokenIds], request: Request | None = None
    ) -> Future[NDArray[np.float32]]:
        waiting = self._worker.n_waiting_tokens + sum(map(len, sequences))
        future = self._pool.submit(in_the_name_of, request or Request(), self._worker.compute, sequences)
        wait_until(lambda: self._worker.n_waiting_tokens >= waiting or future.done())
        return future


def in_the_name_of(request: Request, call: Callable[..., Any], *args: Any) -> Any:
    context = copy_context()
    context.run(CURRENT.set, request)
    return context.run(call, *args)


@contextmanager
def stopped(engine: Adder, worker: Worker) -> Iterator[Callers]:
    """The engine is held in its first micro-batch, so that what is asked meanwhile waits together."""
    callers = Callers(worker)
    engine.may_run.clear()
    first = callers._pool.submit(worker.compute, [tokens(1)])
    assert engine.entered.wait(LONG)
    yield callers
    engine.may_run.set()
    first.result(LONG)


LISTS = st.lists(st.lists(st.integers(0, 500), min_size=1, max_size=32), max_size=40)


@settings(max_examples=30)
@given(
    requests=st.lists(LISTS, min_size=1, max_size=6), attention=st.sampled_from(["packed", "full", "padded"])
)
def test_every_caller_gets_its_own_results_in_its_own_order(
    requests: list[list[list[int]]], attention: Attention
) -> None:
    asked = [[tokens(*ids) for ids in request] for request in requests]
    with working(Adder(attention)) as worker, ThreadPoolExecutor(len(asked)) as pool:
        for found, sequences in zip(pool.map(worker.compute, asked), asked, strict=True):
            np.testing.assert_array_equal(found, expected(sequences))


def test_requests_that_wait_together_share_a_micro_batch() -> None:
    engine = Adder()
    seen: list[Outcome] = []
    with working(engine) as worker:
        worker.on_computed = seen.append
        with stopped(engine, worker) as callers:
            found = [callers.ask([tokens(i, i)]) for i in range(5)]
        for i, result in enumerate(found):
            np.testing.assert_array_equal(result.result(LONG), [[2 * i, 2]])
        wait_until(lambda: len(seen) == 2)
    assert [computed.n_requests for computed in seen] == [1, 5]
    assert (seen[1].n_tokens, seen[1].n_sequences, seen[1].fill) == (10, 5, 10 / 64)


def test_a_long_request_does_not_hold_up_a_short_one_that_comes_later() -> None:
    engine = Adder()
    with working(engine) as worker:
        with stopped(engine, worker) as callers:
            long = callers.ask([np.full(30, 7, np.int32) for _ in range(1000)])
            short = callers.ask([tokens(8), np.full(30, 8, np.int32)])
        short.result(LONG)
        batches_with_short = [i for i, batch in enumerate(engine.batches) if any(8 in ids for ids in batch)]
        assert batches_with_short[-1] <= 4
        np.testing.assert_array_equal(long.result(LONG), [[210, 30]] * 1000)


def test_newcomers_do_not_starve_who_is_there_already() -> None:
    engine = Adder()
    with working(engine) as worker:
        with stopped(engine, worker) as callers:
            old = callers.ask([np.full(20, 7, np.int32) for _ in range(9)])
            others = [callers.ask([np.full(32, 8, np.int32) for _ in range(50)]) for _ in range(4)]
        for future in [old, *others]:
            future.result(LONG)
    last_of_old = max(i for i, batch in enumerate(engine.batches) if any(7 in ids for ids in batch))
    assert sum(8 in ids for batch in engine.batches[:last_of_old] for ids in batch) < 200


def test_a_cancelled_request_is_dropped_before_the_next_micro_batch() -> None:
    engine = Adder()
    with working(engine) as worker:
        with stopped(engine, worker) as callers:
            request = Request()
            gone = callers.ask([np.full(30, 7, np.int32) for _ in range(1000)], request)
            stays = callers.ask([tokens(5)])
            request.cancel()
            with pytest.raises(CancelledError):
                gone.result(LONG)
            assert worker.n_waiting_tokens == 2
        np.testing.assert_array_equal(stays.result(LONG), [[5, 1]])
        with pytest.raises(CancelledError):
            in_the_name_of(request, worker.compute, [tokens(7)])
    assert not any(7 in ids for batch in engine.batches for ids in batch)


def test_an_error_fails_only_the_requests_in_that_micro_batch() -> None:
    engine = Adder()
    with working(engine) as worker:
        with stopped(engine, worker) as callers:
            bad = callers.ask([np.full(32, BAD, np.int32), tokens(1)])
            shares = callers.ask([np.full(32, 3, np.int32)])
            good = callers.ask([np.full(31, 2, np.int32)])
        for failed in (bad, shares):
            with pytest.raises(EngineError, match="status -3 on 7 tokens"):
                failed.result(LONG)
        np.testing.assert_array_equal(good.result(LONG), [[62, 31]])
        np.testing.assert_array_equal(worker.compute([tokens(4)]), [[4, 1]])


def test_however_much_waits_few_tokens_are_planned_at_once() -> None:
    engine = Adder(limits=replace(LIMITS, n_ubatch=PLAN_TOKENS // 2, n_seq_max=1000))
    with working(engine) as worker:
        with stopped(engine, worker) as callers:
            waiting = [callers.ask([np.full(20, 7, np.int32) for _ in range(2000)]) for _ in range(8)]
            planned = sum(len(job.sequences[i]) for batch in worker._plan() for job, i in batch)
            assert PLAN_TOKENS * 0.8 < planned <= PLAN_TOKENS
        for found in waiting:
            assert found.result(LONG).shape == (2000, 2)


def test_what_is_urgent_comes_first() -> None:
    engine = Adder()
    with working(engine) as worker:
        with stopped(engine, worker) as callers:
            many = [callers.ask([np.full(32, 7, np.int32) for _ in range(20)]) for _ in range(3)]
            callers.ask([tokens(9)], Request(is_urgent=True))
        for found in many:
            found.result(LONG)
    assert any(9 in ids for ids in engine.batches[1])


def test_a_request_may_have_so_many_tokens_and_no_more() -> None:
    with working(Adder()) as worker:
        request = Request(max_tokens=5)
        in_the_name_of(request, worker.compute, [tokens(1, 2, 3)])
        with pytest.raises(RefusedError, match="more than 5 tokens"):
            in_the_name_of(request, worker.compute, [tokens(1, 2, 3)])


def test_closing_answers_everybody_who_waits() -> None:
    engine = Adder()
    with working(engine) as worker:
        with stopped(engine, worker) as callers:
            waiting = [callers.ask([tokens(5)]) for _ in range(3)]
            closing = threading.Thread(target=worker.close)
            closing.start()
            wait_until(lambda: worker._is_closed)
        closing.join(LONG)
        for found in waiting:
            with pytest.raises(ClosedError):
                found.result(LONG)
        with pytest.raises(ClosedError):
            worker.compute([tokens(1)])


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_dies_answers_everybody_who_waits_and_who_comes_later() -> None:
    engine = Adder()
    with working(engine) as worker:
        with stopped(engine, worker) as callers:
            waiting = [callers.ask([np.full(32, FATAL, np.int32)]), callers.ask([tokens(5)])]
        for found in waiting:
            with pytest.raises(ClosedError):
                found.result(LONG)
        with pytest.raises(ClosedError):
            worker.compute([tokens(1)])
