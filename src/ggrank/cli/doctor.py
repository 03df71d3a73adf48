"""``ggrank doctor``: checks the machine, the build of llama.cpp, the models and their scores."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from ggrank.cli.console import (
    Column,
    colored_state,
    count,
    echo,
    echo_json,
    echo_table,
    printable,
    wants_table,
)
from ggrank.cli.options import BUNDLED_RERANKER, DEFAULT_MODEL, ModelChoice, output_option
from ggrank.engine.hardware import find_processor
from ggrank.errors import GgrankError, ModelNotFoundError

if TYPE_CHECKING:
    from ggrank.cli.console import Cell

LEAST_COSINE = 0.998
"""Between vectors of the bundled q8_0 file and of the original model; measured: 0.9993 and more."""

CAPITAL = (
    "What is the capital of France?",
    "Paris is the capital of France.",
    "Berlin is the capital of Germany.",
)

PUBLISHED = {"bge-reranker-base": (6.157, -3.659), BUNDLED_RERANKER: (1.927, -1.201)}
"""Logits of the original in full precision for CAPITAL: the canonical values in fastembed's tests; for the
bundled reranker what its weights give in transformers (scripts/make_goldens_reranker.py)."""

ALLOWED = {"f32": 0.05, "f16": 0.05, "bf16": 0.1, "q8_0": 0.3}
"""How far a logit may be from the published one, by quantization; of any other: 2."""

_NAMES = {"avx2": "AVX2", "avx512": "AVX512", "amx": "AMX_INT8", "dotprod": "DOTPROD", "i8mm": "MATMUL_INT8"}
"""A processor's features in llama.cpp's spelling."""

_INSTALL = "pip install --force-reinstall --no-cache-dir llama-cpp-python"
_WHEELS = "https://abetlen.github.io/llama-cpp-python/whl"


class Finding(NamedTuple):
    """The result of a check: "note" means that it works and could be better; ``fix`` is what to do."""

    state: Literal["ok", "note", "fail"]
    found: str
    fix: str = ""


@click.command(short_help="Check this machine, the models and their scores.")
@click.option("--model", "-m", metavar="NAME|PATH", help="Check the scores of this model too.")
@output_option
@click.pass_context
def doctor(ctx: click.Context, model: str | None, as_table: bool | None) -> None:
    """Check the processor, the llama.cpp build, the models, and the scores of the bundled models.

    With --model bge-reranker-base, once it is downloaded, its logits are compared with those of the original
    model. Nothing is downloaded. The exit code is 1 when a check fails.
    """
    checks: dict[str, Callable[[], Finding]] = {
        "versions": check_versions,
        "processor": check_processor,
        "llama.cpp build": check_build,
        "openvino": check_openvino,
        "device": check_device,
        "preflight": check_preflight,
        "bundled model": check_bundled_model,
        "bundled reranker": lambda: check_scores(BUNDLED_RERANKER),
    }
    if model:
        checks["scores"] = lambda: check_scores(model)
    findings = {name: _attempt(check) for name, check in checks.items()}
    n_failed = sum(finding.state == "fail" for finding in findings.values())
    if wants_table(as_table):
        rows: list[list[Cell]] = []
        for name, finding in findings.items():
            rows.append([colored_state(finding.state), name, finding.found])
            if finding.fix:
                rows.append(["", "", f"{printable('→', '->')} {finding.fix}"])
        echo_table([Column(""), Column(""), Column("", wrap=True)], rows)
        echo(f"{n_failed} of {len(findings)} checks failed" if n_failed else "All is well.", bold=True)
    else:
        for name, finding in findings.items():
            echo_json({"check": name, **finding._asdict()})
    ctx.exit(1 if n_failed else 0)


def _attempt(check: Callable[[], Finding]) -> Finding:
    """What a check raises is a finding too."""
    try:
        return check()
    except GgrankError as error:
        return Finding("fail", str(error))
    except ImportError as error:
        fix = _INSTALL if "llama" in str(error) else "pip install --force-reinstall ggrank"
        return Finding("fail", f"cannot be imported: {error}", fix)
    except Exception as error:
        return Finding("fail", f"{type(error).__name__}: {error}", _INSTALL)


def check_versions() -> Finding:
    from ggrank import __version__
    from ggrank.engine.library import build_version

    python = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Finding("ok", f"ggrank {__version__}, llama-cpp-python {build_version()}, {python}")


def check_processor() -> Finding:
    from ggrank.loading.tuning import default_threads

    processor = find_processor()
    cores = f"{count(processor.n_cores, 'logical core')}, {count(default_threads(), 'thread')} used"
    features = " ".join(processor.features) or "features unknown"
    return Finding("ok", f"{processor.name}, {cores}: {features}")


def check_build() -> Finding:
    from ggrank.engine.library import system_info

    uses = [part.split("=")[0].split(":")[-1].strip() for part in system_info().split("|") if "= 1" in part]
    has = find_processor().features
    unused = [feature for feature, name in _NAMES.items() if feature in has and name not in uses]
    found = f"uses {' '.join(uses).lower() or 'no CPU features'}"
    if not unused:
        return Finding("ok", found)
    fix = f"build it on this machine: {_INSTALL} --no-binary llama-cpp-python (docs/install.md: the AMX flag)"
    return Finding("note", f"{found}; not {' '.join(unused)}, which this CPU has", fix)


def check_openvino() -> Finding:
    """Whether the second engine is installed and right; a note where it would be faster and is missing."""
    from ggrank.engine.library import gpu_names
    from ggrank.loading.tuning import has_openvino, openvino_is_faster_here, ruled_gain

    if not openvino_is_faster_here() or gpu_names():
        return Finding("ok", "not needed here: llama.cpp computes everything")
    if not has_openvino():
        found = f"not installed; with it BERT and XLM-R are about {ruled_gain():g} times as fast here"
        return Finding("note", found, "pip install 'ggrank[openvino]'")
    verdict = _verdict(engine="openvino", use_extra_bufts=False)
    found = f"openvino {version('openvino')}, used for BERT and XLM-R: {verdict}"
    if verdict == "ok":
        return Finding("ok", found)
    return Finding("fail", found, "pip install --force-reinstall openvino, or use --engine llama.cpp")


def check_device() -> Finding:
    from ggrank.engine.library import gpu_names

    if gpus := gpu_names():
        return Finding("ok", f"{', '.join(gpus)}, used by default; --n-gpu-layers 0 is the CPU")
    if sys.platform == "darwin" and platform.machine() == "arm64":
        fix = f"{_INSTALL} --extra-index-url {_WHEELS}/metal"
        return Finding("note", "CPU; this build has no Metal, which is faster here", fix)
    if Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists():
        fix = f"{_INSTALL} --extra-index-url {_WHEELS}/cu124 (or the CUDA version that is installed)"
        return Finding("note", "CPU; there is an NVIDIA GPU that this build cannot use", fix)
    return Finding("ok", "CPU")


def check_preflight() -> Finding:
    """A trial of this build in a child process, with and without repacked weights."""
    from ggrank.engine.library import gpu_names
    from ggrank.loading.preflight import MENDING_FLAGS

    verdicts = {
        "repacked weights": _verdict(use_extra_bufts=True),
        "plain weights": _verdict(use_extra_bufts=False),
    }
    if gpu_names():
        verdicts["CPU alone"] = _verdict(use_extra_bufts=True, n_gpu_layers=0)
    found = "; ".join(f"{name}: {verdict}" for name, verdict in verdicts.items())
    are_right = [verdict == "ok" for verdict in verdicts.values()]
    if all(are_right):
        return Finding("ok", found)
    flags = f"-DCMAKE_C_FLAGS='{MENDING_FLAGS}' -DCMAKE_CXX_FLAGS='{MENDING_FLAGS}'"
    fix = f'CMAKE_ARGS="{flags}" {_INSTALL} --no-binary llama-cpp-python'
    if any(are_right):
        return Finding("note", f"{found}; ggrank uses what works", fix)
    return Finding("fail", found, fix)


def _verdict(**options: Any) -> str:
    from ggrank.loading.preflight import build_verdict
    from ggrank.loading.tuning import default_threads
    from ggrank.types import EngineSettings, PoolingType

    n_threads = default_threads()
    return build_verdict(EngineSettings(PoolingType.MEAN, 256, 512, 8, n_threads, **options))


def check_bundled_model() -> Finding:
    """The bundled model's vectors beside those of the original, which are in the package."""
    reference = resources.files("ggrank").joinpath("models", "all-minilm-l6-v2.reference.jsonl")
    rows = [json.loads(line) for line in reference.read_text("utf-8").splitlines()]
    started = time.perf_counter()
    with ModelChoice(DEFAULT_MODEL).load() as llama:
        vectors = llama.embed_many([row["text"] for row in rows])
        device = f"{llama.device} ({llama.engine})"
    milliseconds = 1000 * (time.perf_counter() - started)
    cosines = [float(vector @ row["vector"]) for vector, row in zip(vectors, rows, strict=True)]
    found = f"{DEFAULT_MODEL} on {device}, loaded and computed in {milliseconds:.0f} ms; cosine with the "
    found += f"original's vectors {' '.join(f'{value:.5f}' for value in cosines)} (at least {LEAST_COSINE})"
    if min(cosines) >= LEAST_COSINE:
        return Finding("ok", found)
    return Finding("fail", found, f"{_INSTALL}, or ggrank models verify {DEFAULT_MODEL}")


def check_scores(model: str) -> Finding:
    """A model's scores of two sentences; its logits are compared where the original's are known."""
    query, right, wrong = CAPITAL
    try:
        llama = ModelChoice(model, local_files_only=True).load()
    except ModelNotFoundError as error:
        return Finding("fail", str(error), f"ggrank models download {model}")
    with llama:
        scores = {ranked.index: ranked.score for ranked in llama.rank(query, [right, wrong])}
        file = f"{llama.model_path.name} ({llama.quantization}) on {llama.device} ({llama.engine})"
        name, is_logit = llama.model_path.name.lower(), llama.score_scale == "logit"
        published = next((PUBLISHED[one] for one in PUBLISHED if is_logit and name.startswith(one)), None)
        allowed = ALLOWED.get(llama.quantization, 2.0)
    found = f"{file}; {right!r} {scores[0]:.3f}, {wrong!r} {scores[1]:.3f}"
    is_right = scores[0] > scores[1]
    if published is not None:
        off = max(abs(scores[i] - published[i]) for i in (0, 1))
        is_right = is_right and off <= allowed
        logits = f"{published[0]} and {published[1]}"
        found += f"; the original's logits are {logits}: {off:.3f} off, {allowed} allowed"
    if is_right:
        return Finding("ok", found)
    fix = f"ggrank models verify {model}; then download it again or report the numbers above"
    return Finding("fail", found, fix)
