"""The models that scripts/make_benchmark_models.py writes are the same model in every form.

Each is written small here, and computed by ggrank from its GGUF and by every peer that is installed, through
the benchmark's own subjects.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("safetensors")

import make_benchmark_models
from ggrank.benchmark.measuring import cell_maker
from ggrank.benchmark.models import models_in
from ggrank.benchmark.ratios import agreement
from ggrank.benchmark.subjects import load
from ggrank.benchmark.subjects.available import Wish, reference_for, subjects_for

pytestmark = pytest.mark.parity

LEAST = {"fp32": 0.99999, "bf16": 0.999, "int8": 0.98, "q8_0": 0.995, "q4_k_m": 0.95}
"""Correlation of logits, or cosine of vectors; llama.cpp's f32 differs from torch's by its table for GELU."""


@pytest.mark.parametrize("recipe", make_benchmark_models.RECIPES, ids=lambda recipe: recipe.name)
def test_every_form_of_a_model_has_the_same_scores(
    recipe: make_benchmark_models.Recipe, tmp_path: Path
) -> None:
    small = replace(recipe.shape, num_hidden_layers=2, vocab_size=min(recipe.shape.vocab_size, 32_000))
    make_benchmark_models.make(replace(recipe, shape=small), tmp_path / recipe.name)
    model = models_in(tmp_path)[0]
    subjects, missing = subjects_for(model, Wish(1))
    names = {subject.name for subject in subjects}
    assert {"ggrank llama.cpp q8_0", "ggrank llama.cpp q4_k_m", "sentence-transformers fp32"} <= names
    if importlib.util.find_spec("onnx"):
        assert not [one for one in missing if "server" not in one.name and "openvino" not in one.name]
    with cell_maker(model) as maker:
        request = maker.uniform("", 12, 48).requests[0]
    scores = {}
    reference = reference_for(model, Wish(1))
    assert reference is not None
    for subject in [reference, *subjects]:
        runner = load(subject)
        scores[subject.name] = runner.run(request.query, request.documents)
        runner.close()
    assert np.ptp(scores[reference.name]) > 0.1, "scores that are all alike would agree with anything"
    for subject in subjects:
        found = agreement([scores[subject.name]], [scores[reference.name]])
        assert found.value >= LEAST[subject.variant], (subject.name, found)
