"""The options of loading a model, and the rules for those that were left open."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, get_args

from ggrank.errors import InputError, InputTypeError
from ggrank.gguf import GgufFile
from ggrank.hub.presets import Preset
from ggrank.loading.tuning import Tuned, choose_engine, default_threads, extra_bufts_pay
from ggrank.types import EngineName, EngineSettings, PoolingType

DEFAULT_N_CTX = 512
"""Longest sequence in tokens, unless the caller, a preset or the file names another length.

Work buffers grow with it, and causal models need a row of their whole vocabulary for each token.
"""

DEFAULT_N_UBATCH: dict[EngineName, int] = {"llama.cpp": 512, "openvino": 1024}
"""Most tokens of a micro-batch.

On two cores of an AMD EPYC (AVX512-VNNI), 12 layers of 768, OpenVINO is 15 % faster with 1,024 than with 512
if sequences have 128 or 384 tokens, 4 % for a mixed list; llama.cpp is as fast with 256 to 1,024.
"""

DEFAULT_N_SEQ_MAX = 128
"""Most sequences of a micro-batch; llama.cpp's own limit is 256."""

ALL_LAYERS = -1

DEFAULT_CACHE_LIMIT = 1_000_000_000
"""Bytes: 13 million scores of pairs, or 600,000 vectors of 384."""

_LIMITS = {
    "n_ctx": (16, 131_072),
    "n_batch": (16, 131_072),
    "n_ubatch": (16, 131_072),
    "n_seq_max": (1, 256),
    "n_threads": (1, 512),
    "n_gpu_layers": (ALL_LAYERS, 100_000),
    "cache_limit": (1_000_000, 10**15),
}


@dataclass(frozen=True)
class LlamaParams:
    """Everything that `Llama.load` takes. llama.cpp's own words keep their spelling.

    Attributes:
        model: a preset's name, a path to a GGUF file, or a Hugging Face repo id (``org/repo``).
        filename: the file of a repo; needed if it has several ``.gguf`` files.
        revision: a repo's branch, tag or commit.
        token: for private and gated repos; else ``HF_TOKEN``. Never shown.
        cache_dir: the folder of downloads; else Hugging Face's own cache.
        endpoint: another hub's address; else ``HF_ENDPOINT``.
        local_files_only: never use the network.
        pooling_type: else the file's own.
        n_ctx: longest sequence in tokens; else the preset's, else the file's own, else 512, or the model's
            limit if that is less.
        n_batch: the same as ``n_ubatch``, because a sequence is computed in one piece; llama.cpp's users know
            it.
        n_ubatch: most tokens of a micro-batch; else the tuned number, else 512, or 1,024 with OpenVINO. It is
            at least ``n_ctx``, and rounded up to a multiple of ``n_seq_max``.
        n_seq_max: most sequences of a micro-batch, 256 at most; else 128.
        n_threads: else the tuned number, else the physical cores that this process may use.
        n_gpu_layers: layers on the GPU, -1 for all (the default), 0 for none.
        use_mmap: map the file instead of reading it.
        flash_attn: else the tuned choice, else on, except for f32 files. On a CPU it is 1.6 times as fast and
            reads keys and values in float16, which moves logits by up to 0.003: far less than any
            quantization does, and far more than float32 does.
        use_extra_bufts: weights repacked for this CPU; else the tuned choice, else on if the processor has
            AMX or is not an x86, because on others repacked weights are slower, and if they work here.
        engine: "llama.cpp"; "openvino", which needs the extra of that name and computes BERT and XLM-R on x86
            processors; or "auto": the tuned choice, else "openvino" if it is installed, can compute the file,
            and the processor has AVX2.
        query_prefix: `Llama.rank` puts it before a query; else the preset's, else the file's own.
        document_prefix: `Llama.rank` puts it before each document; else the preset's, else the file's own.
        cache: a folder for results, so that each is computed once (docs/speed.md); None for no cache.
        cache_limit: bytes that ``cache`` may take; beyond it the results that were unused for longest are
            removed.

    Raises:
        InputError: an option is out of its range; `InputTypeError` if its type is wrong.

    Example:
        >>> from ggrank import LlamaParams
        >>> LlamaParams("all-minilm-l6-v2", n_ctx=128, token="hf_secret").n_ctx
        128
    """

    model: str | os.PathLike[str]
    filename: str | None = None
    revision: str | None = None
    token: str | None = field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None
    endpoint: str | None = None
    local_files_only: bool = False
    pooling_type: PoolingType | None = None
    n_ctx: int | None = None
    n_batch: int | None = None
    n_ubatch: int | None = None
    n_seq_max: int | None = None
    n_threads: int | None = None
    n_gpu_layers: int = ALL_LAYERS
    use_mmap: bool = True
    flash_attn: bool | None = None
    use_extra_bufts: bool | None = None
    engine: Literal["auto", "llama.cpp", "openvino"] = "auto"
    query_prefix: str | None = None
    document_prefix: str | None = None
    cache: str | os.PathLike[str] | None = None
    cache_limit: int = DEFAULT_CACHE_LIMIT

    def __post_init__(self) -> None:
        if self.engine not in ("auto", *get_args(EngineName)):
            raise InputError(f"engine must be 'auto', 'llama.cpp' or 'openvino', found {self.engine!r}")
        if self.cache is not None and not (isinstance(self.cache, (str, os.PathLike)) and str(self.cache)):
            raise InputTypeError(f"cache must be the path of a folder, found {self.cache!r}")
        if self.cache is not None and Path(self.cache).is_file():
            raise InputError(f"cache must be a folder, found the file {self.cache}; name another place")
        for name, (least, most) in _LIMITS.items():
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Integral):  # NumPy's integers count too
                raise InputTypeError(f"{name} must be a whole number, found {type(value).__name__}")
            if not least <= int(value) <= most:
                raise InputError(f"{name} must be from {least} to {most}, found {value}")
            object.__setattr__(self, name, int(value))
        if self.pooling_type is not None and not isinstance(self.pooling_type, PoolingType):
            object.__setattr__(self, "pooling_type", _pooling_type(self.pooling_type))

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> LlamaParams:
        """The params of a `Llama.load` call: made from its options, or passed whole as its ``model``."""
        params = options["model"]
        if not isinstance(params, LlamaParams):
            return cls(**options)
        defaults = {option.name: option.default for option in fields(cls)}
        others = [name for name, value in options.items() if name != "model" and value != defaults[name]]
        if others:
            raise InputError(f"LlamaParams are passed whole: set {', '.join(others)} in them")
        return params


def _pooling_type(value: object) -> PoolingType:
    """From its number or its name ("rank"), as a command line or JSON gives it."""
    try:
        return PoolingType[value.upper()] if isinstance(value, str) else PoolingType(value)  # type: ignore
    except (KeyError, ValueError):
        names = ", ".join(pooling.name for pooling in PoolingType)
        raise InputError(f"pooling_type must be one of {names}, found {value!r}") from None


def resolve_settings(
    params: LlamaParams, *, file: GgufFile, preset: Preset | None, pooling: PoolingType, tuned: Tuned
) -> EngineSettings:
    """The engine's settings; options that were left open are taken from ``tuned``, else from the rules."""
    n_ctx = params.n_ctx or (preset.n_ctx if preset is not None else None) or file.n_ctx
    n_ctx = n_ctx or min(DEFAULT_N_CTX, file.n_ctx_train)
    if n_ctx > file.n_ctx_train:
        raise InputError(
            f"n_ctx {n_ctx} is more than {file.path.name} has positions for; {file.n_ctx_train} at most"
        )
    n_gpu_layers = params.n_gpu_layers
    if n_gpu_layers == ALL_LAYERS and tuned.n_gpu_layers is not None:
        n_gpu_layers = tuned.n_gpu_layers
    engine = choose_engine(params.engine, tuned=tuned, file=file, n_gpu_layers=n_gpu_layers)
    n_ubatch = params.n_ubatch or params.n_batch or tuned.n_ubatch or DEFAULT_N_UBATCH[engine]
    n_ubatch = max(n_ubatch, n_ctx)
    n_seq_max = min(params.n_seq_max or DEFAULT_N_SEQ_MAX, n_ubatch)
    return EngineSettings(
        pooling_type=pooling,
        n_ctx=n_ctx,
        # llama.cpp aborts when it reserves its graph for mean pooling and this is no multiple
        # (graph_reserve rounds the tokens up to one, and then has more than it may).
        n_ubatch=-(-n_ubatch // n_seq_max) * n_seq_max,
        n_seq_max=n_seq_max,
        n_threads=params.n_threads or tuned.n_threads or default_threads(),
        n_gpu_layers=n_gpu_layers,
        use_mmap=params.use_mmap,
        flash_attn=_first(params.flash_attn, tuned.flash_attn, file.quantization != "f32"),
        use_extra_bufts=_first(params.use_extra_bufts, tuned.use_extra_bufts, extra_bufts_pay()),
        segment_ids=pooling is PoolingType.RANK and file.segment_ids,
        engine=engine,
    )


def _first(asked: bool | None, tuned: bool | None, rule: bool) -> bool:
    return next(value for value in (asked, tuned, rule) if value is not None)
