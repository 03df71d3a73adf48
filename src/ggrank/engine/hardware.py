"""The processor of this machine: its name, cores and the instructions that matter to llama.cpp."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# Names as Linux and macOS list them -> names as people and llama.cpp's build options write them.
_FEATURES = {
    "avx": "avx",
    "f16c": "f16c",
    "fma": "fma",
    "avx2": "avx2",
    "avx_vnni": "avx_vnni",
    "avx512f": "avx512",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_tile": "amx",
    "amx_int8": "amx_int8",
    "asimd": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "sve": "sve",
    "sme": "sme",
}
_DARWIN_FEATURES = {"FEAT_DotProd": "dotprod", "FEAT_I8MM": "i8mm", "FEAT_BF16": "bf16", "FEAT_SME": "sme"}


@dataclass(frozen=True)
class Processor:
    """This machine's processor.

    Attributes:
        name: the maker's name; the architecture if the system does not report a name.
        n_cores: logical cores that this process may use.
        features: those of its instruction sets that make llama.cpp faster.
    """

    name: str
    n_cores: int
    features: tuple[str, ...]


def find_processor() -> Processor:
    """This machine's processor; unknown parts are empty, nothing is raised."""
    if sys.platform == "darwin":
        name, features = _sysctl("machdep.cpu.brand_string"), _darwin_features()
    else:
        name, features = _from_cpuinfo()
    return Processor(name or platform.processor() or platform.machine(), _n_cores(), features)


def _n_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _from_cpuinfo() -> tuple[str, tuple[str, ...]]:
    """Linux: the first processor of /proc/cpuinfo; elsewhere there is no such file."""
    try:
        first = Path("/proc/cpuinfo").read_text("utf-8", "replace").split("\n\n")[0]
    except OSError:
        return "", ()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    return facts.get("model name", ""), tuple(name for flag, name in _FEATURES.items() if flag in flags)


def _darwin_features() -> tuple[str, ...]:
    has = [name for key, name in _DARWIN_FEATURES.items() if _sysctl(f"hw.optional.arm.{key}") == "1"]
    has += [
        flag for flag in ("avx2", "avx512f") if _sysctl(f"hw.optional.{flag}_0", f"hw.optional.{flag}") == "1"
    ]
    return tuple(_FEATURES.get(name, name) for name in has)


def _sysctl(*names: str) -> str:
    """The first of these values that macOS knows."""
    for name in names:
        try:
            done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.SubprocessError):
            return ""
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    return ""
