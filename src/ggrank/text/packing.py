"""Which sequences are computed together: lengths in, micro-batches out.

Knows token counts, budgets and what an engine's attention costs; no tokens, no engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ggrank.types import Attention, MicroBatch

START_TOKENS = 16
"""What starting a micro-batch costs, in tokens: weights are read and work buffers cleared anew.

Measured on two cores of an AMD EPYC (AVX512-VNNI): 9 to 15 with 12 layers of 768, 19 to 36 with 6 of 384;
about 16 with OpenVINO.
"""

ATTENTION_FACTOR = 10
"""How much more a multiplication costs in attention than in a linear layer, without flash attention.

It is done in float32, through memory, with an exponential for each pair of tokens and head. Measured as
`START_TOKENS` was: 10 to 13 with 6 layers of 384 in q8_0 and in f32; 5.5 with 12 of 768 in q4_k_m, 2.2 in
f32. At 10 the micro-batches are small everywhere, and within 3 % of the fastest size on each.
"""

MOST_FOR_STRANGERS = 0.1
"""Of a micro-batch's work, what may at most go into attention over strangers."""


PADDING_COST = 0.25
"""What a place costs that attention alone fills up ("padded"), in tokens.

Measured as `START_TOKENS` was, with OpenVINO: 0.18 where the longest sequence has 64 or 128 tokens; for 256
tokens 0.26 with 12 layers of 768, 0.44 with 6 of 384.
"""


def plan_micro_batches(
    lengths: Sequence[int], *, max_tokens: int, max_sequences: int, attention: Attention, n_embd: int
) -> list[MicroBatch]:
    """Packs sequences into micro-batches, neighbours of like length together, longest first.

    Longest first, because llama.cpp then sizes its work buffers once. Every index occurs in exactly
    one micro-batch, so whoever writes results to ``indices`` has restored the input's order.

    A micro-batch of n tokens costs `START_TOKENS`, and in the work that one token is in the linear layers:

    - "packed": n. All that counts is how many micro-batches there are; 128 and 2 sequences cost what 65
      and 65 do.
    - "full": n, and n² times what a token is to another. A layer has ``4 n_embd²`` weights for attention
      and, with a feed-forward block of ``4 n_embd``, as BERT's, ``8 n_embd²`` behind it; each is one
      multiplication a token. Attention is ``2 n_embd`` multiplications for each two tokens, and each costs
      `ATTENTION_FACTOR`. So a token is ``ATTENTION_FACTOR / (6 n_embd)`` of work to another. What strangers
      are to each other is wasted, and stays within `MOST_FOR_STRANGERS`.
    - "padded": n, and `PADDING_COST` for each place by which a sequence is shorter than the longest. Padding
      is wasted, and never costs more than starting another micro-batch would.

    Args:
        lengths: tokens of each sequence; none above ``max_tokens``.
        max_tokens: tokens of a micro-batch at most; ``n_ubatch``, which `llama_encode` must never see
            exceeded (it ends the process).
        max_sequences: sequences of a micro-batch at most; ``n_seq_max``.
        attention: how the engine computes; see `ggrank.types.Attention`.
        n_embd: width of a token's vector.

    Raises:
        ValueError: a length is above ``max_tokens``; the caller has not truncated.

    Example:
        >>> budgets = {"max_tokens": 10, "max_sequences": 8, "n_embd": 384}
        >>> [batch.indices for batch in plan_micro_batches([3, 9, 4], attention="packed", **budgets)]
        [(1,), (2, 0)]
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    falling = np.asarray(lengths, dtype=np.int64)[order]
    if len(order) and falling[0] > max_tokens:
        raise ValueError(f"sequence {order[0]} has {falling[0]} tokens, a micro-batch holds {max_tokens}")
    batches: list[MicroBatch] = []
    start = 0
    while start < len(order):
        candidates = falling[start : start + max_sequences]
        stop = start + _n_that_fit(candidates, max_tokens, attention, n_embd)
        indices = tuple(order[start:stop].tolist())
        batches.append(MicroBatch(indices=indices, n_tokens=int(falling[start:stop].sum())))
        start = stop
    return batches


def _n_that_fit(falling: NDArray[np.int64], max_tokens: int, attention: Attention, n_embd: int) -> int:
    """How many of the next sequences, in order of falling length, make one micro-batch; at least one.

    Element i of each array here is about a micro-batch of the first i + 1.
    """
    tokens = np.cumsum(falling)
    if attention == "padded":
        padding = falling[0] * np.arange(1, len(falling) + 1) - tokens
        fits = (tokens <= max_tokens) & (PADDING_COST * padding <= START_TOKENS)
    elif attention == "full":
        token_to_token = ATTENTION_FACTOR / (6 * n_embd)
        work = START_TOKENS + tokens + token_to_token * tokens**2
        strangers = token_to_token * (tokens**2 - np.cumsum(falling**2))
        fits = (tokens <= max_tokens) & (strangers <= MOST_FOR_STRANGERS * work)
    else:
        fits = tokens <= max_tokens
    return len(falling) if fits.all() else int(fits.argmin())
