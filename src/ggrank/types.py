"""The enums and frozen dataclasses that one stage hands to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

TokenIds = NDArray[np.int32]
"""Token ids, shape (n_tokens,), dtype int32."""

Truncate = Literal["end", "error", "chunk"]
"""What to do with a text or pair of more than ``n_ctx`` tokens."""

ScoreScale = Literal["auto", "logit", "sigmoid", "cosine"]
"""The scale to ask for; "auto" is logit for a reranker, cosine for an embedder."""

Scale = Literal["logit", "sigmoid", "cosine", "probability", "fused", "rrf"]
"""The scale of ``RankedDocument.score``: "probability" of a model whose own head ends in a softmax, "fused"
for sums of cosines and BM25 (`ggrank.scoring.score_fusion`), "rrf" for sums of reciprocal ranks
(`ggrank.scoring.reciprocal_rank_fusion`)."""

Attention = Literal["packed", "full", "padded"]
"""How an engine's attention treats sequences that share a micro-batch.

"packed": it skips tokens of other sequences (llama.cpp with flash attention). "full": every token is computed
against the whole micro-batch, and those of other sequences are masked (llama.cpp without). "padded": for
attention alone, every sequence is padded to the length of the longest (OpenVINO).
"""

Hybrid = Literal["scores", "rrf"]
"""How a ranking by cosine and one by BM25 become one."""

EngineName = Literal["llama.cpp", "openvino"]


class PoolingType(IntEnum):
    """How a model turns token vectors into one result. The values are llama.cpp's.

    Source: ``enum llama_pooling_type`` in llama.cpp's ``include/llama.h``.

    Example:
        >>> from ggrank import PoolingType
        >>> PoolingType.RANK.name
        'RANK'
    """

    UNSPECIFIED = -1
    NONE = 0
    MEAN = 1
    CLS = 2
    LAST = 3
    RANK = 4


class Mode(str, Enum):
    """What a loaded model does: make vectors, or score pairs."""

    EMBEDDING = "embedding"
    RERANK = "rerank"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class SpecialTokens:
    """A vocabulary's special tokens; an id is -1 where it has none."""

    bos: int
    """Begins a sequence; BERT's ``[CLS]``."""
    eos: int
    """Ends a sequence; -1 for BERT, which ends with ``sep``."""
    sep: int
    """Separates the two texts of a pair."""
    add_bos: bool
    """Whether a single text gets ``bos`` before it."""
    add_eos: bool
    """Whether a single text gets ``eos`` after it."""


@dataclass(frozen=True)
class TokenSequence:
    """One sequence as the model reads it, with special tokens, never longer than ``n_ctx``."""

    tokens: TokenIds
    truncated: bool


@dataclass(frozen=True)
class EngineSettings:
    """The settings of an engine; the names are llama.cpp's and explained at `ggrank.LlamaParams`.

    With ``segment_ids`` the tokens after a sequence's first separator are segment 1.
    """

    pooling_type: PoolingType
    n_ctx: int
    n_ubatch: int
    n_seq_max: int
    n_threads: int
    n_gpu_layers: int = -1
    use_mmap: bool = True
    flash_attn: bool = True
    use_extra_bufts: bool = True
    segment_ids: bool = False
    engine: EngineName = "llama.cpp"


class Engine(Protocol):
    """The one interface between ggrank and a library that computes, such as llama.cpp."""

    @property
    def name(self) -> EngineName:
        """The library's name."""

    @property
    def device(self) -> str:
        """The device that computes: "CPU" or a GPU's name."""

    @property
    def attention(self) -> Attention:
        """The cost of packing sequences into one micro-batch."""

    @property
    def n_embd(self) -> int:
        """Width of a token's vector."""

    @property
    def n_outputs(self) -> int:
        """Numbers for each sequence: its vector's width, or the number of logits."""

    @property
    def special(self) -> SpecialTokens:
        """The vocabulary's special tokens."""

    def tokenize(self, text: str, *, parse_special: bool = False) -> TokenIds:
        """Token ids of a text; the text of a special token is plain text, except with ``parse_special``."""

    def control_tokens(self) -> list[str]:
        """The texts of all control tokens, such as "[SEP]"."""

    def detokenize(self, tokens: TokenIds) -> str:
        """The text of token ids, without special tokens."""

    def run(self, sequences: Sequence[TokenIds]) -> NDArray[np.float32]:
        """One micro-batch: sequences in, (n_sequences, n_outputs) float32 out."""

    def run_tokens(self, tokens: TokenIds) -> NDArray[np.float32]:
        """One sequence without pooling: (n_tokens, n_embd) float32."""

    def close(self) -> None:
        """Frees the model; closing twice is fine."""


@dataclass(frozen=True)
class RankedDocument:
    """One document of a ranking.

    Attributes:
        index: its position in the input, from 0.
        score: on the scale that was asked for (logit, sigmoid or cosine).
        logit: the cross-encoder's raw output; None in a ranking by cosine.
        document: the text as it was given.
        truncated: True when the document (or the query) was cut to fit ``n_ctx``.
        cosine: of the first stage; None if there was none, or it had no cosines.
        id, metadata: of the `ggrank.Document`, if one was given.
    """

    index: int
    score: float
    logit: float | None
    document: str
    truncated: bool
    cosine: float | None = None
    id: str | float | None = None
    metadata: Mapping[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class Ranking(Sequence[RankedDocument]):
    """Documents in order, best first; equal scores keep the input order.

    Attributes:
        documents: the ranked documents, after ``top_n`` and ``threshold``.
        scale: the scale of ``score``: "logit", "sigmoid" or "cosine"; "probability" for a model
            whose own head ends in a softmax and so already gives 0..1; "fused" and "rrf" for fused rankings.
        n_tokens: tokens computed for this ranking, special tokens included.

    Example:
        >>> from ggrank.types import RankedDocument, Ranking
        >>> best = RankedDocument(index=1, score=2.5, logit=2.5, document="b", truncated=False)
        >>> ranking = Ranking(documents=(best,), scale="logit", n_tokens=9)
        >>> ranking[0].document, len(ranking)
        ('b', 1)
    """

    documents: tuple[RankedDocument, ...]
    scale: Scale
    n_tokens: int

    def __len__(self) -> int:
        return len(self.documents)

    def __iter__(self) -> Iterator[RankedDocument]:
        return iter(self.documents)

    @overload
    def __getitem__(self, position: int) -> RankedDocument: ...

    @overload
    def __getitem__(self, position: slice) -> tuple[RankedDocument, ...]: ...

    def __getitem__(self, position: int | slice) -> RankedDocument | tuple[RankedDocument, ...]:
        return self.documents[position]
