"""Settings for this machine: rules, and what `ggrank tune` has measured."""

from __future__ import annotations

import ctypes
import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, get_args

from ggrank.engine import why_not_openvino
from ggrank.engine.hardware import find_processor
from ggrank.errors import EngineError, ModelModeError
from ggrank.gguf import GgufFile, open_gguf
from ggrank.loading.preflight import cpu_key, library_key
from ggrank.rows.records import cache_dir, forget, recall, remember
from ggrank.types import EngineName, PoolingType

RECORD = "tuning"

_MOST = 131_072
"""Of the tokens of a micro-batch, as `ggrank.loading.params` has it."""

_VNNI = {"avx_vnni", "avx512_vnni", "amx"}


@dataclass(frozen=True)
class Tuned:
    """The settings that were fastest here; None means the rules below."""

    engine: EngineName | None = None
    flash_attn: bool | None = None
    use_extra_bufts: bool | None = None
    n_ubatch: int | None = None
    n_threads: int | None = None
    n_gpu_layers: int | None = None


@dataclass(frozen=True)
class TunedFile:
    """The result of tuning one file."""

    model: Path
    pooling: str
    tuned: Tuned
    gain: float
    """The measured speed over that of the rules; 1.0 if the rules are fastest."""
    when: str
    in_use: bool
    """False if the file, a build or the machine has changed since, so that the rules are used."""


def recall_tuned(file: GgufFile, pooling: PoolingType) -> Tuned:
    """The result for this file on this machine and with these builds; empty if there is none."""
    key = _key(file.path, pooling.name)
    found = _read(key, recall(RECORD).get(key))
    return Tuned() if found is None else found.tuned


def remember_tuned(file: GgufFile, pooling: PoolingType, tuned: Tuned, *, gain: float = 1.0) -> bool:
    """Remembers a result; False if it cannot be written. An empty `Tuned` means that the rules are best."""
    when = datetime.now().isoformat(" ", "minutes")
    facts = {"tuned": asdict(tuned), "gain": gain, "when": when}
    return remember(RECORD, {_key(file.path, pooling.name): facts})


def remembered(model: Path | None = None) -> list[TunedFile]:
    """The results for one file, or for all, the newest last."""
    found = (_read(key, facts) for key, facts in recall(RECORD).items())
    return sorted((one for one in found if one and _is_of(model, one)), key=lambda one: one.when)


def forget_tuned(model: Path | None = None) -> int:
    """Removes the results for one file, or all, and returns their number; OSError if that is not possible."""
    gone = [key for key, facts in recall(RECORD).items() if _is_of(model, _read(key, facts))]
    if gone and not forget(RECORD, gone):
        raise OSError(f"{cache_dir()} cannot be written")
    return len(gone)


def _is_of(model: Path | None, found: TunedFile | None) -> bool:
    return model is None or (found is not None and model.resolve() == found.model)


def _read(key: str, facts: Any) -> TunedFile | None:
    """A result from the record; None if there is none, or another release wrote it."""
    try:
        path, _, _, pooling, *_ = json.loads(key)
        tuned = _checked(Tuned(**facts["tuned"]))
        in_use = key == _key(Path(path), pooling)
        return TunedFile(Path(path), pooling, tuned, float(facts["gain"]), str(facts["when"]), in_use)
    except (KeyError, TypeError, ValueError):
        return None


def _checked(tuned: Tuned) -> Tuned:
    """The same settings; ValueError if they are impossible: users may edit the file."""
    switches, numbers = (tuned.flash_attn, tuned.use_extra_bufts), (tuned.n_ubatch, tuned.n_threads)
    if (
        tuned.engine not in (None, *get_args(EngineName))
        or any(switch not in (None, True, False) for switch in switches)
        or any(n is not None and (type(n) is not int or not 1 <= n <= _MOST) for n in numbers)
        or (tuned.n_threads or 1) > (os.cpu_count() or 1)
        or tuned.n_gpu_layers not in (None, 0)
    ):
        raise ValueError(f"no settings: {tuned}")
    return tuned


def _key(path: Path, pooling: str) -> str:
    try:
        stat = path.stat()
    except OSError:  # Tuned once, and gone by now.
        return ""
    builds = (library_key(), _openvino_version(), cpu_key(), default_threads())
    return json.dumps([str(path.resolve()), stat.st_size, stat.st_mtime_ns, pooling, *builds])


def choose_engine(asked: str, *, tuned: Tuned, file: GgufFile, n_gpu_layers: int) -> EngineName:
    """The engine for a file: the one asked for, else the tuned one, else by the rule in `LlamaParams`."""
    if asked == "openvino":
        if not has_openvino():
            raise EngineError("the engine openvino needs a package: pip install 'ggrank[openvino]'")
        if reason := why_not_openvino(file):
            raise ModelModeError(f"the engine openvino cannot be used: {reason}. Use llama.cpp.")
        return "openvino"
    if asked == "llama.cpp" or not has_openvino() or why_not_openvino(file):
        return "llama.cpp"
    pays = tuned.engine == "openvino" if tuned.engine else openvino_is_faster_here()
    # A file that was tuned without the GPU may still use it.
    return "openvino" if pays and not _has_gpu(n_gpu_layers) else "llama.cpp"


def openvino_is_faster_here() -> bool:
    """Whether this processor has AVX2, with which OpenVINO was faster than llama.cpp (``docs/speed.md``)."""
    features = find_processor().features
    if features:
        return "avx2" in features
    from ggrank.engine.library import system_info

    return "AVX2 = 1" in system_info()  # Windows does not list a processor's features; llama.cpp does


def openvino_hint(model: Path, *, engine: str, device: str = "CPU") -> str:
    """What to install for more speed with a file that was computed so; "" if nothing would help."""
    if engine != "llama.cpp" or device != "CPU" or has_openvino() or not openvino_is_faster_here():
        return ""
    if _has_gpu(-1) or why_not_openvino(open_gguf(model)):
        return ""
    return f"about {ruled_gain():g} times as fast here with: pip install 'ggrank[openvino]'"


def ruled_gain() -> float:
    """How many times as fast OpenVINO was as llama.cpp with q8_0, on such a processor (``docs/speed.md``)."""
    return 1.6 if _VNNI.isdisjoint(find_processor().features) else 2.5


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
    return "amx" in features or "avx" not in features


def fastest_quantization() -> str:
    """The fastest quantization on this processor, and why; "" if none was measured (ARM, GPUs).

    ``docs/speed.md`` and ``docs/benchmark.md`` have the measurements.
    """
    features = find_processor().features
    if "avx" not in features or _has_gpu(-1):
        return ""
    if has_openvino() and openvino_is_faster_here():
        return "q8_0 for BERT and XLM-R: as fast as q4_k_m in OpenVINO, and nearer to the original's scores"
    if "amx" in features:
        return "q8_0: faster than q4_k_m in llama.cpp with AMX"
    return "q4_k_m: 1.5 to 2 times as fast as q8_0 in llama.cpp without AMX"


def default_threads() -> int:
    """Physical cores that this process may use, at least one; on Apple Silicon the fast ones.

    Matrix products gain nothing from a second thread on a core, and lose from waiting for slow cores.
    """
    if sys.platform == "darwin":
        return _sysctl("hw.perflevel0.physicalcpu") or _sysctl("hw.physicalcpu") or os.cpu_count() or 1
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = (Path(f"/sys/devices/system/cpu/cpu{i}/topology/thread_siblings_list") for i in allowed)
    # Linux lists them; elsewhere each logical core counts as a physical one.
    return len({path.read_text("ascii") if path.exists() else str(path) for path in siblings}) or 1


def _sysctl(name: str) -> int:
    libc = ctypes.CDLL(None)
    value, size = ctypes.c_int32(0), ctypes.c_size_t(4)
    failed = libc.sysctlbyname(name.encode(), ctypes.byref(value), ctypes.byref(size), None, 0)
    return 0 if failed else value.value
