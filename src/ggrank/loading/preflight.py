"""Tries out llama.cpp and each file in a child process, before this process relies on them.

A build with a fault (GCC up to 12 on a CPU with AMX), a damaged file that passes every check of its header, a
GPU driver that aborts: each would end the caller's process. So the first use of a build, and of a file,
happens in a child. The verdict, "ok" or a few words about what went wrong, is remembered under the library's
bytes, the CPU, the settings and the file; from then on it costs two small reads.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ggrank.engine.hardware import find_processor
from ggrank.errors import EngineError, ModelFileError, warn
from ggrank.gguf import open_gguf
from ggrank.hub.checksums import Expected, check
from ggrank.rows.records import recall, remember
from ggrank.scoring import l2_normalize
from ggrank.types import Engine, EngineSettings, PoolingType

log = logging.getLogger("ggrank.loading.preflight")

RECORD = "preflight"
OK = "ok"
TIMEOUT_SECONDS = 600
"""A child that takes longer has failed; a large file on a slow disk takes minutes."""

LEAST_COSINE = 0.99
"""The bundled model's vectors against the original's: q8_0 gives 0.999, a wrong kernel far less."""

MENDING_FLAGS = "-fno-tree-dse -fno-dse"
"""For GCC up to 12 and AMX: its ``_tile_loadconfig`` tells the optimiser that it reads 8 of the 64
configuration bytes, so the stores of the rest are dropped. Can go when GCC 12 has gone."""

_REBUILD = (
    f"CMAKE_ARGS=\"-DCMAKE_C_FLAGS='{MENDING_FLAGS}' -DCMAKE_CXX_FLAGS='{MENDING_FLAGS}'\" pip install "
    "--force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python llama-cpp-python"
)
_MODELS = Path(__file__).parent.parent / "models"
_CHECK_FILE = _MODELS / "all-minilm-l6-v2-q8_0.gguf"
_REFERENCE = _MODELS / "all-minilm-l6-v2.reference.jsonl"

warn_once = lru_cache(warn)


def safe_settings(settings: EngineSettings, *, open_engine: bool, open_bufts: bool) -> EngineSettings:
    """The settings, or others if only those compute on this machine.

    Args:
        open_engine: the caller left ``engine`` open, so that llama.cpp may replace OpenVINO.
        open_bufts: the caller left ``use_extra_bufts`` open.
    """
    if importlib.util.find_spec("llama_cpp") is None:
        raise EngineError("llama-cpp-python is not installed: pip install llama-cpp-python")
    verdict = build_verdict(settings)
    if verdict == OK:
        return settings
    if settings.engine == "openvino":
        problem = f"OpenVINO does not compute here (the bundled check {verdict})"
        if not open_engine:
            raise EngineError(
                f"{problem}. Use the engine llama.cpp, or try: pip install --force-reinstall openvino"
            )
        warn_once(f"{problem}; using llama.cpp instead.")
        settings = replace(settings, engine="llama.cpp")
        return safe_settings(settings, open_engine=False, open_bufts=open_bufts)
    plain = replace(settings, use_extra_bufts=False)
    if open_bufts and settings.use_extra_bufts and build_verdict(plain) == OK:
        warn_once(
            f"this build of llama.cpp is not safe with repacked weights on this CPU (the bundled check "
            f"{verdict}); using plain weights instead, with right results. To mend it: {_REBUILD}"
        )
        return plain
    remedy = _REBUILD if "crashed" in verdict else "pip install --force-reinstall llama-cpp-python"
    raise EngineError(
        f"this build of llama.cpp does not compute here: the bundled check {verdict}. Try: {remedy}. "
        "'ggrank doctor' says more."
    )


def build_verdict(settings: EngineSettings) -> str:
    """Whether the bundled model gives the original's vectors in this configuration; remembered."""
    trial = replace(settings, pooling_type=PoolingType.MEAN, use_mmap=True, segment_ids=False)
    trial = replace(trial, n_ctx=256, n_ubatch=512, n_seq_max=8)
    return _verdict(f"build|{_fingerprint(trial)}", _CHECK_FILE, trial, _REFERENCE)


def prove_file(path: Path, settings: EngineSettings) -> None:
    """Loads a file and computes with it in a child, at its first use; raises what is wrong with it."""
    if path == _CHECK_FILE:
        return
    stat = path.stat()
    key = f"file|{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{_fingerprint(settings)}"
    verdict = _verdict(key, path, settings)
    if verdict == OK:
        return
    if verdict.startswith("computed"):
        raise EngineError(f"{path.name} {verdict}. The file is damaged: download it again.")
    raise ModelFileError(
        f"{settings.engine} cannot use {path}: a trial in a separate process {verdict}. The file is "
        "probably damaged (download it again), or needs another version of llama.cpp (pip install -U "
        "llama-cpp-python)"
    )


def _fingerprint(settings: EngineSettings) -> str:
    openvino = f"|openvino {version('openvino')}" if settings.engine == "openvino" else ""
    return f"{library_key()}{openvino}|{cpu_key()}|{json.dumps(asdict(settings), sort_keys=True)}"


def _verdict(key: str, path: Path, settings: EngineSettings, reference: Path | None = None) -> str:
    known = recall(RECORD).get(key)
    if isinstance(known, str):
        return known
    verdict, is_lasting = _ask_child(path, settings, reference)
    if is_lasting:
        remember(RECORD, {key: verdict})
    return verdict


def _ask_child(path: Path, settings: EngineSettings, reference: Path | None) -> tuple[str, bool]:
    """The child's verdict, and whether it will be the same next time (not after a kill from outside)."""
    if getattr(sys, "frozen", False) or not sys.executable:
        return OK, False  # A bundled application has no interpreter to start.
    request = {"path": str(path), "settings": asdict(settings), "reference": reference and str(reference)}
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from ggrank.loading.preflight import answer; answer()"],
            input=json.dumps(request),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
        )
    except OSError as error:  # Without child processes, do what other callers of llama.cpp do: hope.
        log.warning("no child process could be started to try %s out: %s", path.name, error)
        return OK, False
    except subprocess.TimeoutExpired:
        return f"did not end within {TIMEOUT_SECONDS} s", False
    if done.returncode == 0:
        verdict = (done.stdout.strip().splitlines() or ["said nothing"])[-1]
        return verdict, verdict == OK
    # A build that crashes does so again; a file may have failed for want of memory.
    return _how_it_ended(done), reference is not None and done.returncode != -9


def _how_it_ended(done: subprocess.CompletedProcess[str]) -> str:
    if done.returncode >= 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return f"ended with exit code {done.returncode} ({last[0][:300]})"
    try:
        return f"crashed with {signal.Signals(-done.returncode).name}"
    except ValueError:
        return f"crashed with signal {-done.returncode}"


def answer() -> None:
    """The child: reads one request from stdin and writes its verdict to stdout."""
    request = json.load(sys.stdin)
    pooling_type = PoolingType(request["settings"]["pooling_type"])
    settings = EngineSettings(**{**request["settings"], "pooling_type": pooling_type})
    try:
        verdict = _try_out(Path(request["path"]), settings, request["reference"])
    except EngineError:
        verdict = "computed values that are not finite"
    except Exception as error:
        verdict = f"failed: {str(error).splitlines()[0]}"
    sys.stdout.write(verdict + "\n")


_TRIAL_TEXTS = (
    "The quick brown fox jumps over the lazy dog, 12 times!",
    "Ça va? Größe, naïve: Ελληνικά, русский, עברית, العربية, हिन्दी, ไทย, 日本語, 한국어 🙂👩‍🔬",
)


def _try_out(path: Path, settings: EngineSettings, reference: str | None) -> str:
    from ggrank.engine import start_engine

    engine = start_engine(open_gguf(path), settings)
    if reference is not None:
        return _compare(engine, Path(reference))
    run = engine.run_tokens if settings.pooling_type is PoolingType.NONE else lambda ids: engine.run([ids])
    for tokens in filter(len, map(engine.tokenize, _TRIAL_TEXTS)):
        run(tokens[: settings.n_ctx])
    return OK


def _compare(engine: Engine, reference: Path) -> str:
    for line in reference.read_text("utf-8").splitlines():
        row = json.loads(line)
        tokens = engine.tokenize(f"[CLS] {row['text']} [SEP]", parse_special=True)
        vector = l2_normalize(engine.run([tokens])[0])
        agreement = float(vector @ np.array(row["vector"], dtype=np.float32))
        if not agreement >= LEAST_COSINE:
            return f"computed wrong values (cosine {agreement:.3f} with the original model's)"
    return OK


@lru_cache(maxsize=1)
def library_key() -> str:
    """16 hex digits of the sha256 over llama.cpp's shared libraries, which are found without loading them."""
    digest = hashlib.sha256()
    for path in library_files():
        digest.update(f"{path.name}:{check(path, Expected())}".encode())
    return digest.hexdigest()[:16]


def library_files() -> Iterator[Path]:
    """The shared libraries of the llama.cpp build in use."""
    spec = importlib.util.find_spec("llama_cpp")
    for package in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(package) / "lib"
        yield from sorted({path.resolve() for path in folder.iterdir()} if folder.is_dir() else ())


@lru_cache(maxsize=1)
def cpu_key() -> str:
    """This CPU: its name and the features that matter to llama.cpp."""
    processor = find_processor()
    return " ".join((processor.name, *processor.features))
