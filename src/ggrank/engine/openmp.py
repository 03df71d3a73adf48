"""How long OpenMP's threads spin while they wait for each other.

Between two matrix products each thread waits for the slowest. libgomp lets it spin 300,000 times before it
sleeps: on an idle machine that gains nothing over 10,000, and on a busy one, where the other thread may have
no core to run on, it costs half of the speed or more.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

SPIN_COUNT = "10000"
"""Measured with the bundled model on two cores, tokens a second: idle 8,800 (8,700 with libgomp's own
count), beside two busy processes 4,300 (2,600). Sleeping at once (``OMP_WAIT_POLICY=passive``) is as
good when busy, but takes twice as long for one short text when idle."""

_CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@contextmanager
def short_spins() -> Iterator[None]:
    """Lets an OpenMP runtime that is loaded inside spin for a short time; a user's own choice stays.

    The variable is taken back afterwards, so that other programs' runtimes do not inherit it.
    """
    if any(name in os.environ for name in _CHOICES):
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)
