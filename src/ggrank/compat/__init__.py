"""Faces of other reranking libraries: code that was written for them moves by changing an import.

    from ggrank.compat import CrossEncoder  # sentence_transformers.CrossEncoder: predict, rank
    from ggrank.compat import FlagReranker  # FlagEmbedding.FlagReranker: compute_score
    from ggrank.compat import Reranker      # rerankers.Reranker: rank, score

Arguments, results and scales of scores are those of the originals. An option that changes no score has no
effect; one that could change scores is an error.
"""

from __future__ import annotations

from ggrank.compat.cross_encoder import CrossEncoder as CrossEncoder
from ggrank.compat.flag_reranker import FlagReranker as FlagReranker
from ggrank.compat.reranker import Document as Document
from ggrank.compat.reranker import RankedResults as RankedResults
from ggrank.compat.reranker import Reranker as Reranker
from ggrank.compat.reranker import Result as Result

__all__ = ["CrossEncoder", "Document", "FlagReranker", "RankedResults", "Reranker", "Result"]
