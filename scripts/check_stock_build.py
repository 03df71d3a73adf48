"""Proves that ggrank is right on a stock build of llama-cpp-python: ``make check-stock-build``.

Nothing is faked. In an environment of its own, in a temporary folder, ``pip install`` builds the
locked llama-cpp-python without any flag of ours, and ggrank is installed beside it. Then, in child
processes:

1.  llama-cpp-python alone computes one embedding. On a CPU with AMX, built by a GCC that has the
    fault (``toolchain.has_amx_fault``), it must die of a segmentation fault; elsewhere it must not.
2.  ggrank gives the original model's vectors on that same build.
3.  It says once why it computes without extra buffers, and with which flags a build needs no such
    detour; where nothing is wrong it says nothing.

Takes as long as the build, about five minutes. Exits with 1 if any of this is not so.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_wheel
import toolchain
from llama_wheel import ROOT, SetupError
from setup_env import Environment, create, say

NO_FLAGS = {"CMAKE_ARGS": "", "CFLAGS": "", "CXXFLAGS": "", "LDFLAGS": ""}
LEAST_COSINE = 0.998

STOCK_CHILD = """
import sys
import llama_cpp
model = llama_cpp.Llama(sys.argv[1], embedding=True, verbose=False)
print(len(model.embed("What is the capital of France?")))
"""

GGRANK_CHILD = """
import json, pathlib, sys, warnings
import numpy as np
import ggrank
lines = pathlib.Path(sys.argv[1]).read_bytes().splitlines()
texts = [json.loads(line)["text"] for line in lines]
originals = np.load(sys.argv[2])["vectors"].astype(np.float32)
assert len(texts) == len(originals)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):  # the second load has nothing new to say
        with ggrank.Llama.load("all-minilm-l6-v2") as model:
            vectors = model.embed_many(texts)
originals /= np.linalg.norm(originals, axis=1, keepdims=True)
print(json.dumps({
    "from": str(pathlib.Path(ggrank.__file__).parent),
    "cosines": (vectors * originals).sum(axis=1).tolist(),
    "warnings": [str(w.message) for w in caught if issubclass(w.category, ggrank.GgrankWarning)],
}))
"""


@dataclass(frozen=True)
class Claim:
    """A sentence that must be true, and what was found."""

    sentence: str
    found: str
    holds: bool


class StockBuild:
    """An environment with a stock llama-cpp-python and this checkout's ggrank, far from the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = Environment(folder / "stock")

    def install(self) -> None:
        create(self.folder / "stock")
        self.environment.install_locked("run")
        version = llama_wheel.locked_version(llama_wheel.LOCK.read_text("utf-8"))
        say(f"building llama-cpp-python {version} as pip does by itself (about five minutes)")
        stock = ["--no-cache-dir", "--no-binary", "llama-cpp-python", f"llama-cpp-python=={version}"]
        self.environment.pip(["install", *stock], NO_FLAGS)
        self.environment.pip(["install", "--no-deps", str(ROOT)])

    def run(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A child that sees this environment only, and remembers nothing of other builds."""
        cache = {"GGRANK_CACHE_DIR": str(self.folder / "cache"), "HF_HUB_OFFLINE": "1"}
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(self.environment.python), "-c", code, *arguments]
        return subprocess.run(command, cwd=self.folder, env=kept | cache, capture_output=True, text=True)


def main() -> int:
    crash_expected = toolchain.stock_build_crashes()
    try:
        with tempfile.TemporaryDirectory(prefix="ggrank-stock-") as folder:
            build = StockBuild(Path(folder))
            build.install()
            claims = [stock_claim(build, crash_expected), *ggrank_claims(build, crash_expected)]
    except SetupError as error:
        print(f"ggrank: {error}", file=sys.stderr)
        return 1
    return report(claims)


def stock_claim(build: StockBuild, crash_expected: bool) -> Claim:
    model = ROOT / "src" / "ggrank" / "models" / "all-minilm-l6-v2-q8_0.gguf"
    ended = build.run(STOCK_CHILD, str(model))
    if crash_expected:
        sentence = "AMX, and a GCC with the fault: the stock build dies of a segmentation fault"
        return Claim(sentence, how(ended), ended.returncode == -signal.SIGSEGV)
    sentence = "no AMX, or a compiler without the fault: the stock build does not crash"
    return Claim(sentence, how(ended), ended.returncode == 0)


def ggrank_claims(build: StockBuild, crash_expected: bool) -> Sequence[Claim]:
    texts = ROOT / "tests" / "data" / "texts.jsonl"
    goldens = ROOT / "tests" / "goldens" / "all-minilm-l6-v2.npz"  # made by sentence-transformers
    ended = build.run(GGRANK_CHILD, str(texts), str(goldens))
    if ended.returncode != 0:
        return [Claim("ggrank computes on the stock build", f"{how(ended)}\n{ended.stderr}", False)]
    answer: dict[str, Any] = json.loads(ended.stdout)
    return [
        installed_claim(build, Path(answer["from"])),
        vectors_claim(answer["cosines"]),
        warning_claim(answer["warnings"], expected=int(crash_expected)),
    ]


def installed_claim(build: StockBuild, place: Path) -> Claim:
    inside = build.folder.resolve() in place.resolve().parents
    return Claim("the ggrank that runs is the one installed beside that build", str(place), inside)


def vectors_claim(cosines: Sequence[float]) -> Claim:
    sentence = f"every vector has a cosine of {LEAST_COSINE} or more with the original model's"
    found = f"{len(cosines)} vectors, the least cosine is {min(cosines):.5f}"
    return Claim(sentence, found, all(cosine >= LEAST_COSINE for cosine in cosines))


def warning_claim(warnings: Sequence[str], *, expected: int) -> Claim:
    naming = [warning for warning in warnings if llama_wheel.AMX_FLAGS in warning]
    sentence = f"two loads warn {('never', 'once')[expected]} of a build without {llama_wheel.AMX_FLAGS}"
    return Claim(sentence, "; ".join(naming) or "no such warning", len(naming) == expected)


def how(ended: subprocess.CompletedProcess[str]) -> str:
    if ended.returncode < 0:
        return f"it died of {signal.Signals(-ended.returncode).name}"
    return f"it ended with exit code {ended.returncode}"


def report(claims: Sequence[Claim]) -> int:
    for claim in claims:
        print(f"{'yes' if claim.holds else 'NO '}  {claim.sentence}\n     found: {claim.found}")
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
