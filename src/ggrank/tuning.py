"""Which settings suit this machine: rules for a machine that was never measured, and what was measured.

Knows processors, what is installed and one record; not models or texts. `ggrank.measuring` measures.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ggrank.engine import why_not_openvino
from ggrank.errors import EngineError, ModelModeError
from ggrank.gguf_file import GgufFile
from ggrank.hardware import find_processor
from ggrank.preflight import cpu_key, library_key
from ggrank.records import recall, remember
from ggrank.types import EngineName, PoolingType

RECORD = "tuning"

_VNNI = {"avx_vnni", "avx512_vnni", "amx"}


@dataclass(frozen=True)
class Tuned:
    """The settings that were fastest here; None is left to the rules below."""

    engine: EngineName | None = None
    flash_attn: bool | None = None
    use_extra_bufts: bool | None = None
    n_ubatch: int | None = None
    n_threads: int | None = None


def recall_tuned(file: GgufFile, pooling: PoolingType) -> Tuned:
    """What was measured with this file on this machine and with these builds; empty where nothing was."""
    facts = recall(RECORD).get(_key(file, pooling))
    try:
        return Tuned(**facts) if isinstance(facts, dict) else Tuned()
    except TypeError:  # Written by another release.
        return Tuned()


def remember_tuned(file: GgufFile, pooling: PoolingType, tuned: Tuned) -> None:
    """Keeps what was measured; an empty `Tuned` says that the rules are best."""
    remember(RECORD, {_key(file, pooling): asdict(tuned)})


def _key(file: GgufFile, pooling: PoolingType) -> str:
    stat = file.path.stat()
    builds = (library_key(), _openvino_version(), cpu_key(), default_threads())
    return json.dumps([str(file.path.resolve()), stat.st_size, stat.st_mtime_ns, pooling.name, *builds])


def choose_engine(asked: str, *, tuned: Tuned, file: GgufFile, n_gpu_layers: int) -> EngineName:
    """The engine for a file: what was asked for, else what was tuned, else the rule that `LlamaParams` gives.

    Raises:
        EngineError: OpenVINO is asked for and not installed.
        ModelModeError: it is asked for, and cannot compute this network.
    """
    if asked == "llama.cpp":
        return "llama.cpp"
    if asked == "openvino":
        if not has_openvino():
            raise EngineError("engine='openvino' needs a package: pip install 'ggrank[openvino]'")
        reason = why_not_openvino(file)
        if reason is not None:
            raise ModelModeError(f"engine='openvino' cannot be used: {reason}. Use engine='llama.cpp'.")
        return "openvino"
    if not has_openvino():
        return "llama.cpp"
    if tuned.engine is not None:
        return tuned.engine
    pays = why_not_openvino(file) is None and openvino_is_faster_here() and not _has_gpu(n_gpu_layers)
    return "openvino" if pays else "llama.cpp"


def openvino_is_faster_here() -> bool:
    """Whether this processor has what makes OpenVINO faster than llama.cpp: VNNI or AMX."""
    return not _VNNI.isdisjoint(find_processor().features)


def has_openvino() -> bool:
    """Whether the package is installed; it is not imported."""
    return _openvino_version() is not None


def _openvino_version() -> str | None:
    try:
        return version("openvino")
    except PackageNotFoundError:  # Also where there is a folder of that name, which could be imported.
        return None


def _has_gpu(n_gpu_layers: int) -> bool:
    if n_gpu_layers == 0:
        return False
    from ggrank.engine.library import gpu_names

    return bool(gpu_names())


def extra_bufts_pay() -> bool:
    """Whether weights repacked for this processor are faster: with AMX they are.

    On an x86 without it plain weights were faster by 12 to 50 % in every cell that was measured
    (``docs/speed.md``); of other processors nothing is known, and llama.cpp's own default stays.
    """
    features = find_processor().features
    is_x86 = "avx" in features
    return "amx" in features or not is_x86


def default_threads() -> int:
    """Physical cores that this process may use, at least one; on Apple Silicon the fast ones.

    Matrix products gain nothing from a second thread on a core, and lose from waiting for slow cores.
    """
    if sys.platform == "darwin":
        return _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or os.cpu_count() or 1
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return len({_siblings(cpu) for cpu in allowed}) or 1


def _siblings(cpu: int) -> str:
    """Names the physical core of a logical one; Linux only, elsewhere each counts as its own."""
    path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    try:
        return path.read_text("ascii")
    except OSError:
        return str(cpu)


def _sysctl(name: str) -> int:
    libc = ctypes.CDLL(None)
    value, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    failed = libc.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return 0 if failed else value.value
