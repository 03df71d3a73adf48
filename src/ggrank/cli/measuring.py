"""Measures the fastest settings for one file on this machine, for `ggrank tune`.

One setting after the other is changed and timed on the same texts. A change is kept if it is faster by more
than the noise and moves scores by no more than quantization does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ggrank.engine import why_not_openvino
from ggrank.engine.hardware import find_processor
from ggrank.errors import EngineError, ModelFileError, ModelModeError
from ggrank.gguf import GgufFile
from ggrank.llama import Llama
from ggrank.loading.model import load_model
from ggrank.loading.params import ALL_LAYERS, LlamaParams
from ggrank.loading.tuning import Tuned, has_openvino, remember_tuned
from ggrank.types import EngineSettings, Mode, PoolingType

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
    model = load_model(params, tuned=Tuned())
    rules, file, uses_gpu = model.settings, model.file, model.engine.device != "CPU"
    if rules.pooling_type is PoolingType.NONE:
        raise ModelModeError("a model without pooling cannot be tuned; load it with another pooling_type")
    with Llama(model) as llama:
        texts = _texts(llama.n_ctx)
        speed, expected = _time(llama, texts)
    default = Measured(_described(rules), speed)
    on_measured(default)
    best, settings, tried = Tuned(), rules, []
    for change in _candidates(params, rules, file, uses_gpu=uses_gpu):
        tuned = replace(best, **change)
        if _is_pointless(change, tuned, rules, uses_gpu=uses_gpu):
            continue
        its_speed, its_settings, problem = _measure(params, tuned, texts, expected)
        if problem is None and its_speed < LEAST_GAIN * speed:
            problem = "not 5 % faster than the best so far"
        if problem is None:
            best, speed, settings = tuned, its_speed, its_settings or rules
        tried.append(Measured(changes(tuned), its_speed, problem))
        on_measured(tried[-1])
    gain = _gain(params, best, texts)
    if gain < LEAST_GAIN:
        best, settings = Tuned(), rules
    # What the caller asked for is part of what was measured, and so of what is remembered; except the GPU:
    # settings for the CPU must not keep later loads from it.
    asked = {name: getattr(params, name) for name in asdict(Tuned()) if name != "n_gpu_layers"}
    asked["n_ubatch"] = asked["n_ubatch"] or params.n_batch
    result = replace(best, **{name: value for name, value in asked.items() if value not in (None, "auto")})
    kept_gain = 1.0 if best == Tuned() else gain
    is_remembered = remember_tuned(file, rules.pooling_type, result, gain=kept_gain)
    return TuningReport(file.path.name, default, tuple(tried), changes(best), settings, gain, is_remembered)


def _candidates(
    asked: LlamaParams, rules: EngineSettings, file: GgufFile, *, uses_gpu: bool
) -> Iterator[dict[str, Any]]:
    """Changes to try one after the other, of those options that the caller left open."""
    may_change = asked.engine == "auto" and has_openvino() and why_not_openvino(file) is None
    if uses_gpu and asked.n_gpu_layers == ALL_LAYERS:
        yield {"n_gpu_layers": 0}
        if may_change:
            yield {"n_gpu_layers": 0, "engine": "openvino"}
    elif may_change and not uses_gpu:
        yield {"engine": "llama.cpp" if rules.engine == "openvino" else "openvino"}
    if asked.use_extra_bufts is None:
        yield {"use_extra_bufts": not rules.use_extra_bufts}
    if asked.flash_attn is None and file.quantization != "f32":
        yield {"flash_attn": not rules.flash_attn}
    if asked.n_ubatch is None and asked.n_batch is None:
        yield from ({"n_ubatch": size} for size in (1024, 2048) if size > rules.n_ubatch)
    if asked.n_threads is None:
        yield from ({"n_threads": n} for n in _thread_counts(rules.n_threads))


def _is_pointless(change: dict[str, Any], tuned: Tuned, rules: EngineSettings, *, uses_gpu: bool) -> bool:
    """Whether the engine or device that would compute does not read the option."""
    is_openvino = (tuned.engine or rules.engine) == "openvino"
    is_on_gpu = uses_gpu and tuned.n_gpu_layers != 0
    ignored = {"use_extra_bufts", "flash_attn"} if is_openvino else set()
    return bool(change.keys() & (ignored | ({"use_extra_bufts", "n_threads"} if is_on_gpu else set())))


def _measure(
    params: LlamaParams, tuned: Tuned, texts: list[str], expected: NDArray[np.float32]
) -> tuple[float, EngineSettings | None, str | None]:
    """Tokens a second, the settings, and what is wrong with them."""
    try:
        model = load_model(params, tuned=tuned)
    except (EngineError, ModelFileError) as error:
        return 0.0, None, f"does not run here: {error}"
    with Llama(model) as llama:
        asked = {"engine": tuned.engine, "use_extra_bufts": tuned.use_extra_bufts}
        if any(value not in (None, getattr(model.settings, name)) for name, value in asked.items()):
            return 0.0, model.settings, "does not run here: other settings took their place"
        speed, values = _time(llama, texts)
        return speed, model.settings, too_different(values, expected, llama.mode)


def _gain(params: LlamaParams, best: Tuned, texts: list[str]) -> float:
    """Of the best over the rules, timed in turns: a slower minute of the machine counts for both."""
    if best == Tuned():
        return 1.0
    with (
        Llama(load_model(params, tuned=Tuned())) as by_rules,
        Llama(load_model(params, tuned=best)) as tuned,
    ):
        rounds = [(_time(by_rules, texts)[0], _time(tuned, texts)[0]) for _ in range(2)]
    first, second = zip(*rounds, strict=True)
    return float(max(second) / max(first))


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
