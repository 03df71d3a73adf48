"""The models that benchmarks/make_models.py writes have the same scores in every form.

Each is written small here, and computed by ggrank from its GGUF and by every peer that is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")

import make_models
import run
from peers import Resident, obstacle

pytestmark = pytest.mark.parity

LEAST = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.98, "q8_0": 0.995, "q4_k_m": 0.95}
"""Correlation of logits, or cosine of vectors; llama.cpp's f32 differs from torch's by its table for GELU."""


@pytest.mark.parametrize("recipe", make_models.RECIPES, ids=lambda recipe: recipe.name)
def test_every_form_of_a_model_has_the_same_scores(recipe: make_models.Recipe, tmp_path: Path) -> None:
    small = replace(recipe.shape, num_hidden_layers=2, vocab_size=min(recipe.shape.vocab_size, 32_000))
    make_models.make(replace(recipe, shape=small), tmp_path / recipe.name)
    (model,) = run.models_in(tmp_path)
    options = argparse.Namespace(threads=1, llama_server="", quick=True)
    here = [peer for peer in run.peers_of(model, options) if not obstacle(peer)]
    assert {"ggrank llama.cpp q8_0", "ggrank llama.cpp q4_k_m", "sentence-transformers fp32"} <= {
        p.name for p in here
    }
    if importlib.util.find_spec("onnx"):
        assert {"onnxruntime fp32", "onnxruntime int8"} <= {peer.name for peer in here}
    cell = next(cell for cell in run.cells_of(model, options) if cell.name == "6 mixed")
    expected = run.reference_scores(model, options, [cell])
    assert expected is not None
    assert np.ptp(expected[0]) > 0.1, "scores that are all alike would agree with anything"
    for peer in here:
        with Resident(peer) as resident:
            resident.wait()
            found = run.agreement(resident.run(cell.requests).scores, expected)
        assert found >= LEAST[peer.variant], (peer.name, found)
