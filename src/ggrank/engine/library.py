"""The llama.cpp library of this process: started once, its log, its build and the GPUs that it sees."""

from __future__ import annotations

import ctypes
import logging
import threading
from collections import deque
from pathlib import Path
from typing import Any

from ggrank.engine.lifetime import note_use
from ggrank.engine.openmp import short_spins

with short_spins():
    import llama_cpp.llama_cpp as api
    from llama_cpp import __version__ as llama_cpp_version
    from llama_cpp._ggml import libggml

__all__ = [
    "api",
    "build_version",
    "declare",
    "gpu_names",
    "library_files",
    "log",
    "recent_errors",
    "refusal",
    "start_backend",
    "system_info",
]

log = logging.getLogger("ggrank.llama.cpp")

_LOG_LEVELS = {2: logging.DEBUG, 3: logging.INFO, 4: logging.INFO}
"""An error of llama.cpp is in the exception that follows; it need not be printed as well."""
_ERROR_LEVEL = 4
_GPU_TYPES = (1, 2)
"""``GGML_BACKEND_DEVICE_TYPE_GPU`` and ``_IGPU``, ggml-backend.h."""

recent_errors: deque[str] = deque(maxlen=6)
_start_lock = threading.Lock()


@api.llama_log_callback  # type: ignore[untyped-decorator]  # a ctypes function type
def _on_log(level: int, text: bytes, _user_data: object) -> None:
    line = text.decode("utf-8", "replace").rstrip()
    if level == _ERROR_LEVEL and line:
        recent_errors.append(line)
    if line:
        log.log(_LOG_LEVELS.get(level, logging.DEBUG), "%s", line)


def library_files() -> list[Path]:
    """The shared libraries of the llama.cpp build in use, sorted by name."""
    return sorted(path for path in (Path(api.__file__).parent / "lib").iterdir() if path.is_file())


def build_version() -> str:
    """The version of llama-cpp-python."""
    return str(llama_cpp_version)


def system_info() -> str:
    """What llama.cpp was built for and found, in its own words: ``CPU : AVX2 = 1 | ...``."""
    return str(api.llama_print_system_info().decode("utf-8", "replace").strip())


def gpu_names() -> list[str]:
    """The GPUs that this build can use, such as ``["Metal (Apple M2)"]``; empty for a CPU build."""
    start_backend()  # first of all, for it takes llama.cpp's log, in which a GPU's library says what it found
    if not api.llama_supports_gpu_offload():
        return []
    devices = [_device_get(i) for i in range(_device_count())]
    return [_device_label(device) for device in devices if _device_type(device) in _GPU_TYPES]


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


def _device_label(device: int) -> str:
    name, description = _device_name(device), _device_description(device)
    return f"{name.decode('utf-8', 'replace')} ({description.decode('utf-8', 'replace')})"


_started = False


def start_backend() -> None:
    """Once a process; llama.cpp's log goes to Python's logging instead of stderr."""
    global _started
    with _start_lock:
        if not _started:
            api.llama_log_set(_on_log, ctypes.c_void_p(0))
            api.llama_backend_init()
            note_use()
            _started = True


def refusal(path: Path, what: str) -> str:
    """The message for a file that llama.cpp would not take, with its own last words."""
    reason = "; ".join(recent_errors) or "it gave no reason"
    return (
        f"llama.cpp could not {what}: {path}. It said: {reason}. The file may be damaged (download it "
        "again), made for a newer llama.cpp (pip install -U llama-cpp-python), or larger than the free "
        "memory."
    )
