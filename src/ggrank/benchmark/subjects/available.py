"""Which subjects there are for a model here, and why others are left out.

Knows files and installed packages; imports none of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ggrank.benchmark.models import BenchModel
from ggrank.benchmark.subjects import Subject

ENGINES = ("llama.cpp", "openvino")


@dataclass(frozen=True)
class Wish:
    """What was asked for.

    Attributes:
        quantizations: of GGUF files; those that a model does not have are passed over.
        engines: of ggrank: "llama.cpp", "openvino" or "auto".
        server: the program llama-server; "" where there is none.
        only: parts of names; empty takes every subject.
    """

    n_threads: int
    quantizations: Sequence[str] = ("q4_k_m", "q8_0")
    engines: Sequence[str] = ENGINES
    server: str = ""
    only: Sequence[str] = ()

    def takes(self, name: str) -> bool:
        """Whether a subject of that name is wanted."""
        return not self.only or any(part in name for part in self.only)


@dataclass(frozen=True)
class LeftOut:
    """A subject that cannot be measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class _Candidate:
    kind: str
    variant: str
    path: Path | None
    obstacle: str = ""
    engine: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, [self.kind, self.engine, self.variant]))


def subjects_for(model: BenchModel, wish: Wish) -> tuple[list[Subject], list[LeftOut]]:
    """Those that can run, ggrank's first, and those that cannot."""
    wanted = [one for one in _candidates(model, wish) if wish.takes(one.name)]
    missing = [LeftOut(one.name, one.obstacle) for one in wanted if one.obstacle]
    return [_subject(one, model, wish) for one in wanted if not one.obstacle], missing


def names_of(model: BenchModel, wish: Wish) -> list[str]:
    """The names of all subjects, whether ``wish.only`` takes them or not, and whether they can run or not."""
    return [one.name for one in _candidates(model, wish)]


def reference_for(model: BenchModel, wish: Wish) -> Subject | None:
    """ggrank's llama.cpp on the float32 file, whose scores the others' are compared with; None without it."""
    path = model.ggufs.get("f32")
    return _subject(_Candidate("ggrank", "f32", path, engine="llama.cpp"), model, wish) if path else None


def _subject(candidate: _Candidate, model: BenchModel, wish: Wish) -> Subject:
    return Subject(
        name=candidate.name,
        kind=candidate.kind,
        variant=candidate.variant,
        path=str(candidate.path),
        job=model.job,
        n_ctx=model.n_ctx,
        n_threads=wish.n_threads,
        engine=candidate.engine,
        server=wish.server,
    )


def _candidates(model: BenchModel, wish: Wish) -> Iterator[_Candidate]:
    here = [one for one in wish.quantizations if one in model.ggufs]
    for engine in wish.engines:
        obstacle = _not_installed("openvino") if engine == "openvino" else ""
        for variant in here:
            yield _Candidate("ggrank", variant, model.ggufs[variant], obstacle, engine)
    obstacle = "" if wish.server else "not on PATH; name one with --llama-server"
    for variant in here:
        yield _Candidate("llama-server", variant, model.ggufs[variant], obstacle)
    obstacle = _not_installed("sentence_transformers") or ("" if model.folder else "no model.safetensors")
    for variant in ("fp32", "bf16"):
        yield _Candidate("sentence-transformers", variant, model.folder, obstacle)
    for kind, variant in (("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("fastembed-style", "fp32")):
        path = model.onnx.get(variant)
        obstacle = _not_installed("onnxruntime", "tokenizers") or ("" if path else f"no {variant} ONNX file")
        yield _Candidate(kind, variant, path, obstacle)


def _not_installed(*packages: str) -> str:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    return f"{', '.join(missing)} not installed" if missing else ""
