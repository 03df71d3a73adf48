"""`ggrank convert` beside the original: folders that transformers and sentence-transformers save themselves.

Weights are the seeded ones of ``tests/tiny``, which spread logits over several units. The original's answers
are computed here by torch, from the saved folder.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray

from ggrank import Llama, PoolingType, convert
from tiny import goldens, models, torch_reference, vocab, weights
from tiny.models import TinyModel
from tiny.torch_reference import Reference
from tiny.weights import Shape

pytestmark = pytest.mark.parity
logger = logging.getLogger(__name__)

NEAR_TORCH = 1e-3
WITH_OPENVINO = ("bert", "xlmr", "multilingual")


class Saved(NamedTuple):
    """An original: its folder, and what torch answers to the golden texts or pairs."""

    folder: Path
    ids: list[list[int]]
    outputs: NDArray[np.float32]


def _bert_network(model: TinyModel, folder: Path) -> Any:
    config = transformers.BertConfig(**torch_reference._sizes(model), layer_norm_eps=1e-12)
    if model.is_reranker:
        return torch_reference._loaded(transformers.BertForSequenceClassification(config), model, prefix="bert.")
    return torch_reference._loaded(transformers.BertModel(config, add_pooling_layer=False), model)


def _xlmr_network(model: TinyModel, folder: Path) -> Any:
    sizes = torch_reference._sizes(model)
    sizes["max_position_embeddings"] += 2
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = transformers.XLMRobertaConfig(**sizes, **special, layer_norm_eps=1e-5)
    if model.is_reranker:
        network = transformers.XLMRobertaForSequenceClassification(config)
        return torch_reference._loaded(network, model, prefix="roberta.")
    return torch_reference._loaded(transformers.XLMRobertaModel(config, add_pooling_layer=False), model)
