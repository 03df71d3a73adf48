"""Drop-in faces: code that was written for another reranking library moves by changing an import.

    from ggrank.compat import CrossEncoder  # sentence_transformers.CrossEncoder: predict, rank
    from ggrank.compat import FlagReranker  # FlagEmbedding.FlagReranker: compute_score
    from ggrank.compat import Reranker      # rerankers.Reranker: rank, score

Each takes and gives what its original does: arguments, types, shapes, scales of scores. An option that
changes no score has no effect; one that would change scores and cannot be followed is an error.
"""

from __future__ import annotations

from ggrank.compat.cross_encoder import CrossEncoder as CrossEncoder
from ggrank.compat.flag_reranker import FlagReranker as FlagReranker
from ggrank.compat.reranker import Document as Document
from ggrank.compat.reranker import RankedResults as RankedResults
from ggrank.compat.reranker import Reranker as Reranker
from ggrank.compat.reranker import Result as Result

__all__ = ["CrossEncoder", "Document", "FlagReranker", "RankedResults", "Reranker", "Result"]
