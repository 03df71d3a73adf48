"""Which sequences are computed together: lengths in, micro-batches out.

Knows token counts and budgets only; no tokens, no engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ggrank.types import MicroBatch


def plan_micro_batches(lengths: Sequence[int], *, max_tokens: int, max_sequences: int) -> list[MicroBatch]:
    """Packs sequences into micro-batches, neighbours of like length together, longest first.

    Longest first, because llama.cpp then sizes its work buffers once. Every index occurs in exactly
    one micro-batch, so whoever writes results to ``indices`` has restored the input's order.

    Args:
        lengths: tokens of each sequence; none above ``max_tokens``.
        max_tokens: tokens of a micro-batch at most; ``n_ubatch``, which `llama_encode` must never
            see exceeded (it ends the process).
        max_sequences: sequences of a micro-batch at most; ``n_seq_max``.

    Raises:
        ValueError: a length is above ``max_tokens``; the caller has not truncated.

    Example:
        >>> [batch.indices for batch in plan_micro_batches([3, 9, 4], max_tokens=10, max_sequences=8)]
        [(1,), (2, 0)]
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    batches: list[MicroBatch] = []
    indices: list[int] = []
    n_tokens = 0
    for index in order:
        length = lengths[index]
        if length > max_tokens:
            raise ValueError(f"sequence {index} has {length} tokens, a micro-batch holds {max_tokens}")
        if indices and (n_tokens + length > max_tokens or len(indices) == max_sequences):
            batches.append(MicroBatch(indices=tuple(indices), n_tokens=n_tokens))
            indices, n_tokens = [], 0
        indices.append(index)
        n_tokens += length
    if indices:
        batches.append(MicroBatch(indices=tuple(indices), n_tokens=n_tokens))
    return batches
