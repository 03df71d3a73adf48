"""What a result depends on, beside its own tokens: the model's bytes, what computes, and with which settings.

Knows which facts of a loaded model move its numbers; not where results are kept.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING

from ggrank.hub.checksums import Expected, check
from ggrank.loading.preflight import cpu_key, library_key

if TYPE_CHECKING:
    from ggrank.loading.model import LoadedModel

_NEUTRAL = ("n_ctx", "n_threads", "use_mmap")
"""Settings that leave the numbers of a sequence as they are; what ``n_ctx`` cuts is in its tokens."""


def identity(model: LoadedModel) -> bytes:
    """The same bytes for models whose results may stand for each other's.

    The file is known by its sha256, which is taken once and remembered with its size and times of change.
    The CPU counts too, since its kernels differ in the last bits.
    """
    settings = {name: value for name, value in asdict(model.settings).items() if name not in _NEUTRAL}
    engine = model.engine
    facts = {
        "model": check(model.file.path, Expected()),
        "engine": (engine.name, library_key() if engine.name == "llama.cpp" else _openvino_key()),
        "device": (engine.device, cpu_key()),
        "settings": settings,
    }
    return json.dumps(facts, sort_keys=True).encode()


def _openvino_key() -> str:
    from ggrank.engine.openvino.graph import VERSION

    return f"{version('openvino')}, graph {VERSION}"
