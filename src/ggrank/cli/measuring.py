"""Measures the fastest settings for one file on this machine, for `ggrank tune`.

One setting after the other is changed and timed on the same texts. A change is kept if it is faster by more
than the noise and moves scores by no more than quantization does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ggrank.engine import why_not_openvino
from ggrank.engine.hardware import find_processor
from ggrank.errors import EngineError, ModelFileError, ModelModeError
from ggrank.llama import Llama
from ggrank.loading.model import load_model
from ggrank.loading.params import ALL_LAYERS, LlamaParams
from ggrank.loading.tuning import Tuned, has_openvino, remember_tuned
from ggrank.types import EngineName, EngineSettings, Mode, PoolingType

LEAST_GAIN = 1.05
"""Two measurements of the same settings differ by less on a quiet machine."""

MOST_NOISE = 0.05
"""Largest root mean square of the differences of logits, over their spread; that of q8_0 is 0.01 to 0.03."""

LEAST_COSINE = 0.999
"""Between the vectors of a text in both settings; q8_0's with the original's are 0.9993 to 0.9999."""

SECONDS = 0.6
"""Shortest time for which one setting is measured, at least twice."""

BUILT_IN = "the built-in settings"

_WORDS = ("the", "of", "a", "valley", "river", "stone", "which", "travels", "slowly", "between", "mountains")


@dataclass(frozen=True)
class Measured:
    """One choice of settings, its speed, and why it was rejected, if it was."""

    name: str
    tokens_per_second: float
    rejected: str | None = None


@dataclass(frozen=True)
class TuningReport:
    """The built-in settings, what was tried, and what is remembered.

    ``gain`` is the speed of the best settings over that of the built-in ones, both timed again in turns.
    Below `LEAST_GAIN` it counts as noise; it is 1.0 if nothing was faster at first.
    """

    model: str
    default: Measured
    tried: tuple[Measured, ...]
    chosen: str
    settings: EngineSettings
    gain: float
    is_remembered: bool


def tune(params: LlamaParams, *, on_measured: Callable[[Measured], None] = lambda _: None) -> TuningReport:
    """Measures a model for some seconds, and remembers the fastest settings.

    Options that ``params`` set are not changed, and are remembered too.
    """
    search = _Search(params, on_measured)
    for options in search.options():
        for tuned in options:
            search.try_out(tuned)
    return search.finish()


class _Search:
    def __init__(self, params: LlamaParams, on_measured: Callable[[Measured], None]) -> None:
        self._params, self._on_measured = params, on_measured
        model = load_model(self._params, tuned=Tuned())
        if model.settings.pooling_type is PoolingType.NONE:
            raise ModelModeError("a model without pooling cannot be tuned; load it with another pooling_type")
        self._rules = self._settings = model.settings
        self._uses_gpu = model.engine.device != "CPU"
        self._file = model.file
        with Llama(model) as llama:
            self._texts = _texts(llama.n_ctx)
            speed, self._expected = _time(llama, self._texts)
        self._best, self._best_speed = Tuned(), speed
        self._default = self._reported(Measured(_described(self._rules), speed))
        self._tried: list[Measured] = []

    def options(self) -> Iterator[list[Tuned]]:
        """Groups of changes to the best settings so far, of those options that the caller left open."""
        asked, rules = self._params, self._rules
        may_change = asked.engine == "auto" and has_openvino() and why_not_openvino(self._file) is None
        if self._uses_gpu and asked.n_gpu_layers == ALL_LAYERS:
            on_cpu = replace(self._best, n_gpu_layers=0)
            yield [on_cpu, *([replace(on_cpu, engine="openvino")] if may_change else [])]
        elif self._on_cpu and may_change:
            other: EngineName = "llama.cpp" if rules.engine == "openvino" else "openvino"
            yield [replace(self._best, engine=other)]
        if (self._best.engine or rules.engine) == "llama.cpp":
            if asked.use_extra_bufts is None and self._on_cpu:
                yield [replace(self._best, use_extra_bufts=not rules.use_extra_bufts)]
            if asked.flash_attn is None and self._file.quantization != "f32":
                yield [replace(self._best, flash_attn=not rules.flash_attn)]
        if asked.n_ubatch is None and asked.n_batch is None:
            yield [replace(self._best, n_ubatch=size) for size in (1024, 2048) if size > rules.n_ubatch]
        if asked.n_threads is None and self._on_cpu:
            yield [replace(self._best, n_threads=n) for n in _thread_counts(rules.n_threads)]

    @property
    def _on_cpu(self) -> bool:
        return not self._uses_gpu or self._best.n_gpu_layers == 0

    def try_out(self, tuned: Tuned) -> None:
        """Times one change, and keeps it if it is right and faster."""
        speed, settings, problem = self._measured(tuned)
        if problem is None and speed < LEAST_GAIN * self._best_speed:
            problem = "not 5 % faster than the best so far"
        self._tried.append(self._reported(Measured(changes(tuned), speed, problem)))
        if problem is None:
            self._best, self._best_speed, self._settings = tuned, speed, settings

    def _measured(self, tuned: Tuned) -> tuple[float, EngineSettings, str | None]:
        """Tokens a second, the settings, and what is wrong with them."""
        try:
            model = load_model(self._params, tuned=tuned)
        except (EngineError, ModelFileError) as error:
            return 0.0, self._rules, f"does not run here: {error}"
        with Llama(model) as llama:
            asked = {"engine": tuned.engine, "use_extra_bufts": tuned.use_extra_bufts}
            if any(value not in (None, getattr(model.settings, name)) for name, value in asked.items()):
                return 0.0, model.settings, "does not run here: other settings took their place"
            speed, values = _time(llama, self._texts)
            return speed, model.settings, too_different(values, self._expected, llama.mode)

    def finish(self) -> TuningReport:
        gain = self._gain()
        if gain < LEAST_GAIN:
            self._best, self._settings = Tuned(), self._rules
        chosen = changes(self._best)
        # What the caller asked for is part of what was measured, and so of what is remembered; except the
        # GPU: settings for the CPU must not keep later loads from it.
        asked = {name: getattr(self._params, name) for name in asdict(Tuned()) if name != "n_gpu_layers"}
        asked["n_ubatch"] = asked["n_ubatch"] or self._params.n_batch
        given = {name: value for name, value in asked.items() if value not in (None, "auto")}
        result, pooling = replace(self._best, **given), self._rules.pooling_type
        kept = remember_tuned(self._file, pooling, result, gain=gain if chosen != BUILT_IN else 1.0)
        return TuningReport(
            self._file.path.name, self._default, tuple(self._tried), chosen, self._settings, gain, kept
        )

    def _gain(self) -> float:
        """Of the best over the rules, timed in turns: a slower minute of the machine counts for both."""
        if self._best == Tuned():
            return 1.0
        with (
            Llama(load_model(self._params, tuned=Tuned())) as rules,
            Llama(load_model(self._params, tuned=self._best)) as best,
        ):
            rounds = [(_time(rules, self._texts)[0], _time(best, self._texts)[0]) for _ in range(2)]
        first, second = zip(*rounds, strict=True)
        return float(max(second) / max(first))

    def _reported(self, measured: Measured) -> Measured:
        self._on_measured(measured)
        return measured


def _time(llama: Llama, texts: list[str]) -> tuple[float, NDArray[np.float32]]:
    """Tokens a second, the best of a few rounds, and the results."""
    n_tokens = sum(map(llama.count_tokens, texts))
    values, best, started = _compute(llama, texts), float("inf"), time.perf_counter()
    n_rounds = 0
    while n_rounds < 2 or time.perf_counter() - started < SECONDS:
        began = time.perf_counter()
        values = _compute(llama, texts)
        best = min(best, time.perf_counter() - began)
        n_rounds += 1
    return n_tokens / best, values


def _compute(llama: Llama, texts: list[str]) -> NDArray[np.float32]:
    if llama.mode is Mode.EMBEDDING:
        return llama.embed_many(texts)
    query = " ".join(texts[7].split()[:8])  # from one of the texts, so that logits are far apart
    return llama.rerank(query, texts)


def too_different(found: NDArray[np.float32], expected: NDArray[np.float32], mode: Mode) -> str | None:
    """Why logits, shape (n,), or vectors, shape (n, n_embd), are not right; None if they are."""
    if mode is Mode.EMBEDDING:
        least = float((found * expected).sum(axis=1).min())
        return None if least >= LEAST_COSINE else f"vectors differ: cosine {least:.4f}"
    noise = float(np.sqrt(np.mean((found - expected) ** 2))) / (float(np.std(expected)) or 1.0)
    return None if noise <= MOST_NOISE else f"logits differ: by {noise:.0%} of their spread"


def _texts(n_ctx: int) -> list[str]:
    """Twenty texts as retrieval gives them: lengths spread around 60 words, the same each time."""
    random = np.random.default_rng(20)
    lengths = np.clip(np.exp(random.normal(np.log(60), 0.8, 20)), 8, min(300, n_ctx // 2)).astype(int)
    return [" ".join(random.choice(_WORDS, n)) for n in lengths]


def _thread_counts(n: int) -> list[int]:
    """Others worth a try: all logical processors, and half of the physical ones where there are many."""
    counts = {find_processor().n_cores, n // 2 if n >= 4 else n}
    return sorted(counts - {n})


def _described(settings: EngineSettings) -> str:
    parts: list[str] = [settings.engine]
    if settings.engine == "llama.cpp":
        parts.append(f"flash_attn {_word(settings.flash_attn)}")
        parts.append(f"use_extra_bufts {_word(settings.use_extra_bufts)}")
    return ", ".join([*parts, f"n_ubatch {settings.n_ubatch}", f"n_threads {settings.n_threads}"])


def changes(tuned: Tuned) -> str:
    """What differs from the rules.

    Example:
        >>> changes(Tuned(flash_attn=False, n_ubatch=1024)), changes(Tuned())
        ('flash_attn off, n_ubatch 1024', 'the built-in settings')
    """
    given = {name: value for name, value in asdict(tuned).items() if value is not None}
    return ", ".join(f"{name} {_word(value)}" for name, value in given.items()) or BUILT_IN


def _word(value: object) -> str:
    return {"True": "on", "False": "off"}.get(str(value), str(value))
