"""Builds llama-server, once, from the llama.cpp that is in llama-cpp-python's source archive.

    python scripts/build_llama_server.py     prints its path

The same version, flags, compiler and CPU as the wheel that ggrank runs on, so that `make bench` compares
what is around llama.cpp and not two of them. It is kept in ggrank's cache directory, under the wheel's key.
Needs CMake on PATH. Knows nothing of environments. Standard library only.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import llama_wheel

NAME = "llama-server.exe" if sys.platform == "win32" else "llama-server"
OPTIONS = ("CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=OFF", "LLAMA_BUILD_UI=OFF",
           "LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_OPENSSL=OFF", "LLAMA_BUILD_TESTS=OFF",
           "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_APP=OFF")  # fmt: skip
"""One file, no pages for browsers (they come from the network), no TLS."""


def main() -> int:
    plan = llama_wheel.plan_build()
    kept = plan.folder.parent.parent / "llama-server" / plan.folder.name / NAME
    if not kept.exists():
        print("ggrank: building llama-server (about ten minutes, once)", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch:
            built = build(fetch(Path(scratch)), Path(scratch) / "build", shlex.split(plan.arguments))
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(built, kept.with_suffix(".new"))
        kept.with_suffix(".new").replace(kept)
    print(kept)
    return 0


def fetch(scratch: Path) -> Path:
    """llama.cpp's source, from the archive that the lock has the sha256 of."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    pip += ["--no-binary", "llama-cpp-python", "--dest", str(scratch), "--requirement", str(llama_wheel.LOCK)]
    subprocess.run(pip, check=True)
    with tarfile.open(next(scratch.glob("*.tar.gz"))) as archive:
        archive.extractall(scratch, filter="data")
    return next(scratch.glob("llama_cpp_python-*/vendor/llama.cpp"))


def build(source: Path, folder: Path, arguments: list[str]) -> Path:
    configure = ["cmake", "-S", str(source), "-B", str(folder), *(f"-D{option}" for option in OPTIONS)]
    subprocess.run([*configure, *arguments], check=True, stdout=sys.stderr)
    jobs = ["--parallel", str(os.cpu_count() or 1), "--config", "Release", "--target", "llama-server"]
    subprocess.run(["cmake", "--build", str(folder), *jobs], check=True, stdout=sys.stderr)
    return next(path for path in folder.rglob(NAME) if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
