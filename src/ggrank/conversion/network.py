"""The model's network in llama.cpp's terms: the architecture, its numbers, and the names of its tensors.

Source of names and keys: ``src/models/*.cpp`` and ``build_pooling`` in ``src/llama-graph.cpp`` of llama.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ggrank.conversion.heads import read_head
from ggrank.conversion.original import Json, Original, Tensor, Tensors, read_tensors
from ggrank.conversion.vocabulary import gives_types, read_tokenizer, vocabulary_keys
from ggrank.errors import ModelFileError
from ggrank.types import PoolingType

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")
_UNUSED = re.compile(r"(cls\.|lm_head\.|decoder\.|.*position_ids$|.*token_type_ids$|.*rotary_emb\.inv_freq$)")
"""Tensors that no score depends on: heads for masked words, and buffers."""
_HEADS = re.compile(r"(pooler|classifier|head|score)\.")
_TYPES = "embeddings.token_type_embeddings.weight"
_NOMIC_NAMES = {
    "embeddings.LayerNorm": "emb_ln",
    "self_attn.o_proj": "attn.out_proj",
    "mlp.up_proj": "mlp.fc11",
    "mlp.gate_proj": "mlp.fc12",
    "mlp.down_proj": "mlp.fc2",
    "post_attention_layernorm": "norm1",
    "post_mlp_layernorm": "norm2",
}
"""transformers' names of nomic-bert's tensors, and those of nomic's own code, which ``gguf`` knows."""


@dataclass(frozen=True)
class Network:
    """Everything that is written, except the file's own name and origin."""

    architecture: str
    keys: Json
    tensors: Tensors
    tokenizer: Tokenizer

    def fact(self, name: str) -> Any:
        """One of the architecture's keys, such as "context_length"."""
        return self.keys[f"{self.architecture}.{name}"]

    @property
    def is_reranker(self) -> bool:
        """Whether it scores pairs."""
        return bool(self.fact("pooling_type") == PoolingType.RANK)

    @property
    def is_language_model(self) -> bool:
        """Whether it is a reranker that reads a pair in a template, and answers "yes" or "no"."""
        return "tokenizer.chat_template.rerank" in self.keys


@dataclass(frozen=True)
class _Family:
    """How one ``model_type`` of transformers is converted."""

    classes: str
    """Names in config.json, separated by spaces."""
    architecture: str
    """llama.cpp's name."""
    embedding: str
    """The name of the matrix of token embeddings."""
    keys: Callable[[Original, Tensors], Json]
    """The numbers of its shape, from config.json."""
    edit: Callable[[Original, Tensors], Tensors] = lambda _, tensors: tensors
    """Changes its tensors to those that ``gguf`` has names for."""


def read_network(original: Original) -> Network:
    """The whole model; an error if something in it cannot be converted."""
    family = _family_of(original)
    architecture, tensors = family.architecture, _without_prefixes(read_tensors(original.folder))
    if family.embedding not in tensors:
        raise ModelFileError(
            f"{original.folder} has no tensor {family.embedding!r}; expected the whole model."
        )
    tokenizer = read_tokenizer(original)
    head_keys, head = read_head(original, tensors, tokenizer, architecture=architecture)
    body = {name: one for name, one in tensors.items() if not (_UNUSED.match(name) or _HEADS.match(name))}
    keys = {f"{architecture}.{name}": value for name, value in family.keys(original, body).items()}
    if _TYPES in body:
        keys["tokenizer.ggml.token_type_count"] = body[_TYPES].shape[0]
    keys |= head_keys
    if architecture == "bert":
        # llama.cpp computes every GELU by one formula; the OpenVINO engine can compute either.
        keys["ggrank.gelu"] = "tanh" if original.config.get("hidden_act") in _TANH else "erf"
    if head and _has_unused_segment(body, tokenizer, original):
        keys["ggrank.segment_ids"] = False
    keys |= vocabulary_keys(original, tokenizer, n_rows=tensors[family.embedding].shape[0])
    named = _renamed(family.edit(original, body), architecture, original)
    return Network(architecture, keys, {**named, **head}, tokenizer)


def _family_of(original: Original) -> _Family:
    found = (original.config.get("architectures") or [original.config.get("model_type")])[0]
    family = _FAMILIES.get(str(original.config.get("model_type")))
    if family is None or found not in family.classes.split() or original.config.get("moe_every_n_layers"):
        supported = ", ".join(name for family in _FAMILIES.values() for name in family.classes.split())
        raise ModelFileError(
            f"{original.name} has the architecture {found} ({original.config.get('model_type')}), which "
            f"'ggrank convert' does not write; it writes {supported}. For others there is llama.cpp's "
            "convert_hf_to_gguf.py."
        )
    return family


def _without_prefixes(tensors: Tensors) -> Tensors:
    """The tensors under the names that they have in the model without a head."""
    plain: Tensors = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^(bert|roberta|model)\.", "", name)
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        plain[name] = tensor
    return plain


def _renamed(tensors: Tensors, architecture: str, original: Original) -> Tensors:
    """Under llama.cpp's names, as the package ``gguf`` lists them."""
    import gguf

    arch = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    layers = (re.search(r"layers?\.(\d+)\.", name) for name in tensors)
    names = gguf.get_tensor_name_map(arch, 1 + max(int(found[1]) if found else 0 for found in layers))
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


def _has_unused_segment(tensors: Tensors, tokenizer: Tokenizer, original: Original) -> bool:
    """Whether the rows of token types differ, but the original's tokenizer gives pairs one type alone."""
    if _TYPES not in tensors or tensors[_TYPES].shape[0] < 2 or gives_types(tokenizer, original):
        return False
    rows = tensors[_TYPES].load()
    return not np.array_equal(rows[0], rows[1])


# -- numbers of a shape


def _config(original: Original, name: str, *others: str, default: Any = None) -> Any:
    """A setting under the first of its names that config.json has."""
    for key in (name, *others):
        if original.config.get(key) is not None:
            return original.config[key]
    if default is None:
        raise ModelFileError(f"{original.folder / 'config.json'} lacks {name!r}: save the model again.")
    return default


def _need(original: Original, **allowed: tuple[Any, ...]) -> None:
    """Refuses settings with which llama.cpp computes something else."""
    for name, values in allowed.items():
        found = original.config.get(name)
        if found is not None and found not in values:
            raise ModelFileError(
                f"{original.name} has {name}={found!r}, which llama.cpp does not compute; expected "
                f"{' or '.join(repr(value) for value in values)}."
            )


def _sizes(original: Original) -> Json:
    return {
        "block_count": _config(original, "num_hidden_layers", "n_layer"),
        "embedding_length": _config(original, "hidden_size", "n_embd"),
        "feed_forward_length": _config(original, "intermediate_size", "n_inner"),
        "attention.head_count": _config(original, "num_attention_heads", "n_head"),
    }


def _rope_base(original: Original, old: str, default: float, *, layer_type: str = "") -> float:
    """The base of rotary positions, under transformers 5's name or an ``old`` one."""
    rope: Json = original.config.get("rope_parameters") or original.config.get("rope_scaling") or {}
    rope = rope.get(layer_type) or rope
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ModelFileError(
            f"{original.name} scales its rotary positions ({rope}), which 'ggrank convert' does not write; "
            "take that out of config.json to convert it for texts as long as in its first training."
        )
    return float(rope.get("rope_theta") or original.config.get(old) or default)


def _bert_keys(original: Original, tensors: Tensors) -> Json:
    _need(original, hidden_act=("gelu", *_TANH), position_embedding_type=("absolute",), is_decoder=(False,))
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
    _need(original, norm_bias=(False,), attention_bias=(False,), mlp_bias=(False,))
    _need(original, classifier_activation=("gelu",), hidden_activation=("gelu", "silu", *_TANH))
    activation = original.config.get("hidden_activation", "gelu")
    base, window_base = (
        _rope_base(original, "global_rope_theta", 160_000.0, layer_type="full_attention"),
        _rope_base(original, "local_rope_theta", 10_000.0, layer_type="sliding_attention"),
    )
    return {
        **_sizes(original),
        "context_length": _config(original, "max_position_embeddings"),
        "vocab_size": tensors["embeddings.tok_embeddings.weight"].shape[0],
        "attention.layer_norm_epsilon": float(_config(original, "norm_eps", default=1e-5)),
        "attention.causal": False,
        "attention.sliding_window": _config(original, "local_attention"),
        "attention.sliding_window_pattern": _full_attention_period(original),
        "rope.scaling.type": "none",
        "hidden_activation": "gelu" if activation in _TANH else activation,
        "rope.freq_base": base,
        "rope.freq_base_swa": window_base,
    }


def _full_attention_period(original: Original) -> int:
    """Layers from one that reads the whole text to the next one; the first layer is such a one."""
    layer_types = original.config.get("layer_types")
    if not layer_types:
        return int(_config(original, "global_attn_every_n_layers", default=3))
    is_full = [layer_type == "full_attention" for layer_type in layer_types]
    period = next((i for i in range(1, len(is_full)) if is_full[i]), len(is_full))
    if is_full != [i % period == 0 for i in range(len(is_full))]:
        raise ModelFileError(
            f"{original.name} mixes its layers in a way that llama.cpp does not: {layer_types}"
        )
    return period


def _nomic_keys(original: Original, tensors: Tensors) -> Json:
    _need(original, qkv_proj_bias=(False,), mlp_fc1_bias=(False,), mlp_fc2_bias=(False,), prenorm=(False,))
    _need(original, causal=(False,), rotary_emb_interleaved=(False,), rotary_emb_fraction=(1.0,))
    _need(original, activation_function=("swiglu",), hidden_act=("silu",))
    positions = int(_config(original, "max_position_embeddings", "n_positions"))
    trained = int(original.config.get("max_trained_positions") or (2048 if positions == 8192 else positions))
    epsilon = _config(original, "layer_norm_eps", "layer_norm_epsilon", default=1e-12)
    return {
        **_sizes(original),
        "context_length": min(positions, trained),
        "attention.layer_norm_epsilon": float(epsilon),
        "attention.causal": False,
        "rope.freq_base": _rope_base(original, "rotary_emb_base", 1000.0),
    }


def _qwen3_keys(original: Original, tensors: Tensors) -> Json:
    _need(original, attention_bias=(False,), use_sliding_window=(False,), hidden_act=("silu",))
    n_heads = int(_config(original, "num_attention_heads"))
    width = int(_config(original, "head_dim", default=int(_config(original, "hidden_size")) // n_heads))
    return {
        **_sizes(original),
        "context_length": _config(original, "max_position_embeddings"),
        "attention.head_count_kv": _config(original, "num_key_value_heads", default=n_heads),
        "attention.key_length": width,
        "attention.value_length": width,
        "attention.layer_norm_rms_epsilon": float(_config(original, "rms_norm_eps", default=1e-6)),
        "rope.freq_base": _rope_base(original, "rope_theta", 10_000.0),
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
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        for new, old in _NOMIC_NAMES.items():
            name = name.replace(new, old)
        renamed[f"encoder.{name}" if name.startswith("layers.") else name] = tensor
    for name in [name for name in renamed if "self_attn.q_proj" in name]:
        three = [renamed.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        renamed[name.replace("self_attn.q_proj", "attn.Wqkv")] = _stacked(three)
    return renamed


def _stacked(tensors: list[Tensor]) -> Tensor:
    n_rows = sum(tensor.shape[0] for tensor in tensors)
    return Tensor((n_rows, *tensors[0].shape[1:]), lambda: np.concatenate([one.load() for one in tensors]))


def _qwen3_tensors(_original: Original, tensors: Tensors) -> Tensors:
    return {f"model.{name}": tensor for name, tensor in tensors.items()}


_WORDS = "embeddings.word_embeddings.weight"
_BERT = _Family(
    "BertModel BertForSequenceClassification BertForMaskedLM", "bert", _WORDS, _bert_keys, _bert_tensors
)
_FAMILIES = {
    "bert": _BERT,
    "xlm-roberta": replace(_BERT, classes=_BERT.classes.replace("Bert", "XLMRoberta")),
    "modernbert": _Family(
        _BERT.classes.replace("Bert", "ModernBert"),
        "modern-bert",
        "embeddings.tok_embeddings.weight",
        _modernbert_keys,
    ),
    "nomic_bert": _Family("NomicBertModel", "nomic-bert", _WORDS, _nomic_keys, _nomic_tensors),
    "qwen3": _Family(
        "Qwen3Model Qwen3ForCausalLM", "qwen3", "embed_tokens.weight", _qwen3_keys, _qwen3_tensors
    ),
}
