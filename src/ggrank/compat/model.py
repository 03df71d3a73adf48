"""From the name that existing code has for a model to a loaded reranker, and its logits.

Knows which originals ggrank has presets for; nothing of the faces that use it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ggrank import DownloadError, InputError, Llama, LlamaParams, Mode, ModelModeError, ModelNotFoundError
from ggrank.errors import InputTypeError
from ggrank.hub.presets import presets

Model: TypeAlias = "str | os.PathLike[str] | Llama"
"""What a face takes for a model: a name, a path, or a reranker that is loaded already."""

Pairs: TypeAlias = "Iterable[Sequence[str]] | Sequence[str] | NDArray[Any]"
"""What a face takes for pairs of texts, or for one pair."""

ORIGINALS = (
    "BAAI/bge-reranker-base",
    "BAAI/bge-reranker-large",
    "BAAI/bge-reranker-v2-m3",
    "Qwen/Qwen3-Reranker-0.6B",
    "Alibaba-NLP/gte-reranker-modernbert-base",
)
"""Hugging Face names of the originals; the preset of each is its own part of the name, in lower case."""

_CLOSEST_TO_ONE = 1.0 - 2.0**-24
"""A float32 probability below 1 is at most this; 1 itself has no finite logit."""


def preset_of(model: str) -> str:
    """The preset that an original's or a preset's name means, in whatever case; else the name as it is.

    Example:
        >>> preset_of("BAAI/bge-reranker-v2-m3"), preset_of("org/another-GGUF")
        ('bge-reranker-v2-m3', 'org/another-GGUF')
    """
    originals = {original.lower(): original.rpartition("/")[2].lower() for original in ORIGINALS}
    name = originals.get(model.lower(), model.lower())
    return name if name in presets() else model


def open_reranker(
    model: Model,
    *,
    n_ctx: int | None = None,
    filename: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    on_gpu: bool = True,
) -> Llama:
    """The loaded reranker of a name; a `Llama` that is given stays what it is.

    Raises:
        ModelNotFoundError, DownloadError: no such model, or it cannot be had; lists the names that are known.
        ModelModeError: the model makes vectors.
        InputError: ``n_ctx`` is not that of the given `Llama`, or more than the model has.
    """
    if isinstance(model, Llama):
        return _given(model, n_ctx)
    params = LlamaParams(
        preset_of(model) if isinstance(model, str) else model,
        filename=filename,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        n_ctx=n_ctx,
        n_gpu_layers=-1 if on_gpu else 0,
    )
    try:
        return _reranker(Llama.load(params))
    except (ModelNotFoundError, DownloadError) as error:
        if params.model in presets():
            raise
        raise type(error)(f"{error} Rerankers that are known by name: {_known()}.") from error


def _given(llama: Llama, n_ctx: int | None) -> Llama:
    if n_ctx not in (None, llama.n_ctx):
        raise InputError(
            f"max_length={n_ctx}, but the Llama that was given has n_ctx={llama.n_ctx}; load it with "
            f"n_ctx={n_ctx}, or give the model's name instead"
        )
    return _reranker(llama)


def _reranker(llama: Llama) -> Llama:
    if llama.mode is not Mode.RERANK:
        raise ModelModeError(
            f"{llama.model_path.name} is an embedding model (pooling {llama.pooling_type.name}), and a "
            f"reranker is needed here. Known by name: {_known()}."
        )
    return llama


def _known() -> str:
    return ", ".join([*(name for name, preset in presets().items() if preset.is_reranker), *ORIGINALS])


def is_gpu(device: object) -> bool:
    """Whether an original's ``device`` means a GPU: anything but the CPU, and None too, if there is one.

    Example:
        >>> is_gpu("cpu"), is_gpu(None), is_gpu(["cuda:0"])
        (False, True, True)
    """
    devices = device if isinstance(device, (list, tuple)) else [device]
    return not all(str(each).startswith("cpu") for each in devices)


def listed(pairs: Any) -> list[Any]:
    """The pairs, or the two texts of one; a NumPy array of strings has either in its rows.

    Raises:
        InputTypeError: one string, or what has no items.
    """
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        found = type(pairs).__name__
        raise InputTypeError(f"expected a list of (text, text) pairs or one such pair, found {found}")
    return pairs.tolist() if isinstance(pairs, np.ndarray) else list(pairs)


def logits(llama: Llama, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
    """Raw logits of (query, document) pairs, shape (n,): what the originals score before any sigmoid.

    Where the model's own head ends in a softmax (Qwen3), the logit of its probability, which is the same as
    the original's "yes" minus "no".

    Raises:
        InputError: not pairs of strings.
    """
    values = llama.score_pairs(pairs)
    if llama.score_scale != "probability":
        return values
    p = np.clip(values.astype(np.float64), np.finfo(np.float32).tiny, _CLOSEST_TO_ONE)
    result: NDArray[np.float32] = np.log(p / (1.0 - p)).astype(np.float32)
    return result
