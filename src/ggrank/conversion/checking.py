"""Compares a written file with its original: tokens, and on demand scores, with sentence-transformers."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from ggrank.conversion.heads import RERANK_TEMPLATE
from ggrank.conversion.network import Network
from ggrank.conversion.original import Floats, Original
from ggrank.errors import GgrankWarning, InputError, ModelFileError
from ggrank.llama import Llama
from ggrank.loading.heads import YES_LABELS
from ggrank.types import Mode

N_COMPARED = 100

LEAST_COSINE = {"f32": 0.9999, "f16": 0.9999, "q8_0": 0.995, "q4_k_m": 0.93}
"""Of each vector with the original's; docs/convert.md has the measurements."""

LEAST_CORRELATION = {"f32": 0.9999, "f16": 0.999, "q8_0": 0.99, "q4_k_m": 0.95}
"""Spearman's, of a reranker's scores with the original's."""

TEXTS = (
    "Hello, World! It's the 3rd of May, 2024.",
    "naïve café Ångström e\u0301 résumé coöperate",
    "  two  spaces\tand\na line  ",
    "print(f'{x:>10.3f}') != 0x1F4A9 && foo_bar->baz[42];",
    "user@example.com https://example.com/a?b=c&d=1 50% $9.99",
    "Владимир читает книгу про поезда.",
    "東京は日本の首都です。北京是中国的首都。",
    "서울은 대한민국의 수도이다.",
    "القاهرة عاصمة مصر",
    "नई दिल्ली भारत की राजधानी है",
    "ΑΘΗΝΑ είναι η πρωτεύουσα ﬁnal ½ ™ …",
    "🙂 👩‍🚀 fußball STRASSE İstanbul",
)
"""Texts of many scripts, which tokenizers split in different ways."""

_PASSAGES = Path(__file__).parent.parent / "cli" / "demo_passages.jsonl"


@dataclass(frozen=True)
class Comparison:
    """The differences between a file and its original."""

    what: Literal["vector", "logit"]
    n: int
    deviation: float
    """The largest: 1 less the cosine of an embedder's vectors, or the difference of logits."""
    correlation: float
    """Spearman's, of logits; of the cosines of all texts with each other for an embedder."""
    is_near: bool
    """Whether that is no more than the format's own noise."""


def require_originals() -> None:
    """Raises InputError if the packages that compute originals are missing."""
    if missing := [name for name in ("torch", "sentence_transformers") if find_spec(name) is None]:
        raise InputError(
            f"check computes the original as well, which needs {' and '.join(missing)}: "
            "pip install sentence-transformers"
        )


def check_file(
    path: Path, original: Original, network: Network, *, quantization: str, compare: bool
) -> Comparison | None:
    """Loads a file and computes with it; compares tokens, and with ``compare`` scores or vectors.

    Raises:
        ModelFileError: its tokens are not the original's, or its scores are too far from them.
    """
    with warnings.catch_warnings():
        # Users see the warnings when they load the file; texts of many scripts are compared here on purpose.
        warnings.simplefilter("ignore", GgrankWarning)
        with Llama.load(path) as llama:
            _compare_tokens(llama, network, original)
            if llama.mode is Mode.RERANK:
                llama.score_pairs(_pairs()[:2])
            else:
                llama.embed_many(_texts()[:2])
            found = _compare(llama, original, network, quantization) if compare else None
    if found is not None and not found.is_near:
        raise ModelFileError(
            f"{original.name} as {quantization} differs from the original by more than this format's noise: "
            f"of {found.n} {found.what}s one is {found.deviation:.2g} off, and the rank correlation is "
            f"{found.correlation:.4f}. Nothing was written. Try --quantize f32: if that passes, the model "
            "suffers from quantization; if not, this is an error of ggrank's."
        )
    return found


def _texts() -> list[str]:
    """Texts of many scripts, passages, and their sentences."""
    passages = _passages()
    return [*TEXTS, *passages, *(one for text in passages for one in _sentences(text))][:N_COMPARED]


def _pairs() -> list[tuple[str, str]]:
    """Each of ten passages' first sentences with ten passages, its own among them."""
    passages = _passages()
    queries = [_sentences(text)[0] for text in passages[:10]]
    return [
        (query, passages[(i + 3 * turn) % len(passages)])
        for turn in range(N_COMPARED // len(queries))
        for i, query in enumerate(queries)
    ]


def _passages() -> list[str]:
    return [json.loads(line)["text"] for line in _PASSAGES.read_text("utf-8").splitlines()]


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) ", text)


def _compare_tokens(llama: Llama, network: Network, original: Original) -> None:
    network.tokenizer.encode_special_tokens = True
    for text in _texts():
        expected = network.tokenizer.encode(text, add_special_tokens=False).ids
        found = llama.tokenize(text).tolist()
        if found != expected:
            raise ModelFileError(
                f"{original.name} splits text in a way that llama.cpp does not know: expected the tokens "
                f"{expected[:8]} for {text!r}, found {found[:8]}. "
                "Its scores would be wrong; nothing was written."
            )


def _compare(llama: Llama, original: Original, network: Network, quantization: str) -> Comparison:
    if llama.mode is Mode.RERANK:
        pairs = _short_enough(_pairs(), network, llama.n_ctx)
        theirs, ours = _original_scores(original, network, pairs), llama.score_pairs(pairs)
        deviation, correlation = float(np.abs(ours - theirs).max()), spearman(ours, theirs)
        is_near = correlation >= LEAST_CORRELATION[quantization]
        return Comparison("logit", len(ours), deviation, correlation, is_near)
    theirs, ours = _original_vectors(original, llama.n_ctx), llama.embed_many(_texts())
    deviation = float(1 - (ours * theirs).sum(axis=1).min())
    upper = np.triu_indices(len(ours), 1)
    correlation = spearman((ours @ ours.T)[upper], (theirs @ theirs.T)[upper])
    return Comparison(
        "vector", len(ours), deviation, correlation, is_near=1 - deviation >= LEAST_COSINE[quantization]
    )


def _short_enough(pairs: list[tuple[str, str]], network: Network, n_ctx: int) -> list[tuple[str, str]]:
    """Pairs that are not cut, because originals cut in several ways."""
    encode = network.tokenizer.encode
    n_template = len(encode(RERANK_TEMPLATE).ids) if network.is_language_model else 0
    whole = [pair for pair in pairs if len(encode(*pair).ids) + n_template <= n_ctx]
    if not whole:
        raise InputError(f"check needs room for a sentence and a passage; the model cuts at {n_ctx} tokens")
    return whole


def spearman(ours: Floats, theirs: Floats) -> float:
    """The correlation of two rankings, from -1 to 1."""
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (ours, theirs)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _original_vectors(original: Original, n_ctx: int) -> Floats:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(original.root), device="cpu", model_kwargs={"dtype": "float32"})
    model.max_seq_length = n_ctx
    vectors: Floats = model.encode(_texts(), prompt="", normalize_embeddings=True, show_progress_bar=False)
    return vectors


def _original_scores(original: Original, network: Network, pairs: list[tuple[str, str]]) -> Floats:
    """Logits; from a language model the probability of "yes", as llama.cpp computes it."""
    if network.is_language_model:
        return _probabilities_of_yes(original, network, pairs)
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(original.root), device="cpu", model_kwargs={"dtype": "float32"})
    identity = torch.nn.Identity()
    scores: Floats = model.predict(pairs, activation_fn=identity, show_progress_bar=False)
    labels = [label.lower() for label in network.fact("classifier.output_labels")]
    return scores if scores.ndim == 1 else scores[:, labels.index(next(filter(labels.count, YES_LABELS)))]


def _probabilities_of_yes(original: Original, network: Network, pairs: list[tuple[str, str]]) -> Floats:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(original.folder, dtype=torch.float32).eval()
    tokenizer = network.tokenizer
    tokenizer.encode_special_tokens = False
    rows = [tokenizer.token_to_id(word) for word in ("yes", "no")]
    scores = []
    for query, document in pairs:
        text = RERANK_TEMPLATE.replace("{query}", query).replace("{document}", document)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1, rows]
        scores.append(float(logits.softmax(dim=0)[0]))
    return np.array(scores, dtype=np.float32)
