"""What the faces share: the reranker of a name, its logits, and which options are refused."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ggrank import DownloadError, InputError, Llama, Mode, ModelModeError, ModelNotFoundError
from ggrank.errors import InputTypeError
from ggrank.hub.presets import presets

Model: TypeAlias = "str | os.PathLike[str] | Llama"
"""An original's name (``BAAI/bge-reranker-base``), a preset, a path to a GGUF file, a Hugging Face repo with
GGUF files, or a loaded reranker."""

Pairs: TypeAlias = "Iterable[Sequence[str]] | Sequence[str] | NDArray[Any]"
"""Pairs of texts, or one pair."""

ORIGINALS = (
    "BAAI/bge-reranker-base",
    "BAAI/bge-reranker-large",
    "BAAI/bge-reranker-v2-m3",
    "Qwen/Qwen3-Reranker-0.6B",
    "Alibaba-NLP/gte-reranker-modernbert-base",
)
"""Hugging Face names of the originals; the preset of each is the part after the slash, in lower case."""

_WITHOUT_EFFECT = (
    {"attn_implementation", "backend", "device", "device_map", "export", "low_cpu_mem_usage", "provider"}
    | {"dtype", "keep_in_fp32_modules", "load_in_4bit", "load_in_8bit", "quantization_config", "torch_dtype"}
    | {"batch_size", "chunk_size", "num_workers", "passage_max_length", "show_progress_bar"}
    | {"apply_softmax", "classifier_dropout", "model_card_data"}
    | {"trust_remote_code", "use_fast", "use_safetensors"}
)
"""The originals' options, and entries of those that are dicts, that change no score of a GGUF file: how the
model is run, in which precision and batches, which files are trusted, and what only training reads."""

_CLOSEST_TO_ONE = 1.0 - 2.0**-24
"""A float32 probability below 1 is at most this; 1 itself has no finite logit."""


def check_options(call: str, options: Mapping[str, Any]) -> None:
    """Raises InputTypeError for an option that is not empty and could change scores.

    Example:
        >>> check_options("CrossEncoder", {"backend": "onnx", "model_kwargs": {"torch_dtype": "float16"}})
    """
    for name, value in options.items():
        entries = value if isinstance(value, dict) else {name: value}
        refused = [entry for entry in entries if entry not in _WITHOUT_EFFECT]
        if value and refused and name not in _WITHOUT_EFFECT:
            raise InputTypeError(
                f"{call}({name}=...): {', '.join(map(repr, refused))} is unknown, or would change scores: "
                "the GGUF file holds the model, its tokenizer and its configuration. Leave it out"
            )


def preset_of(model: str) -> str:
    """The preset that an original's or a preset's name means, in upper or lower case; else the name itself.

    Example:
        >>> preset_of("BAAI/bge-reranker-v2-m3"), preset_of("org/another-GGUF")
        ('bge-reranker-v2-m3', 'org/another-GGUF')
    """
    originals = {original.lower(): original.rpartition("/")[2].lower() for original in ORIGINALS}
    name = originals.get(model.lower(), model.lower())
    return name if name in presets() else model


def open_reranker(model: Model, *, device: object = None, n_ctx: int | None = None, **options: Any) -> Llama:
    """The loaded reranker of a name; a loaded `Llama` is returned as it is.

    ``device`` is the original's: a GPU is used where llama.cpp was built for one, unless this is the CPU.
    ``options`` are others of `Llama.load`.
    """
    known = ", ".join([*(name for name, preset in presets().items() if preset.is_reranker), *ORIGINALS])
    if isinstance(model, Llama):
        llama = model
    else:
        name = preset_of(model) if isinstance(model, str) else model
        try:
            llama = Llama.load(name, n_ctx=n_ctx, n_gpu_layers=-1 if is_gpu(device) else 0, **options)
        except (ModelNotFoundError, DownloadError) as error:
            if name in presets():
                raise
            raise type(error)(f"{error} Rerankers that are known by name: {known}.") from error
    if llama.mode is not Mode.RERANK:
        raise ModelModeError(
            f"{llama.model_path.name} is an embedding model (pooling {llama.pooling_type.name}), and a "
            f"reranker is needed here. Known by name: {known}."
        )
    if n_ctx not in (None, llama.n_ctx):
        raise InputError(
            f"max_length={n_ctx}, but the Llama that was given has n_ctx={llama.n_ctx}; load it with "
            f"n_ctx={n_ctx}, or give the model's name instead"
        )
    return llama


def is_gpu(device: object) -> bool:
    """Whether an original's ``device`` is anything but the CPU; None means a GPU if there is one."""
    devices = device if isinstance(device, (list, tuple)) else [device]
    return not all(str(each).startswith("cpu") for each in devices)


def listed(pairs: Any) -> tuple[list[Any], bool]:
    """The pairs, and whether one alone was given; a NumPy array of strings has them in its rows."""
    if isinstance(pairs, (str, bytes)) or not isinstance(pairs, Iterable):
        found = type(pairs).__name__
        raise InputTypeError(f"expected a list of (text, text) pairs or one such pair, found {found}")
    items = pairs.tolist() if isinstance(pairs, np.ndarray) else list(pairs)
    is_one_pair = bool(items) and not isinstance(items[0], (list, tuple))
    return ([items] if is_one_pair else items), is_one_pair


def logits(llama: Llama, pairs: Iterable[tuple[str, str]]) -> NDArray[np.float32]:
    """Logits of (query, document) pairs, shape (n,): what the originals score before any sigmoid.

    Where the model's own head ends in a softmax (Qwen3), the logit of its probability, which is the same as
    the original's "yes" minus "no".
    """
    values = llama.score_pairs(pairs)
    if llama.score_scale != "probability":
        return values
    p = np.clip(values.astype(np.float64), np.finfo(np.float32).tiny, _CLOSEST_TO_ONE)
    result: NDArray[np.float32] = np.log(p / (1.0 - p)).astype(np.float32)
    return result
