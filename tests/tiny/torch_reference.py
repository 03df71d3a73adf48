"""The originals: tokenizers of the ``tokenizers`` package, models of ``transformers`` with the tiny weights.

Used by ``scripts/make_goldens.py`` and the parity tests only; needs torch and transformers. Every sequence is
computed alone, in float32, with plain ("eager") attention.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer, processors

from tiny import goldens, models, texts, vocab
from tiny.goldens import Golden
from tiny.jina_reference import JinaReranker
from tiny.models import TinyModel
from tiny.templates import RERANK_TEMPLATE

SEGMENT_KINDS = tuple(kind for kind in models.KINDS if "segments" in kind)


class Reference:
    """One tiny model in torch.

    ``outputs`` are logits, shape (n, 1), for a reranker (for Qwen3 the probability of "yes", as its card
    computes it), and pooled vectors, shape (n, n_embd), not normalised, for an embedder.
    """

    def __init__(self, model: TinyModel, *, n_ctx: int | None = None) -> None:
        self._model = model
        self._n_ctx = n_ctx or model.shape.max_position_embeddings
        self._tokenizer = load_tokenizer(model.tokenizer)
        self._network = _network(model)

    def pair(self, query: str, document: str) -> tuple[list[int], list[int]]:
        """Token ids and token types of a pair; a long document is cut ("only_second")."""
        if self._model.family == "qwen3":
            ids = self._template(query, document)
            return ids, [0] * len(ids)
        self._tokenizer.enable_truncation(self._n_ctx, strategy="only_second")
        encoded = self._tokenizer.encode(query, document)
        return list(encoded.ids), list(encoded.type_ids)

    def text(self, text: str) -> tuple[list[int], list[int]]:
        """Token ids and token types of one text, cut at ``n_ctx``."""
        self._tokenizer.enable_truncation(self._n_ctx)
        encoded = self._tokenizer.encode(text)
        return list(encoded.ids), list(encoded.type_ids)

    def cut_pair(self, query: str, document: str) -> tuple[list[int], list[int]]:
        """The same where the query may be too long as well: it keeps three quarters of ``n_ctx``."""
        first, second = self._plain(query), self._plain(document)
        first.truncate(3 * self._n_ctx // 4)
        second.truncate(max(self._n_ctx - 3 - len(first), 0))
        encoded = self._tokenizer.post_process(first, second)
        return list(encoded.ids), list(encoded.type_ids)

    def windows(self, query: str, document: str) -> list[tuple[list[int], list[int]]]:
        """The pairs of a long BERT document: windows that share a quarter; the last ends with the text."""
        cls, sep = (vocab.token_id(self._model.tokenizer, token) for token in ("[CLS]", "[SEP]"))
        head, ids = [cls, *self._plain(query).ids, sep], self._plain(document).ids
        width = self._n_ctx - len(head) - 1
        starts = [*range(0, len(ids) - width, width - width // 4), len(ids) - width]
        tails = [[*ids[start : start + width], sep] for start in starts]
        return [([*head, *tail], [0] * len(head) + [1] * len(tail)) for tail in tails]

    def _plain(self, text: str) -> Encoding:
        self._tokenizer.no_truncation()
        return self._tokenizer.encode(text, add_special_tokens=False)

    @torch.no_grad()
    def outputs(self, sequences: Sequence[tuple[list[int], list[int]]]) -> NDArray[np.float32]:
        rows = [self._network(torch.tensor([ids]), torch.tensor([types]))[0] for ids, types in sequences]
        return torch.stack(rows).numpy()

    def _template(self, query: str, document: str) -> list[int]:
        """As the model card of Qwen3-Reranker does it: the middle is cut, and set in prefix and suffix."""
        start = RERANK_TEMPLATE.index("<Instruct>")
        end = RERANK_TEMPLATE.index("{document}") + len("{document}")
        body = RERANK_TEMPLATE[start:end].replace("{query}", query).replace("{document}", document)
        encode = load_tokenizer("qwen2", special_as_text=False).encode
        prefix, suffix = encode(RERANK_TEMPLATE[:start]).ids, encode(RERANK_TEMPLATE[end:]).ids
        room = self._n_ctx - len(prefix) - len(suffix)
        return [*prefix, *self._tokenizer.encode(body).ids[:room], *suffix]


def golden(model: TinyModel) -> Golden:
    """What the original answers to the committed pairs (a reranker) or texts (an embedder)."""
    reference = Reference(model)
    if model.is_reranker:
        sequences = [reference.pair(query, document) for query, document in goldens.pairs()]
    else:
        sequences = [reference.text(text) for text in goldens.texts()]
    return Golden(ids=[ids for ids, _ in sequences], outputs=reference.outputs(sequences))


def segment_pairs() -> dict[str, list[tuple[str, str]]]:
    """Pairs of every length that fits, pairs of which query and document are cut, and documents of several
    windows; for the kinds with segment ids, which share a tokenizer and ``n_ctx``.
    """
    model = models.build(SEGMENT_KINDS[0])
    reference, n_ctx, query = (
        Reference(model, n_ctx=100_000),
        model.shape.max_position_embeddings,
        "Who may vote?",
    )

    def document(n_tokens: int) -> str:
        return _exact(lambda text: len(reference._plain(text)), n_tokens) if n_tokens else ""

    room = n_ctx - 3 - len(reference._plain(query))
    queries = [query, *(document(n) for n in (95, 96, 97, 125, 200))]
    return {
        "lengths": [(query, document(n)) for n in range(room + 1)],
        "cut": [(query, document(n)) for query in queries for n in (0, 1, 29, 30, 300)],
        "windows": [(query, document(n)) for query in queries[:2] for n in (room + 1, 200, 333, 600)],
    }


def segment_logits(kind: str, pairs: dict[str, list[tuple[str, str]]]) -> dict[str, NDArray[np.float32]]:
    """The logits of each group, and of `goldens.pairs` with every token as segment 0, by ``kind/group``."""
    reference = Reference(models.build(kind))
    without = [(ids, [0] * len(ids)) for ids, _ in starmap(reference.pair, goldens.pairs())]
    groups = {
        "lengths": reference.outputs(list(starmap(reference.cut_pair, pairs["lengths"])))[:, 0],
        "cut": reference.outputs(list(starmap(reference.cut_pair, pairs["cut"])))[:, 0],
        "windows": np.array([reference.outputs(reference.windows(*p)).max() for p in pairs["windows"]]),
        "without": reference.outputs(without)[:, 0],
    }
    return {f"{kind}/{group}": logits.astype(np.float32) for group, logits in groups.items()}


def exact_pairs(model: TinyModel) -> list[tuple[str, str]]:
    """Pairs of ``n_ctx - 1``, ``n_ctx`` and ``n_ctx + 1`` tokens; none for an embedder."""
    if not model.is_reranker:
        return []
    reference, query = Reference(model, n_ctx=100_000), "Who may vote?"
    n_ctx = model.shape.max_position_embeddings
    lengths = range(n_ctx - 1, n_ctx + 2)
    return [(query, _exact(lambda text: len(reference.pair(query, text)[0]), n)) for n in lengths]


def exact_texts(model: TinyModel) -> list[str]:
    """The same for single texts; none for a reranker."""
    if model.is_reranker:
        return []
    reference = Reference(model, n_ctx=100_000)
    n_ctx = model.shape.max_position_embeddings
    return [_exact(lambda text: len(reference.text(text)[0]), n) for n in range(n_ctx - 1, n_ctx + 2)]


def _exact(count: Callable[[str], int], n_tokens: int) -> str:
    """A text of exactly so many tokens: one of many beginnings grows until it has them, or passes them."""
    for seed in range(100):
        for text in texts.growing(seed):
            n = count(text)
            if n == n_tokens:
                return text
            if n > n_tokens:
                break
    raise ValueError(f"no text of {n_tokens} tokens found")


def load_tokenizer(name: str, *, special_as_text: bool = True) -> Tokenizer:
    """The committed tokenizer.

    ``special_as_text``: a special token's text is text like any other, which ggrank promises of documents.
    """
    file = "qwen2" if name == "qwen3-embedding" else name
    data = json.loads((Path(__file__).parent / f"{file}.json").read_text("utf-8"))
    if special_as_text and data["model"]["type"] == "Unigram":
        data = _unmatched(data)
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.encode_special_tokens = special_as_text
    if name == "qwen3-embedding":
        end = ("<|endoftext|>", vocab.token_id("qwen2", "<|endoftext|>"))
        template = processors.TemplateProcessing
        tokenizer.post_processor = template(single="$A <|endoftext|>", special_tokens=[end])
    return tokenizer


def _unmatched(data: dict[str, Any]) -> dict[str, Any]:
    """The special tokens under names that no text has; sentencepiece never finds control symbols in a text,
    but ``tokenizers`` keeps them among the unigram pieces, and finds them.
    """
    special = {added["content"] for added in data["added_tokens"]}
    pieces = [
        [f"\U0010fffd{piece}" if piece in special else piece, score]
        for piece, score in data["model"]["vocab"]
    ]
    return {**data, "added_tokens": [], "model": {**data["model"], "vocab": pieces}}


Network = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _network(model: TinyModel) -> Network:
    families: dict[str, Callable[[TinyModel], Network]] = {
        "bert": _bert,
        "xlmr": _xlmr,
        "modernbert": _modernbert,
        "qwen3": _qwen3,
        "nomic": _nomic,
        "jina": _jina,
    }
    return families[model.family](model)


def _bert(model: TinyModel) -> Network:
    config = transformers.BertConfig(**_sizes(model), layer_norm_eps=1e-12)
    if not model.is_reranker:
        network = _loaded(transformers.BertModel(config, add_pooling_layer=False), model)
        return lambda ids, types: _pooled(network(input_ids=ids, token_type_ids=types), model)
    network = _loaded(transformers.BertForSequenceClassification(config), model, prefix="bert.")
    return lambda ids, types: network(input_ids=ids, token_type_ids=types).logits


def _xlmr(model: TinyModel) -> Network:
    sizes = _sizes(model) | {"max_position_embeddings": model.shape.max_position_embeddings + 2}
    special = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = transformers.XLMRobertaConfig(**sizes, **special, layer_norm_eps=1e-5)
    if not model.is_reranker:
        network = _loaded(transformers.XLMRobertaModel(config, add_pooling_layer=False), model)
        return lambda ids, _types: _pooled(network(input_ids=ids), model)
    network = _loaded(transformers.XLMRobertaForSequenceClassification(config), model, prefix="roberta.")
    return lambda ids, _types: network(input_ids=ids).logits


def _modernbert(model: TinyModel) -> Network:
    sizes = _sizes(model)
    del sizes["type_vocab_size"]
    roles = {"pad": "[PAD]", "bos": "[CLS]", "cls": "[CLS]", "eos": "[SEP]", "sep": "[SEP]"}
    special = {f"{role}_token_id": vocab.token_id(model.tokenizer, token) for role, token in roles.items()}
    config = transformers.ModernBertConfig(
        **sizes,
        **special,
        local_attention=32,
        global_attn_every_n_layers=3,
        classifier_pooling=model.classifier_pooling,
    )
    network = _loaded(transformers.ModernBertForSequenceClassification(config), model)
    return lambda ids, _types: network(input_ids=ids).logits


def _qwen3(model: TinyModel) -> Network:
    sizes = _sizes(model)
    del sizes["type_vocab_size"]
    config = transformers.Qwen3Config(
        **sizes,
        num_key_value_heads=model.shape.num_key_value_heads,
        head_dim=model.shape.head_dim,
        rope_parameters={"rope_type": "default", "rope_theta": 1_000_000.0},
        tie_word_embeddings=True,
    )
    network = transformers.Qwen3ForCausalLM(config)
    head = {"lm_head.weight": model.weights["model.embed_tokens.weight"]}
    network = _loaded(network, model, extra=head)
    if not model.is_reranker:
        return lambda ids, _types: network.model(input_ids=ids).last_hidden_state[:, -1]
    yes, no = (vocab.token_id("qwen2", label) for label in ("yes", "no"))

    def probability(ids: torch.Tensor, _types: torch.Tensor) -> torch.Tensor:
        last = network(input_ids=ids).logits[:, -1, :]
        both = torch.stack([last[:, no], last[:, yes]], dim=1)
        return torch.nn.functional.log_softmax(both, dim=1)[:, 1:].exp()

    return probability


def _nomic(model: TinyModel) -> Network:
    config = transformers.NomicBertConfig(**_sizes(model), layer_norm_eps=1e-12)
    network = _loaded(transformers.NomicBertModel(config, add_pooling_layer=False), model)
    return lambda ids, types: _pooled(network(input_ids=ids, token_type_ids=types), model)


def _jina(model: TinyModel) -> Network:
    shape = model.shape
    sizes = (shape.vocab_size, shape.type_vocab_size, shape.hidden_size, shape.intermediate_size)
    network = JinaReranker(*sizes, n_layers=shape.num_hidden_layers, n_heads=shape.num_attention_heads)
    network = _loaded(network, model)
    return lambda ids, _types: network(ids)


def _sizes(model: TinyModel) -> dict[str, Any]:
    shape = model.shape
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    sizes: dict[str, Any] = {name: getattr(shape, name) for name in names}
    sizes["max_position_embeddings"] = shape.max_position_embeddings
    sizes["type_vocab_size"] = shape.type_vocab_size
    sizes["attn_implementation"] = "eager"
    if model.is_reranker and model.family != "qwen3":
        sizes["num_labels"] = len(model.labels)
    return sizes


def _loaded(network: Any, model: TinyModel, *, prefix: str = "", extra: dict[str, Any] | None = None) -> Any:
    """The network with every one of the tiny weights, and with none left over ("strict")."""
    weights = {**model.weights, **(extra or {})}
    named = {name if name.startswith("classifier") else prefix + name: a for name, a in weights.items()}
    state = {name: torch.from_numpy(array.copy()) for name, array in named.items()}
    network.load_state_dict(state, strict=True)
    return network.eval()


def _pooled(output: Any, model: TinyModel) -> torch.Tensor:
    states: torch.Tensor = output.last_hidden_state
    return states.mean(dim=1) if model.pooling == "mean" else states[:, 0]
