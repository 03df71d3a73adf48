"""Finds this machine's compiler and CPU, and whether a stock build of llama.cpp would crash with them.

Standard library only.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Compiler:
    """How a compiler is called, and all that it prints for ``--version``."""

    command: tuple[str, ...]
    version: str


@dataclass(frozen=True)
class Compilers:
    """The compilers for C and C++ that CMake would take; None where there is none."""

    c: Compiler | None
    cxx: Compiler | None


def cpu_features(cpuinfo: str) -> frozenset[str]:
    """The instruction sets that /proc/cpuinfo names: its ``flags`` (x86) or ``Features`` (Arm)."""
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", cpuinfo, re.MULTILINE)
    return frozenset(found[1].split()) if found else frozenset()


def has_amx(cpuinfo: str) -> bool:
    """Whether the CPU has tile registers, and so llama.cpp uses its AMX code."""
    return "amx_tile" in cpu_features(cpuinfo)


def find_compilers() -> Compilers:
    """``$CC`` and ``$CXX``, or the usual names."""
    return Compilers(
        c=_first_that_runs(os.environ.get("CC"), "cc", "gcc", "clang"),
        cxx=_first_that_runs(os.environ.get("CXX"), "c++", "g++", "clang++"),
    )


def _first_that_runs(chosen: str | None, *usual: str) -> Compiler | None:
    for name in [chosen] if chosen else usual:
        command = tuple(shlex.split(name))
        if version := _ask(*command, "--version").strip():
            return Compiler(command, version)
    return None


def _ask(*command: str, text: str = "") -> str:
    """What a command prints; nothing when it fails or is not there."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        answer = subprocess.run(command, input=text, capture_output=True, text=True, env=environment)
    except OSError:
        return ""
    return answer.stdout if answer.returncode == 0 else ""


def read_amx_header(compiler: Compiler | None) -> str:
    """The compiler's own code for AMX, as its preprocessor gives it; empty where it has none."""
    if compiler is None:
        return ""
    return _ask(*compiler.command, "-E", "-x", "c++", "-mamx-tile", "-", text="#include <immintrin.h>\n")


def read_cpuinfo() -> str:
    """Linux's description of the CPU; elsewhere its name, which is enough to tell two machines apart."""
    if sys.platform == "linux":
        return Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    if sys.platform == "darwin":
        return _ask("sysctl", "-n", "machdep.cpu.brand_string").strip()
    return platform.processor()


def cpu_identity(cpuinfo: str) -> str:
    """What ``-march=native`` goes by: the same text, the same machine code."""
    return " ".join(sorted(cpu_features(cpuinfo))) or cpuinfo


def has_amx_fault(header: str) -> bool:
    """Whether code for AMX comes out wrong, by the text of the compiler's own header.

    ``_tile_loadconfig`` loads a tile configuration of 64 bytes. In GCC it was inline assembly with
    a pointer, 8 bytes, as its operand: the optimiser takes the stores to the other 56 for dead and
    removes them, and the first matrix product runs with a configuration that was never written.
    GCC bug 114098; mended in GCC 14 and in late releases of 11 to 13, which is why the header is
    asked and not the version.

    Example:
        >>> has_amx_fault('_tile_loadconfig (const void *__config) { __builtin_ia32_ldtilecfg (__config); }')
        False
    """
    return re.search(r"ldtilecfg[^;]*\(const void \*\*\)", header) is not None


def needs_amx_flags(cpuinfo: str, header: str) -> bool:
    """Whether a stock build would crash here: a CPU with AMX, a compiler with the fault."""
    return has_amx(cpuinfo) and has_amx_fault(header)


def stock_build_crashes() -> bool:
    """Whether this machine is one where a build without our flags dies."""
    cpuinfo = read_cpuinfo()
    return has_amx(cpuinfo) and needs_amx_flags(cpuinfo, read_amx_header(find_compilers().cxx))


def platform_tag() -> str:
    return f"{sys.platform}-{platform.machine()}-{'-'.join(platform.libc_ver())}"
