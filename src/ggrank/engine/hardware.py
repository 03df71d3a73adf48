"""The processor of this machine: its name, cores and the instructions that matter to llama.cpp."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_FLAGS = (
    *(
        "avx",
        "f16c",
        "fma",
        "avx2",
        "avx_vnni",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "amx_tile",
        "amx_int8",
    ),
    *("asimd", "asimddp", "i8mm", "sve", "sme"),
)
"""As Linux lists them."""
_NAMES = {"avx512f": "avx512", "amx_tile": "amx", "asimd": "neon", "asimddp": "dotprod"}
"""As people and llama.cpp's build options write them, if they write them otherwise."""
_DARWIN_FEATURES = {
    "arm.FEAT_DotProd": "dotprod",
    "arm.FEAT_I8MM": "i8mm",
    "arm.FEAT_BF16": "bf16",
    "arm.FEAT_SME": "sme",
    "avx2_0": "avx2",
    "avx512f": "avx512",
}


@dataclass(frozen=True)
class Processor:
    """This machine's processor."""

    name: str
    """The maker's; the architecture if the system does not report it."""
    n_cores: int
    """Logical cores that this process may use."""
    features: tuple[str, ...]
    """Those of its instruction sets that make llama.cpp faster."""


def find_processor() -> Processor:
    """This machine's processor; unknown parts are empty, nothing is raised."""
    name, features = _from_sysctl() if sys.platform == "darwin" else _from_cpuinfo()
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Processor(name or platform.processor() or platform.machine(), n_cores, features)


def _from_cpuinfo() -> tuple[str, tuple[str, ...]]:
    """Linux: the first processor of /proc/cpuinfo; elsewhere there is no such file."""
    try:
        first = Path("/proc/cpuinfo").read_text("utf-8", "replace").split("\n\n")[0]
    except OSError:
        return "", ()
    lines = (line.partition(":") for line in first.splitlines())
    facts = {key.strip(): value.strip() for key, _, value in lines}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return facts.get("model name", ""), tuple(_NAMES.get(flag, flag) for flag in _FLAGS if flag in flags)


def _from_sysctl() -> tuple[str, tuple[str, ...]]:
    has = [name for key, name in _DARWIN_FEATURES.items() if _sysctl(f"hw.optional.{key}") == "1"]
    return _sysctl("machdep.cpu.brand_string"), tuple(has)


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
