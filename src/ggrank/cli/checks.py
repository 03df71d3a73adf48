"""What `ggrank doctor` checks: the machine, the build of llama.cpp, the models and their numbers.

Each check is a function that gives one `Check`; none raises, none downloads. Knows what to find and what
mends it; not how it is shown.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ggrank.cli.console import count
from ggrank.cli.options import BUNDLED_RERANKER, DEFAULT_MODEL, ModelChoice
from ggrank.engine.hardware import find_processor
from ggrank.errors import GgrankError, ModelNotFoundError

if TYPE_CHECKING:
    from ggrank import Llama
    from ggrank.loading.preflight import Verdict
    from ggrank.types import EngineName

LEAST_COSINE = 0.998
"""Of the bundled q8_0 file's vectors with the original model's; it measures 0.9993 and more."""

CAPITAL = (
    "What is the capital of France?",
    "Paris is the capital of France.",
    "Berlin is the capital of Germany.",
)

PUBLISHED = {"bge-reranker-base": (6.157, -3.659), BUNDLED_RERANKER: (1.573, -1.966)}
"""Logits of the original in full precision for CAPITAL: the canonical values in fastembed's tests; for the
bundled reranker what its weights give in transformers (scripts/make_goldens_reranker.py)."""

TOLERANCES = (("f", 0.05), ("bf", 0.1), ("q8", 0.3), ("q6", 0.75), ("q5", 1.0), ("q", 1.5), ("iq", 2.0))
"""How far a logit may be from the published one, by the beginning of the quantization's name."""

_INSTALL = "pip install --force-reinstall --no-cache-dir llama-cpp-python"
_WHEELS = "https://abetlen.github.io/llama-cpp-python/whl"


@dataclass(frozen=True)
class Check:
    """One finding: "ok", "note" (works, could be better) or "fail", and what mends it."""

    name: str
    state: Literal["ok", "note", "fail"]
    found: str
    fix: str = ""


def run_checks(choice: ModelChoice | None) -> list[Check]:
    """All checks, in order; ``choice`` is another model whose scores are to be looked at."""
    functions: list[tuple[str, Callable[[], Check]]] = [
        ("versions", check_versions),
        ("processor", check_processor),
        ("llama.cpp build", check_build),
        ("openvino", check_openvino),
        ("quantization", check_quantization),
        ("device", check_device),
        ("preflight", check_preflight),
        ("models", check_models),
        ("bundled model", check_bundled_model),
        ("bundled reranker", lambda: check_scores(ModelChoice(BUNDLED_RERANKER), "bundled reranker")),
    ]
    if choice is not None:
        functions.append(("scores", lambda: check_scores(choice)))
    return [_attempt(name, function) for name, function in functions]


def _attempt(name: str, function: Callable[[], Check]) -> Check:
    """Runs one check; whatever goes wrong in it is a finding too."""
    try:
        return function()
    except GgrankError as error:
        return Check(name, "fail", " ".join(str(error).split()))
    except ImportError as error:
        fix = _INSTALL if "llama" in str(error) else "pip install --force-reinstall ggrank"
        return Check(name, "fail", f"cannot be imported: {error}", fix)
    except Exception as error:
        return Check(name, "fail", f"{type(error).__name__}: {error}", _INSTALL)


def check_versions() -> Check:
    """Of ggrank, Python, llama-cpp-python and the system."""
    from ggrank import __version__
    from ggrank.engine.library import build_version

    found = f"ggrank {__version__}, llama-cpp-python {build_version()}, Python {platform.python_version()}"
    return Check("versions", "ok", f"{found}, {platform.system()} {platform.machine()}")


def check_processor() -> Check:
    """The processor's name, cores and features."""
    from ggrank.loading.tuning import default_threads

    processor = find_processor()
    features = " ".join(processor.features) or "features unknown"
    cores = f"{count(processor.n_cores, 'logical core')}, {count(default_threads(), 'thread')} used"
    return Check("processor", "ok", f"{processor.name}, {cores}: {features}")


def check_build() -> Check:
    """What this build of llama.cpp uses of the processor."""
    from ggrank.engine.library import system_info

    uses = [part.split("=")[0].split(":")[-1].strip() for part in system_info().split("|") if "= 1" in part]
    has = find_processor().features
    missing = [
        name for name in ("avx2", "avx512", "amx", "dotprod", "i8mm") if name in has and not _used(name, uses)
    ]
    found = " ".join(uses).lower() or "no CPU features"
    if not missing:
        return Check("llama.cpp build", "ok", f"uses {found}")
    fix = f"a source build uses them: {_INSTALL} --no-binary llama-cpp-python (README: the AMX flag)"
    return Check("llama.cpp build", "note", f"uses {found}; not {' '.join(missing)}, which this CPU has", fix)


def _used(feature: str, uses: list[str]) -> bool:
    names = {"i8mm": "MATMUL_INT8", "amx": "AMX_INT8"}
    return names.get(feature, feature.upper()) in uses


def check_openvino() -> Check:
    """Whether the second engine is there, and right; a note where it would be faster and is not."""
    from ggrank.engine.library import gpu_names
    from ggrank.loading.tuning import has_openvino, openvino_is_faster_here, ruled_gain

    if not openvino_is_faster_here() or gpu_names():
        return Check("openvino", "ok", "not needed here: llama.cpp computes everything")
    if not has_openvino():
        found = f"not installed; with it BERT and XLM-R are about {ruled_gain():g} times as fast here"
        return Check("openvino", "note", found, "pip install 'ggrank[openvino]'")
    verdict = _verdict(engine="openvino")
    found = f"openvino {version('openvino')}, used for BERT and XLM-R: {verdict.detail}"
    if verdict.ok:
        return Check("openvino", "ok", found)
    return Check("openvino", "fail", found, "pip install --force-reinstall openvino, or --engine llama.cpp")


def check_quantization() -> Check:
    """Which GGUF file to take for this machine."""
    from ggrank.loading.tuning import fastest_quantization

    found = fastest_quantization() or "not measured on such a machine: ggrank bench compares files"
    return Check("quantization", "ok", found)


def check_device() -> Check:
    """Where models run when nobody says anything; a GPU that lies idle is a note."""
    from ggrank.engine.library import gpu_names

    if gpus := gpu_names():
        return Check(
            "device", "ok", f"{', '.join(gpus)}: used without being asked; --n-gpu-layers 0 for the CPU"
        )
    if sys.platform == "darwin" and platform.machine() == "arm64":
        fix = f"{_INSTALL} --extra-index-url {_WHEELS}/metal"
        return Check("device", "note", "CPU; this build has no Metal, which is faster here", fix)
    if Path("/dev/nvidia0").exists() or Path("/proc/driver/nvidia/version").exists():
        fix = f"{_INSTALL} --extra-index-url {_WHEELS}/cu124 (or the CUDA version that is installed)"
        return Check("device", "note", "CPU; there is an NVIDIA GPU that this build cannot use", fix)
    return Check("device", "ok", "CPU")


def check_preflight() -> Check:
    """What the child processes say of this build, with and without repacked weights."""
    from ggrank.loading.preflight import MENDING_FLAGS

    verdicts = _preflight_verdicts()
    found = "; ".join(f"{name}: {verdict.detail}" for name, verdict in verdicts.items())
    first, *others = verdicts.values()
    if all(verdict.ok for verdict in verdicts.values()):
        return Check("preflight", "ok", found)
    fix = f"CMAKE_ARGS=\"-DCMAKE_C_FLAGS='{MENDING_FLAGS}' -DCMAKE_CXX_FLAGS='{MENDING_FLAGS}'\" {_INSTALL} "
    fix += "--no-binary llama-cpp-python"
    if first.ok or any(verdict.ok for verdict in others):
        return Check("preflight", "note", f"{found}; ggrank keeps to what works", fix)
    return Check("preflight", "fail", found, fix)


def _preflight_verdicts() -> dict[str, Verdict]:
    from ggrank.engine.library import gpu_names

    verdicts = {
        "use_extra_bufts=True": _verdict(use_extra_bufts=True),
        "use_extra_bufts=False": _verdict(use_extra_bufts=False),
    }
    if gpu_names():
        verdicts["n_gpu_layers=0"] = _verdict(use_extra_bufts=True, n_gpu_layers=0)
    return verdicts


def _verdict(
    *, use_extra_bufts: bool = False, n_gpu_layers: int = -1, engine: EngineName = "llama.cpp"
) -> Verdict:
    from ggrank.loading.preflight import build_verdict
    from ggrank.loading.tuning import default_threads
    from ggrank.types import EngineSettings, PoolingType

    return build_verdict(
        EngineSettings(
            pooling_type=PoolingType.MEAN,
            n_ctx=256,
            n_ubatch=512,
            n_seq_max=8,
            n_threads=default_threads(),
            n_gpu_layers=n_gpu_layers,
            use_extra_bufts=use_extra_bufts,
            engine=engine,
        )
    )


def check_bundled_model() -> Check:
    """The bundled model's vectors beside those of the original, which travel in the package."""
    lines = (
        resources.files("ggrank").joinpath("models", "all-minilm-l6-v2.reference.jsonl").read_text("utf-8")
    )
    rows = [json.loads(line) for line in lines.splitlines()]
    started = time.perf_counter()
    with ModelChoice(DEFAULT_MODEL).load() as llama:
        vectors = llama.embed_many([row["text"] for row in rows])
        device = f"{llama.device} ({llama.engine})"
    cosines = [float(vector @ row["vector"]) for vector, row in zip(vectors, rows, strict=True)]
    seconds = time.perf_counter() - started
    found = f"{DEFAULT_MODEL} on {device}, loaded and computed in {1000 * seconds:.0f} ms; cosine with the "
    found += f"original's vectors {' '.join(f'{value:.5f}' for value in cosines)} (at least {LEAST_COSINE})"
    if min(cosines) >= LEAST_COSINE:
        return Check("bundled model", "ok", found)
    return Check("bundled model", "fail", found, f"{_INSTALL}, or ggrank models verify {DEFAULT_MODEL}")


def check_scores(choice: ModelChoice, name: str = "scores") -> Check:
    """A model's ranking of two sentences about capitals, and its logits where the original's are known."""
    query, right, wrong = CAPITAL
    try:
        llama = choice.load()
    except ModelNotFoundError as error:
        found = " ".join(str(error).split())
        return Check(name, "fail", found, f"ggrank models download {choice.model}")
    with llama:
        ranking = llama.rank(query, [right, wrong])
        scores = [found.score for found in sorted(ranking, key=lambda found: found.index)]
        found = (
            f"{llama.model_path.name} ({llama.quantization}) on {llama.device} ({llama.engine}); "
            f"{right!r} {scores[0]:.3f}, {wrong!r} {scores[1]:.3f}"
        )
        published = _published(llama)
        allowed = tolerance(llama.quantization)
    fix = f"ggrank models verify {choice.model}; then download it again or report the numbers above"
    is_right = scores[0] > scores[1]
    if published is not None:
        off = max(abs(score - original) for score, original in zip(scores, published, strict=True))
        is_right = is_right and off <= allowed
        found += (
            f"; the original's logits are {published[0]} and {published[1]}: {off:.3f} off, {allowed} allowed"
        )
    return Check(name, "ok" if is_right else "fail", found, "" if is_right else fix)


def _published(llama: Llama) -> tuple[float, float] | None:
    name = llama.model_path.name.lower()
    known = [logits for model, logits in PUBLISHED.items() if name.startswith(model)]
    return known[0] if known and llama.score_scale == "logit" else None


def tolerance(quantization: str) -> float:
    """How far a logit of a file quantized so may be from the original's.

    Example:
        >>> tolerance("q8_0"), tolerance("q4_k_m"), tolerance("f32")
        (0.3, 1.5, 0.05)
    """
    name = quantization.lower()
    return next((allowed for start, allowed in TOLERANCES if name.startswith(start)), TOLERANCES[-1][1])


def check_models() -> Check:
    """Which presets have their file here."""
    from ggrank.hub import list_models

    statuses = list_models()
    here = [status.preset.name for status in statuses if status.path is not None]
    away = [status.preset.name for status in statuses if status.path is None]
    found = f"here: {', '.join(here) or 'none'}; not downloaded: {', '.join(away) or 'none'}"
    if DEFAULT_MODEL in here:
        return Check("models", "ok", found)
    return Check(
        "models", "fail", found, "the bundled model is missing: pip install --force-reinstall ggrank"
    )
