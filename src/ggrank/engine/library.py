"""The llama.cpp library of this process: its start, log, build, GPUs and quantizer."""

from __future__ import annotations

import ctypes
import logging
import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ggrank.engine.lifetime import native_call
from ggrank.errors import EngineError, ModelFileError

SPIN_COUNT = "10000"
"""How often one of OpenMP's threads looks for work before it sleeps; libgomp's own count is 300,000.

Between two matrix products each thread waits for the slowest. Measured with the bundled model on two cores,
tokens a second: idle 8,800 (8,700 with libgomp's own count), beside two busy processes 4,300 (2,600).
Sleeping at once (``OMP_WAIT_POLICY=passive``) is as good when busy, but takes twice as long for one short
text when idle."""


@contextmanager
def short_spins() -> Iterator[None]:
    """An OpenMP runtime that is loaded inside spins for a short time, unless the user has chosen otherwise.

    The variable is unset afterwards, so that other programs' runtimes do not inherit it.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = SPIN_COUNT
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)


with short_spins():
    import llama_cpp
    import llama_cpp.llama_cpp
    from llama_cpp._ggml import libggml

api = llama_cpp.llama_cpp
"""llama.cpp's C API."""

log = logging.getLogger("ggrank.llama.cpp")

_LOG_LEVELS = {2: logging.DEBUG, 3: logging.INFO, 4: logging.INFO}
"""An error of llama.cpp is in the exception that follows; it need not be printed as well."""
_ERROR_LEVEL = 4
_GPU_TYPES = (1, 2)
"""``GGML_BACKEND_DEVICE_TYPE_GPU`` and ``_IGPU``, ggml-backend.h."""

FILE_TYPES = {"f16": 1, "q8_0": 7, "q4_k_m": 15}
"""``enum llama_ftype``, llama.h."""
_F16 = 1
"""``GGML_TYPE_F16``, ggml.h."""

recent_errors: deque[str] = deque(maxlen=6)
_start_lock = threading.Lock()


@api.llama_log_callback  # type: ignore[untyped-decorator]  # a ctypes function type
def _on_log(level: int, text: bytes, _user_data: object) -> None:
    line = text.decode("utf-8", "replace").rstrip()
    if level == _ERROR_LEVEL and line:
        recent_errors.append(line)
    if line:
        log.log(_LOG_LEVELS.get(level, logging.DEBUG), "%s", line)


def build_version() -> str:
    """The version of llama-cpp-python."""
    return str(llama_cpp.__version__)


def system_info() -> str:
    """llama.cpp's own words about its build and this machine: ``CPU : AVX2 = 1 | ...``."""
    return str(api.llama_print_system_info().decode("utf-8", "replace").strip())


def gpu_names() -> list[str]:
    """The GPUs that this build can use, such as ``["Metal (Apple M2)"]``; empty for a CPU build."""
    start_backend()  # first: it redirects the log, to which a GPU's library writes what it found
    if not api.llama_supports_gpu_offload():
        return []
    devices = [_device_get(i) for i in range(_device_count())]
    gpus = [device for device in devices if _device_type(device) in _GPU_TYPES]
    words = [(_device_name(device), _device_description(device)) for device in gpus]
    return [(b"%b (%b)" % pair).decode("utf-8", "replace") for pair in words]


def declare(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml's that llama-cpp-python does not declare."""
    function = getattr(libggml, name)
    function.restype, function.argtypes = result, list(arguments)
    return function


_device_count = declare("ggml_backend_dev_count", ctypes.c_size_t)
_device_get = declare("ggml_backend_dev_get", ctypes.c_void_p, ctypes.c_size_t)
_device_type = declare("ggml_backend_dev_type", ctypes.c_int, ctypes.c_void_p)
_device_name = declare("ggml_backend_dev_name", ctypes.c_char_p, ctypes.c_void_p)
_device_description = declare("ggml_backend_dev_description", ctypes.c_char_p, ctypes.c_void_p)


_started = False


def start_backend() -> None:
    """Starts llama.cpp, once a process; its log goes to Python's logging instead of stderr."""
    global _started
    with _start_lock:
        if not _started:
            api.llama_log_set(_on_log, ctypes.c_void_p(0))
            with native_call():
                api.llama_backend_init()
            _started = True


def load_model(path: Path, params: Any) -> Any:
    """A pointer to a ``llama_model``, to be freed with ``llama_model_free``."""
    recent_errors.clear()
    with native_call():
        model = api.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise refusal(path, "load the model")
    return model


def refusal(path: Path, what: str) -> ModelFileError:
    """The error for a file that llama.cpp refused, with its own last words."""
    return ModelFileError(
        f"llama.cpp could not {what}: {path}. It said: {last_words()}. The file may be damaged (download it "
        "again), made for a newer llama.cpp (pip install -U llama-cpp-python), or larger than the free "
        "memory."
    )


def last_words() -> str:
    """llama.cpp's errors since ``recent_errors`` was cleared."""
    return "; ".join(recent_errors) or "it gave no reason"


def quantize(source: Path, target: Path, *, quantization: str, f16_tensors: str = "") -> None:
    """Writes a GGUF in float32 with smaller matrices; vectors, positions and token types stay float32.

    The same bytes come out whatever the number of threads.

    Args:
        quantization: one of `FILE_TYPES`.
        f16_tensors: a regular expression; matrices with such names become float16 in every format.
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
        raise EngineError(
            f"llama.cpp could not quantize {source.name} to {quantization}. It said: {last_words()}."
        )
