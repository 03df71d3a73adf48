"""OpenVINO as a library and no more: imported without the part that reports its uses to its makers.

``import openvino`` imports ``openvino_telemetry``, which writes an id into the home directory and sends an
event over the network. OpenVINO does without where that package is not installed; here it is hidden for the
import. Where a program has imported OpenVINO before ggrank did, that has happened already.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_TELEMETRY = "openvino_telemetry"


@contextmanager
def _without_telemetry() -> Iterator[None]:
    if _TELEMETRY in sys.modules:
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # Python's own way to make an import fail
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]


with _without_telemetry():
    import openvino as ov
    from openvino import opset13 as op

__all__ = ["op", "ov"]
