"""Builds the llama-cpp-python wheel that this compiler and this CPU need, once, and keeps it.

llama-cpp-python is on PyPI as source only, and a build takes minutes. pip's own cache of built wheels ignores
``CMAKE_ARGS``, so it could return a wheel without a flag that this CPU needs. The wheels are in ggrank's
cache directory instead, under a key of everything that the library depends on. One that is missing, damaged
or does not start is built again. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements" / "llama-cpp-python.lock"
sys.path.insert(0, str(ROOT / "src"))

import toolchain  # noqa: E402
from ggrank.rows.records import cache_dir  # noqa: E402  # after the path that it is found on
from toolchain import Compilers  # noqa: E402

AMX_FLAGS = "-fno-tree-dse -fno-dse"
SHAPING_VARIABLES = ("CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS")

NO_COMPILER = """\
llama-cpp-python comes as source code, and a C or C++ compiler is missing here. Either install one:
    Debian, Ubuntu   apt install build-essential
    Fedora           dnf install gcc-c++
    macOS            xcode-select --install
    Windows          Visual Studio Build Tools, with "Desktop development with C++"
or use a wheel that its author built (in place of cpu: metal, or cu121 to cu125 for CUDA):
    make {target} LLAMA_CPP_PIP_ARGS="--extra-index-url https://abetlen.github.io/llama-cpp-python/whl/cpu"
or a wheel file that you have:
    make {target} LLAMA_CPP_WHEEL=path/to/llama_cpp_python.whl"""


class SetupError(Exception):
    """Something that setup cannot go on without; the message says what to do."""


# -- what the build needs


def cmake_args(given: str, *, amx_flags: bool) -> str:
    """The value of ``CMAKE_ARGS``: what is needed here, then what the caller gave, which wins.

    Example:
        >>> cmake_args("-DGGML_CUDA=on", amx_flags=False)
        '-DGGML_CUDA=on'
    """
    if not amx_flags:
        return given
    return f"-DCMAKE_C_FLAGS='{AMX_FLAGS}' -DCMAKE_CXX_FLAGS='{AMX_FLAGS}' {given}".rstrip()


def cache_key(lock_text: str, *, arguments: str, cpuinfo: str, compilers: Compilers,
              platform_tag: str, variables: Mapping[str, str]) -> str:  # fmt: skip
    """The name of a wheel's folder: its version, and a digest of all that shapes the library.

    ``arguments`` is the value of ``CMAKE_ARGS`` that the build gets.
    """
    version = locked_version(lock_text)
    parts = [version, arguments, toolchain.cpu_identity(cpuinfo), platform_tag]
    parts += [compiler.version if compiler else "" for compiler in (compilers.c, compilers.cxx)]
    parts += [f"{name}={variables.get(name, '')}" for name in SHAPING_VARIABLES]
    return f"{version}-{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:16]}"


def locked_version(lock_text: str) -> str:
    r"""The version that the lock pins.

    Example:
        >>> locked_version("# a comment\nllama-cpp-python==0.3.36 --hash=sha256:00")
        '0.3.36'
    """
    found = re.search(r"^llama-cpp-python==([\w.]+)", lock_text, re.MULTILINE)
    if not found:
        raise SetupError(f"{LOCK} pins no version of llama-cpp-python; `make lock` writes it")
    return found[1]


# -- getting the wheel

Pip = Callable[[Sequence[str], Mapping[str, str]], None]
"""Runs pip with arguments and extra environment variables; raises SetupError when it fails."""


def check_obtainable(*, target: str) -> None:
    """Raises SetupError where no wheel can be had; ``target`` is the make target that it names."""
    if os.environ.get("LLAMA_CPP_WHEEL") or os.environ.get("LLAMA_CPP_PIP_ARGS"):
        return
    plan = plan_build()
    if not plan.can_build and find_kept(plan.folder) is None:
        raise SetupError(NO_COMPILER.format(target=target))


def get_wheel(pip: Pip, *, scratch: Path, say: Callable[[str], None]) -> Path:
    """The wheel to install: the caller's own, its author's, a kept one, or one built now.

    ``scratch`` takes what is downloaded or built.
    """
    if chosen := os.environ.get("LLAMA_CPP_WHEEL"):
        return _existing(Path(chosen).expanduser())
    if arguments := os.environ.get("LLAMA_CPP_PIP_ARGS"):
        say("fetching a prebuilt llama-cpp-python")
        return _fetch(pip, shlex.split(arguments), scratch)
    plan = plan_build()
    if kept := find_kept(plan.folder):
        say("using the llama-cpp-python that was built on this machine before")
        return kept
    say(f"building llama-cpp-python (about five minutes, once){plan.reason}")
    wheel = _build(pip, plan.arguments, scratch)
    keep(wheel, plan.folder)
    return wheel


@dataclass(frozen=True)
class BuildPlan:
    """What a build here would be: its ``CMAKE_ARGS``, why, and the folder that keeps the wheel."""

    can_build: bool
    arguments: str
    reason: str
    folder: Path


def plan_build() -> BuildPlan:
    cpuinfo, compilers = toolchain.read_cpuinfo(), toolchain.find_compilers()
    amx_flags = toolchain.stock_build_crashes()
    reason = f", with {AMX_FLAGS} for this compiler and AMX" if amx_flags else ""
    arguments = cmake_args(os.environ.get("CMAKE_ARGS", ""), amx_flags=amx_flags)
    key = cache_key(LOCK.read_text("utf-8"), arguments=arguments, cpuinfo=cpuinfo, compilers=compilers,
                    platform_tag=toolchain.platform_tag(), variables=os.environ)  # fmt: skip
    # CMake finds Visual Studio where no PATH leads.
    can_build = sys.platform == "win32" or None not in (compilers.c, compilers.cxx)
    return BuildPlan(can_build, arguments, reason, _kept_wheels() / key)


def _existing(wheel: Path) -> Path:
    if not wheel.is_file():
        raise SetupError(f"LLAMA_CPP_WHEEL={wheel}: there is no such file")
    return wheel.resolve()


def _fetch(pip: Pip, arguments: Sequence[str], scratch: Path) -> Path:
    requirement = f"llama-cpp-python=={locked_version(LOCK.read_text('utf-8'))}"
    only = ["--only-binary", "llama-cpp-python", "--no-deps"]
    pip(["download", *only, "--dest", str(scratch), *arguments, requirement], {})
    return _only_wheel(scratch)


def _build(pip: Pip, arguments: str, scratch: Path) -> Path:
    command = ["wheel", "--no-cache-dir", "--no-binary", "llama-cpp-python", "--no-deps", "--require-hashes"]
    pip([*command, "--wheel-dir", str(scratch), "--requirement", str(LOCK)], {"CMAKE_ARGS": arguments})
    return _only_wheel(scratch)


def _only_wheel(folder: Path) -> Path:
    wheels = sorted(folder.glob("llama_cpp_python-*.whl"))
    if len(wheels) != 1:
        raise SetupError(f"expected one llama-cpp-python wheel in {folder}, found {len(wheels)}")
    return wheels[0]


# -- keeping it


def _kept_wheels() -> Path:
    """ggrank's cache directory; the checkout's build folder where that cannot be written."""
    for folder in (cache_dir() / "wheels", ROOT / "build" / "wheels"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return ROOT / "build" / "wheels"


def find_kept(folder: Path) -> Path | None:
    """The wheel in a folder, if it is whole: its bytes have the sha256 that was written beside it."""
    try:
        wheel = _only_wheel(folder)
        recorded = wheel.with_suffix(".sha256").read_text("utf-8").strip()
        whole = sha256(wheel) == recorded and zipfile.is_zipfile(wheel)
    except (OSError, SetupError):
        return None
    return wheel if whole else None


def keep(wheel: Path, folder: Path) -> None:
    """Puts a copy of the wheel into its folder, whole or not at all; failing to is no error."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
            copy = Path(scratch) / "wheel" / wheel.name
            copy.parent.mkdir()
            shutil.copyfile(wheel, copy)
            copy.with_suffix(".sha256").write_text(sha256(wheel) + "\n", "utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            copy.parent.rename(folder)
    except OSError:
        return


def forget(wheel: Path) -> bool:
    """Removes a wheel that did not start, if it was a kept one; whether another try makes sense."""
    if wheel.parent.parent != _kept_wheels():
        return False
    shutil.rmtree(wheel.parent, ignore_errors=True)
    return not wheel.exists()


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
