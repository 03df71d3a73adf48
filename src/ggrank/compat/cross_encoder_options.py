"""Which options of sentence-transformers' `CrossEncoder` mean nothing here, and which are refused, and why.

Knows their names in versions 4 to 6, old ones too; not those that have an effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ggrank.errors import InputError, InputTypeError

_OLD_NAMES = {
    "automodel_args": "model_kwargs",
    "tokenizer_args": "processor_kwargs",
    "tokenizer_kwargs": "processor_kwargs",
    "config_args": "config_kwargs",
}

_WITHOUT_EFFECT = frozenset(
    {
        "backend",
        "chunk_size",
        "classifier_dropout",
        "device",
        "keep_in_fp32_modules",
        "model_card_data",
        "trust_remote_code",
    }
)
"""What runs the model, how exactly and where, which code it trusts, and what only training reads."""

_WHY_NOT = {
    "config_kwargs": "the configuration is the one in the GGUF file; the number of labels is 1",
    "default_prompt_name": "no prompt is set before texts; write it into them",
    "model_kwargs": "it configures PyTorch's model, and the GGUF file is one already",
    "modules": "the model is one GGUF file, not modules of PyTorch",
    "pool": "the work is shared by threads, not by a pool of processes",
    "processor_kwargs": "the tokenizer is the one in the GGUF file; the longest pair is max_length",
    "prompt": "no prompt is set before texts; write it into them",
    "prompt_name": "no prompt is set before texts; write it into them",
    "prompts": "no prompt is set before texts; write it into them",
}

_HARMLESS = {
    "config_kwargs": {"classifier_dropout"},
    "model_kwargs": {
        "attn_implementation",
        "device_map",
        "dtype",
        "export",
        "load_in_4bit",
        "load_in_8bit",
        "low_cpu_mem_usage",
        "provider",
        "quantization_config",
        "torch_dtype",
        "trust_remote_code",
        "use_safetensors",
    },
    "processor_kwargs": {"trust_remote_code", "use_fast"},
}
"""Entries of a dict that choose how a model is run, not what it computes."""


def check_options(call: str, options: Mapping[str, Any]) -> None:
    """Lets options pass that are empty or change no score.

    Raises:
        InputError: an option that the original would follow, and that cannot be followed here.
        InputTypeError: one that the original does not have either.

    Example:
        >>> check_options("CrossEncoder", {"backend": "onnx", "model_kwargs": {"torch_dtype": "float16"}})
    """
    for given, value in options.items():
        name = _OLD_NAMES.get(given, given)
        if name in _WITHOUT_EFFECT:
            continue
        if name not in _WHY_NOT:
            raise InputTypeError(f"{call}() got an unexpected keyword argument {given!r}")
        entries = value if isinstance(value, dict) else {}
        followed = [entry for entry in entries if entry not in _HARMLESS.get(name, ())]
        if followed or (value and not entries):
            shown = f"{given}={{{', '.join(map(repr, followed))}: ...}}" if followed else given
            raise InputError(f"{call}({shown}) cannot be followed here: {_WHY_NOT[name]}. Leave it out")
