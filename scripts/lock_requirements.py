"""Writes the locks under ``requirements/`` from ``pyproject.toml``: ``make lock``.

Each lock is one resolution for Python 3.10 and newer on Linux, macOS and Windows, with markers
where they differ, and is installed by plain pip. All are cut from one resolution of everything, so
that a package has the same version in each. Needs uv. CONTRIBUTING.md says why llama-cpp-python
and torch have files of their own.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETS = {
    "run": [],
    "server": ["--extra=server"],  # for the Dockerfile
    "test": ["--group=test", "--group=lint"],
    "integrations": ["--group=integrations"],
    "parity": ["--group=parity"],
    "bench": ["--group=bench"],
}
"""What each lock holds beside ggrank's own dependencies, as uv's options."""

ALONE = ("llama-cpp-python", "torch")
ONLY_WITH_CUDA = re.compile(r"^((?:cuda|nvidia)-[\w-]+|triton)==", re.MULTILINE)


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        everything = Path(scratch) / "everything.txt"
        compile_set(sorted({option for options in SETS.values() for option in options}), everything, [])
        left_out = {*ALONE, *ONLY_WITH_CUDA.findall(everything.read_text("utf-8"))}
        constraint = ["--constraint", str(everything)]
        for name, chosen in SETS.items():
            omitted = [f"--no-emit-package={package}" for package in sorted(left_out)]
            hashes = ["--generate-hashes", "--custom-compile-command=make lock"]
            compile_set(chosen, ROOT / "requirements" / f"{name}.lock", [*constraint, *hashes, *omitted])
        for package in ALONE:
            write_alone(package, everything.read_text("utf-8"))
    return 0


def compile_set(chosen: Sequence[str], output: Path, options: Sequence[str]) -> None:
    uv_compile(["pyproject.toml", *chosen, *options, "--output-file", str(output), "--upgrade"])


def write_alone(package: str, everything: str) -> None:
    """One package without what it needs; torch without hashes too."""
    pin = re.search(rf"^{package}==[\w.]+", everything, re.MULTILINE)
    assert pin, f"no {package} in the resolution"
    options = ["--no-deps", "--custom-compile-command=make lock"]
    if package != "torch":
        options.append("--generate-hashes")
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.in"
        wanted.write_text(pin[0], "utf-8")
        lock = ROOT / "requirements" / f"{package}.lock"
        uv_compile([str(wanted), *options, "--output-file", str(lock), "--upgrade"])


def uv_compile(arguments: Sequence[str]) -> None:
    resolution = ["--universal", "--python-version", "3.10", "--no-annotate", "--quiet"]
    command = [sys.executable, "-m", "uv", "pip", "compile", *resolution, *arguments]
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
