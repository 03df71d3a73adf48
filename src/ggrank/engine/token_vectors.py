"""The input of BERT's first layer without positions: each token's word vector, and what its segment adds.

An engine computes with these vectors in place of token ids where its own graph has no segments.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ggrank.engine.budget import check_token_ids
from ggrank.engine.weights import Floats, Weights
from ggrank.types import TokenIds


class TokenVectors:
    """The word vectors of one BERT file, with segment ids where the model was trained with them.

    Args:
        weights: the file's tensors.
        separator: the id of ``[SEP]``, which ends a pair's query: what follows the first one is segment 1.
            None: every token is segment 0.
    """

    def __init__(self, weights: Weights, *, separator: int | None) -> None:
        self._weights = weights
        self._separator = separator
        self._n_vocab = weights.shape("token_embd.weight")[0]
        if separator is not None:
            types = weights.array("token_types.weight")
            self._segment_difference = types[1] - types[0]

    def of(self, sequences: Sequence[TokenIds]) -> Floats:
        """Each token's word vector, and for segment 1 by how much its type vector differs from segment 0's.

        Graphs add the vector of segment 0 to every token, so the sum is the one of the original model.

        Returns:
            Shape (n_tokens, n_embd), float32, all sequences in a row.

        Raises:
            InputError: a token id is not in the vocabulary.
        """
        tokens = np.concatenate(sequences)
        words, which = np.unique(tokens, return_inverse=True)
        check_token_ids(words, self._n_vocab)
        vectors = self._weights.rows("token_embd.weight", words.astype(np.int64))[which]
        if self._separator is not None:
            vectors[segments(sequences, tokens == self._separator)] += self._segment_difference
        return vectors


def segments(sequences: Sequence[TokenIds], is_separator: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which tokens follow the first separator of their sequence: shape (n_tokens,).

    Those are the tokens to which ``BertTokenizer`` of transformers gives the segment id 1.

    Example:
        >>> pair = np.array([101, 7, 102, 8, 9, 102])
        >>> segments([pair], pair == 102).astype(int).tolist()
        [0, 0, 0, 1, 1, 1]
    """
    lengths = np.fromiter(map(len, sequences), np.int64, len(sequences))
    n_before: NDArray[np.int64] = np.cumsum(is_separator) - is_separator
    starts = np.cumsum(lengths) - lengths
    return n_before > np.repeat(n_before[starts], lengths)
