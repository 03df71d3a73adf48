"""The committed goldens are what torch answers today: ids equal, outputs within float32's noise."""

from __future__ import annotations

import numpy as np
import pytest

import tiny_models
from tiny import goldens, models

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_the_goldens_are_what_torch_computes(kind: str) -> None:
    from tiny.torch_reference import golden

    fresh, committed = golden(models.build(kind)), goldens.load(kind)
    assert fresh.ids == committed.ids
    assert np.abs(fresh.outputs - committed.outputs).max() < 5e-5


def test_the_logits_of_pairs_with_segments_are_what_torch_computes() -> None:
    from tiny.torch_reference import SEGMENT_KINDS, segment_logits, segment_pairs

    pairs = segment_pairs()
    assert pairs == goldens.segment_pairs()
    for kind in SEGMENT_KINDS:
        for name, logits in segment_logits(kind, pairs).items():
            assert np.abs(logits - goldens.segment_logits(*name.split("/"))).max() < 5e-5
