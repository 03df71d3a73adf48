"""Sequences to micro-batches, by their lengths alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ggrank.types import Attention

START_TOKENS = 16
"""The cost of starting a micro-batch, in tokens: weights are read again, work buffers cleared.

Measured on two cores of an AMD EPYC (AVX512-VNNI): 9 to 15 with 12 layers of 768, 19 to 36 with 6 of 384;
about 16 with OpenVINO.
"""

ATTENTION_FACTOR = 10
"""How much more a multiplication costs in attention than in a linear layer, without flash attention.

It is done in float32, through memory, with an exponential for each pair of tokens and head. Measured like
`START_TOKENS`: 10 to 13 with 6 layers of 384 in q8_0 and in f32; 5.5 with 12 of 768 in q4_k_m, 2.2 in
f32. At 10 the micro-batches are small everywhere, and within 3 % of the fastest size on each.
"""

MOST_FOR_STRANGERS = 0.1
"""The largest share of a micro-batch's work for attention between tokens of different sequences."""

PADDING_COST = 0.25
"""The cost of one token of padding, which attention alone needs ("padded"), in tokens.

Measured like `START_TOKENS`, with OpenVINO: 0.18 if the longest sequence has 64 or 128 tokens; for 256
tokens 0.26 with 12 layers of 768, 0.44 with 6 of 384.
"""


def plan_micro_batches(
    lengths: Sequence[int], *, max_tokens: int, max_sequences: int, attention: Attention, n_embd: int
) -> list[list[int]]:
    """The positions of the sequences of each micro-batch: similar lengths together, the longest first.

    Longest first, because llama.cpp then sizes its work buffers once. The unit of cost is one token's work in
    the linear layers. A micro-batch of n tokens costs `START_TOKENS` and n, and in addition:

    - "packed": nothing, so only the number of micro-batches counts.
    - "full": ``ATTENTION_FACTOR / (6 n_embd)`` for each pair of tokens. A layer of BERT has ``12 n_embd²``
      weights, each of them one multiplication a token. Attention is ``2 n_embd`` multiplications for each
      pair of tokens, and each costs `ATTENTION_FACTOR`. The work for pairs of different sequences is wasted:
      at most `MOST_FOR_STRANGERS`.
    - "padded": `PADDING_COST` for each token by which a sequence is shorter than the longest. This is wasted
      too, and never more than the start of another micro-batch would cost.

    Raises:
        ValueError: a length is above ``max_tokens``, beyond which llama.cpp ends the process.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    falling = np.asarray(lengths, dtype=np.int64)[order]
    if len(order) and falling[0] > max_tokens:
        raise ValueError(f"sequence {order[0]} has {falling[0]} tokens, a micro-batch holds {max_tokens}")
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        candidates = falling[start : start + max_sequences]
        stop = start + _n_that_fit(candidates, max_tokens, attention, n_embd)
        batches.append(order[start:stop].tolist())
        start = stop
    return batches


def _n_that_fit(falling: NDArray[np.int64], max_tokens: int, attention: Attention, n_embd: int) -> int:
    """The number of the next sequences, in order of falling length, for one micro-batch; at least one.

    Element i of each array is about a micro-batch of the first i + 1.
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
