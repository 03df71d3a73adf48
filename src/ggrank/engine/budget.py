"""Whether a micro-batch may be computed: llama.cpp ends the process over one that may not."""

from __future__ import annotations

from collections.abc import Sequence

from ggrank.errors import InputError
from ggrank.types import EngineSettings, TokenIds


def check_budget(sequences: Sequence[TokenIds], limits: EngineSettings) -> None:
    """Raises InputError where a micro-batch is empty or over a budget."""
    n_tokens = sum(map(len, sequences))
    if not sequences or min(map(len, sequences)) == 0:
        raise InputError("a micro-batch needs at least one sequence, and each at least one token")
    if n_tokens > limits.n_ubatch or len(sequences) > limits.n_seq_max:
        raise InputError(
            f"a micro-batch of {len(sequences)} sequences and {n_tokens} tokens is over the budget of "
            f"n_seq_max={limits.n_seq_max} and n_ubatch={limits.n_ubatch}"
        )
    longest = max(map(len, sequences))
    if longest > limits.n_ctx:
        raise InputError(f"a sequence of {longest} tokens is longer than n_ctx={limits.n_ctx}")


def check_token_ids(tokens: TokenIds, n_vocab: int) -> None:
    """Raises InputError where an id is not in the vocabulary: engines would read past a table."""
    if tokens.min() < 0 or tokens.max() >= n_vocab:
        raise InputError(f"token ids must be from 0 to {n_vocab - 1}")
