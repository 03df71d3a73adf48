"""The original's network in llama.cpp's words: which architecture, with which numbers, and which tensors.

Reads shapes; numbers are read when a tensor is written.

Source of names and keys: ``src/models/*.cpp`` and ``build_pooling`` in ``src/llama-graph.cpp`` of llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ggrank.conversion.heads import Head, read_head
from ggrank.conversion.original import Json, Original, Tensor
from ggrank.conversion.vocabulary import Vocabulary, read_vocabulary
from ggrank.errors import ModelFileError

Tensors = dict[str, Tensor]

_KINDS = ("Model", "ForSequenceClassification", "ForMaskedLM")
_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")
_LEFT_OUT = re.compile(
    r"(cls\.|lm_head\.|decoder\.|.*position_ids$|.*token_type_ids$|.*rotary_emb\.inv_freq$)"
)
"""What computes no score: heads for masked words, and buffers."""
_HEADS = re.compile(r"(pooler|classifier|head|score)\.")


@dataclass(frozen=True)
class Network:
    """What is to be written, but for the file's own name and origin."""

    architecture: str
    keys: Json
    tensors: Tensors
    vocabulary: Vocabulary
    head: Head


@dataclass(frozen=True)
class _Family:
    """How one ``model_type`` of transformers is converted.

    Attributes:
        stem: of its classes' names, such as "Bert" in "BertForSequenceClassification".
        architecture: llama.cpp's name.
        embedding: the name of the matrix of token embeddings.
        keys: the numbers of its shape, from config.json.
        edit: its tensors as llama.cpp's names are looked up for them.
        kinds: of its classes that can be converted.
    """

    stem: str
    architecture: str
    embedding: str
    keys: Callable[[Original, Tensors], Json]
    edit: Callable[[Original, Tensors], Tensors]
    kinds: tuple[str, ...] = _KINDS

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(f"{self.stem}{kind}" for kind in self.kinds)


def read_network(original: Original) -> Network:
    """The whole of an original.

    Raises:
        ModelFileError: the architecture or something in it cannot be converted, or a file is missing.
        ModelModeError: it neither embeds nor reranks.
    """
    family = _family_of(original)
    tensors = _without_prefixes(original.tensors)
    if family.embedding not in tensors:
        raise ModelFileError(
            f"{original.folder} has no tensor {family.embedding!r}; expected the whole model."
        )
    vocabulary = read_vocabulary(original, n_rows=tensors[family.embedding].shape[0])
    head = read_head(original, tensors, vocabulary, architecture=family.architecture)
    tensors = {name: tensor for name, tensor in tensors.items() if not _LEFT_OUT.match(name)}
    network = {name: tensor for name, tensor in tensors.items() if not _HEADS.match(name)}
    keys = {f"{family.architecture}.{name}": value for name, value in family.keys(original, network).items()}
    types = network.get("embeddings.token_type_embeddings.weight")
    if types is not None:
        keys["tokenizer.ggml.token_type_count"] = types.shape[0]
    named = _renamed(family.edit(original, network), family.architecture, original)
    segments = _segment_key(tensors, vocabulary) if head.is_reranker else {}
    return Network(
        family.architecture,
        {**keys, **head.keys(family.architecture), **_own_keys(original, family), **segments},
        {**named, **head.tensors},
        vocabulary,
        head,
    )


def _family_of(original: Original) -> _Family:
    found = (original.config.get("architectures") or [original.config.get("model_type")])[0]
    family = _FAMILIES.get(str(original.config.get("model_type")))
    if family is None or found not in family.classes or original.config.get("moe_every_n_layers"):
        supported = ", ".join(name for family in _FAMILIES.values() for name in family.classes)
        raise ModelFileError(
            f"{original.name} has the architecture {found} ({original.config.get('model_type')}), which "
            f"'ggrank convert' does not write; it writes {supported}. For others there is llama.cpp's "
            "convert_hf_to_gguf.py."
        )
    return family


def _without_prefixes(tensors: Tensors) -> Tensors:
    """Names as the bare network has them, and not as part of a model with a head."""
    clean: Tensors = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^(bert|roberta|model)\.", "", name)
        clean[
            name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        ] = tensor
    return clean


def _renamed(tensors: Tensors, architecture: str, original: Original) -> Tensors:
    """Under llama.cpp's names, as the package ``gguf`` lists them."""
    import gguf

    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(arch, 1 + max(map(_layer, tensors)))
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ModelFileError(
                f"{original.name} has a tensor {name!r}, for which llama.cpp's {architecture} has no place: "
                "its code differs from the architecture that it names, and its scores would be wrong."
            )
        renamed[target] = tensor
    return renamed


def _layer(name: str) -> int:
    found = re.search(r"layers?\.(\d+)\.", name)
    return int(found[1]) if found else 0


def _own_keys(original: Original, family: _Family) -> Json:
    """What llama.cpp has no key for: it computes every GELU by one formula, another engine can do either."""
    if family.architecture != "bert":
        return {}
    return {"ggrank.gelu": "tanh" if original.config.get("hidden_act") in _TANH else "erf"}


def _segment_key(tensors: Tensors, vocabulary: Vocabulary) -> Json:
    """A note where the type rows differ but the original's pairs have one type."""
    types = tensors.get("embeddings.token_type_embeddings.weight")
    if types is None or vocabulary.gives_types or types.shape[0] < 2:
        return {}
    rows = types.load()
    return {} if np.array_equal(rows[0], rows[1]) else {"ggrank.segment_ids": False}


# -- numbers of a shape


def _config(original: Original, name: str, *others: str, default: Any = None) -> Any:
    """A setting under the first of its names that config.json has."""
    for key in (name, *others):
        if original.config.get(key) is not None:
            return original.config[key]
    if default is None:
        raise ModelFileError(f"{original.folder / 'config.json'} lacks {name!r}: save the model again.")
    return default


def _need(original: Original, name: str, allowed: tuple[Any, ...]) -> None:
    """Refuses what llama.cpp computes otherwise; a setting that is left out is the usual one."""
    value = original.config.get(name)
    if value is not None and value not in allowed:
        raise ModelFileError(
            f"{original.name} has {name}={value!r}, which llama.cpp does not compute; expected "
            f"{' or '.join(repr(one) for one in allowed)}."
        )


def _sizes(original: Original) -> Json:
    return {
        "block_count": _config(original, "num_hidden_layers", "n_layer"),
        "embedding_length": _config(original, "hidden_size", "n_embd"),
        "feed_forward_length": _config(original, "intermediate_size", "n_inner"),
        "attention.head_count": _config(original, "num_attention_heads", "n_head"),
    }


def _rope_base(original: Original, *, kind: str = "", old: str, default: float) -> float:
    """The base of rotary positions, where transformers 5 keeps it or as an older one did."""
    rope: Json = original.config.get("rope_parameters") or original.config.get("rope_scaling") or {}
    rope = rope.get(kind) or rope
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ModelFileError(
            f"{original.name} scales its rotary positions ({rope}), which 'ggrank convert' does not write; "
            "take that out of config.json to convert it for texts as long as in its first training."
        )
    return float(rope.get("rope_theta") or original.config.get(old) or default)


def _bert_keys(original: Original, tensors: Tensors) -> Json:
    _need(original, "hidden_act", ("gelu", *_TANH))
    _need(original, "position_embedding_type", ("absolute",))
    _need(original, "is_decoder", (False,))
    n_positions = tensors["embeddings.position_embeddings.weight"].shape[0]
    return {
        **_sizes(original),
        "context_length": n_positions - _first_position(original),
        "attention.layer_norm_epsilon": float(_config(original, "layer_norm_eps", default=1e-12)),
        "attention.causal": False,
    }


def _first_position(original: Original) -> int:
    """XLM-R's first position is the one after its padding token's number."""
    is_xlmr = original.config.get("model_type") == "xlm-roberta"
    return 1 + int(_config(original, "pad_token_id", default=1)) if is_xlmr else 0


def _modernbert_keys(original: Original, tensors: Tensors) -> Json:
    for name in ("norm_bias", "attention_bias", "mlp_bias"):
        _need(original, name, (False,))
    _need(original, "classifier_activation", ("gelu",))
    _need(original, "hidden_activation", ("gelu", "silu", *_TANH))
    activation = original.config.get("hidden_activation", "gelu")
    bases = {"rope.freq_base": ("full_attention", "global_rope_theta", 160_000.0)}
    bases["rope.freq_base_swa"] = ("sliding_attention", "local_rope_theta", 10_000.0)
    return {
        **_sizes(original),
        "context_length": _config(original, "max_position_embeddings"),
        "vocab_size": tensors["embeddings.tok_embeddings.weight"].shape[0],
        "attention.layer_norm_epsilon": float(_config(original, "norm_eps", default=1e-5)),
        "attention.causal": False,
        "attention.sliding_window": _config(original, "local_attention"),
        "attention.sliding_window_pattern": _global_every(original),
        "rope.scaling.type": "none",
        "hidden_activation": "gelu" if activation in _TANH else activation,
        **{
            name: _rope_base(original, kind=kind, old=old, default=base)
            for name, (kind, old, base) in bases.items()
        },
    }


def _global_every(original: Original) -> int:
    """One layer in so many looks at the whole text: the first, and every such one after it."""
    kinds = original.config.get("layer_types")
    if not kinds:
        return int(_config(original, "global_attn_every_n_layers", default=3))
    every = next((i for i, kind in enumerate(kinds) if i and kind == "full_attention"), len(kinds))
    if [kind == "full_attention" for kind in kinds] != [i % every == 0 for i in range(len(kinds))]:
        raise ModelFileError(f"{original.name} mixes its layers in a way that llama.cpp does not: {kinds}")
    return every


def _nomic_keys(original: Original, tensors: Tensors) -> Json:
    for name in (
        "qkv_proj_bias",
        "mlp_fc1_bias",
        "mlp_fc2_bias",
        "prenorm",
        "causal",
        "rotary_emb_interleaved",
    ):
        _need(original, name, (False,))
    _need(original, "activation_function", ("swiglu",))
    _need(original, "hidden_act", ("silu",))
    _need(original, "rotary_emb_fraction", (1.0,))
    positions = int(_config(original, "max_position_embeddings", "n_positions"))
    trained = int(original.config.get("max_trained_positions") or (2048 if positions == 8192 else positions))
    return {
        **_sizes(original),
        "context_length": min(positions, trained),
        "attention.layer_norm_epsilon": float(
            _config(original, "layer_norm_eps", "layer_norm_epsilon", default=1e-12)
        ),
        "attention.causal": False,
        "rope.freq_base": _rope_base(original, old="rotary_emb_base", default=1000.0),
    }


def _qwen3_keys(original: Original, tensors: Tensors) -> Json:
    _need(original, "attention_bias", (False,))
    _need(original, "use_sliding_window", (False,))
    _need(original, "hidden_act", ("silu",))
    n_heads = int(_config(original, "num_attention_heads"))
    width = int(_config(original, "head_dim", default=int(_config(original, "hidden_size")) // n_heads))
    return {
        **_sizes(original),
        "context_length": _config(original, "max_position_embeddings"),
        "attention.head_count_kv": _config(original, "num_key_value_heads", default=n_heads),
        "attention.key_length": width,
        "attention.value_length": width,
        "attention.layer_norm_rms_epsilon": float(_config(original, "rms_norm_eps", default=1e-6)),
        "rope.freq_base": _rope_base(original, old="rope_theta", default=10_000.0),
    }


# -- tensors


def _bert_tensors(original: Original, tensors: Tensors) -> Tensors:
    """The position table begins with the first used position."""
    first, name = _first_position(original), "embeddings.position_embeddings.weight"
    table = tensors[name]
    used = Tensor((table.shape[0] - first, *table.shape[1:]), lambda: table.load()[first:])
    return {**tensors, name: used}


def _nomic_tensors(original: Original, tensors: Tensors) -> Tensors:
    """Under the names of nomic's own code, with queries, keys and values in one matrix."""
    names = {
        "embeddings.LayerNorm": "emb_ln",
        "self_attn.o_proj": "attn.out_proj",
        "mlp.up_proj": "mlp.fc11",
        "mlp.gate_proj": "mlp.fc12",
        "mlp.down_proj": "mlp.fc2",
        "post_attention_layernorm": "norm1",
        "post_mlp_layernorm": "norm2",
    }
    out: Tensors = {}
    for name, tensor in tensors.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        out[f"encoder.{name}" if name.startswith("layers.") else name] = tensor
    for name in [name for name in out if "self_attn.q_proj" in name]:
        parts = [out.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        out[name.replace("self_attn.q_proj", "attn.Wqkv")] = _stacked(parts)
    return out


def _stacked(parts: list[Tensor]) -> Tensor:
    n_rows = sum(part.shape[0] for part in parts)
    return Tensor((n_rows, *parts[0].shape[1:]), lambda: np.concatenate([part.load() for part in parts]))


def _qwen3_tensors(original: Original, tensors: Tensors) -> Tensors:
    return {f"model.{name}": tensor for name, tensor in tensors.items()}


def _unchanged(original: Original, tensors: Tensors) -> Tensors:
    return tensors


_BERT_TABLE = "embeddings.word_embeddings.weight"
_BERT = _Family("Bert", "bert", _BERT_TABLE, _bert_keys, _bert_tensors)
_FAMILIES = {
    "bert": _BERT,
    "xlm-roberta": replace(_BERT, stem="XLMRoberta"),
    "modernbert": _Family(
        "ModernBert", "modern-bert", "embeddings.tok_embeddings.weight", _modernbert_keys, _unchanged
    ),
    "nomic_bert": _Family("NomicBert", "nomic-bert", _BERT_TABLE, _nomic_keys, _nomic_tensors, ("Model",)),
    "qwen3": _Family(
        "Qwen3", "qwen3", "embed_tokens.weight", _qwen3_keys, _qwen3_tensors, ("Model", "ForCausalLM")
    ),
}
