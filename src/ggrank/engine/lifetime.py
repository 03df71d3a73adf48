"""Whether a loaded model may still be used: not after it is closed, and not in a forked child.

Knows processes; not what is kept alive.
"""

from __future__ import annotations

import os

from ggrank.errors import ClosedError


class Lifetime:
    """From a model's load to its end, in the process that loaded it; shared by all that point into it."""

    def __init__(self) -> None:
        self._process_id = os.getpid()
        self._is_open = True

    @property
    def in_this_process(self) -> bool:
        """False in a forked child: it shares the memory, but not the threads that compute."""
        return self._process_id == os.getpid()

    def check(self) -> None:
        """Raises ClosedError where the model may not be used."""
        if not self.in_this_process:
            raise ClosedError(
                "this model was loaded in another process; llama.cpp's threads do not survive a fork. Load "
                "it in the process that uses it, or start workers with multiprocessing's 'spawn'."
            )
        if not self._is_open:
            raise ClosedError("this model is closed; load it again")

    def end(self) -> None:
        """From here on `check` raises."""
        self._is_open = False
