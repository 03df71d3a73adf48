"""llama.cpp's own quantizer: a GGUF in float32 becomes a smaller one."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from ggrank.engine.library import api, recent_errors, start_backend
from ggrank.engine.lifetime import native_call
from ggrank.errors import EngineError

FILE_TYPES = {"f16": 1, "q8_0": 7, "q4_k_m": 15}
"""``enum llama_ftype``, llama.h."""

_F16 = 1
"""``GGML_TYPE_F16``, ggml.h."""


def quantize(source: Path, target: Path, *, quantization: str, f16_tensors: str = "") -> None:
    """Writes ``source`` to ``target`` with other matrices; vectors, positions and token types stay float32.

    The same bytes come out whatever the number of threads.

    Args:
        quantization: one of `FILE_TYPES`.
        f16_tensors: a regular expression; matrices with such names become float16 whatever the format.

    Raises:
        EngineError: llama.cpp refused.
    """
    start_backend()
    recent_errors.clear()
    # llama.cpp reads overrides up to the first without a pattern.
    overrides = (api.llama_model_tensor_override * 2)()
    overrides[0].pattern, overrides[0].type = f16_tensors.encode() or None, _F16
    parameters = api.llama_model_quantize_default_params()
    parameters.ftype = FILE_TYPES[quantization]
    parameters.tt_overrides = overrides
    with native_call():
        status = api.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(parameters))
    if status != 0:
        reason = "; ".join(recent_errors) or "it gave no reason"
        raise EngineError(f"llama.cpp could not quantize {source.name} to {quantization}. It said: {reason}.")
