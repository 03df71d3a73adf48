"""Builds llama-server, once, from the llama.cpp in llama-cpp-python's source archive, and prints its path.

Of the wheel's version, flags and compiler: `make bench` compares programs around one llama.cpp, not two of
them. Kept in ggrank's cache directory. Without CMake nothing is printed. Standard library only.
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import llama_wheel  # after the path that it is found on

NAME = "llama-server.exe" if sys.platform == "win32" else "llama-server"
OPTIONS = ("CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=OFF", "LLAMA_OPENSSL=OFF", "LLAMA_BUILD_UI=OFF",
           "LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF")  # fmt: skip
"""One file, no TLS, no pages for browsers (they come from the network)."""


def main() -> int:
    plan = llama_wheel.plan_build()
    kept = plan.folder.parent.parent / "llama-server" / plan.folder.name / NAME
    if not kept.exists():
        if shutil.which("cmake") is None:
            return 0
        print("ggrank: building llama-server (about ten minutes, once)", file=sys.stderr)
        with tempfile.TemporaryDirectory() as scratch:
            built = build(fetch(Path(scratch)), Path(scratch) / "build", shlex.split(plan.arguments))
            kept.parent.mkdir(parents=True, exist_ok=True)
            Path(shutil.copy2(built, kept.with_suffix(".new"))).replace(kept)
    print(kept)
    return 0


def fetch(scratch: Path) -> Path:
    """llama.cpp's source, from the archive that the lock has the sha256 of."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python"]
    pip += ["--require-hashes", "--dest", str(scratch), "--requirement", str(llama_wheel.LOCK)]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    with tarfile.open(next(scratch.glob("*.tar.gz"))) as archive:
        archive.extractall(scratch)  # its sha256 was checked
    return next(scratch.glob("llama_cpp_python-*/vendor/llama.cpp"))


def build(source: Path, folder: Path, arguments: list[str]) -> Path:
    options = [f"-D{option}" for option in OPTIONS] + arguments
    how = ["--parallel", str(os.cpu_count() or 1), "--config", "Release", "--target", "llama-server"]
    for command in (["-S", str(source), "-B", str(folder), *options], ["--build", str(folder), *how]):
        subprocess.run(["cmake", *command], check=True, stdout=sys.stderr)
    return next(path for path in folder.rglob(NAME) if path.is_file())


if __name__ == "__main__":
    sys.exit(main())
