"""What an index asks of its models: that they are of the right mode, token counts, and their own scale."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ggrank.errors import InputTypeError, ModelModeError, SearchIndexError
from ggrank.llama import Llama
from ggrank.remote import RemoteEmbedder, RemoteReranker
from ggrank.types import Mode, PoolingType

if TYPE_CHECKING:
    from ggrank.search.settings import IndexSettings

Embedder: TypeAlias = "Llama | RemoteEmbedder"
Reranker: TypeAlias = "Llama | RemoteReranker"

DEFAULT_MODEL = "all-minilm-l6-v2"

_PIECES = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\ud7af]{1,4}|[^\w\s]"
)
"""What is about a token where no tokenizer is at hand: four letters, a sign, or a Chinese character."""

_QUESTIONS_AND_TEXTS = (
    ("How long do eggs have to boil?", "An egg is hard after ten minutes in boiling water."),
    ("When does the museum open on Sundays?", "The collection can be seen on Sundays from ten to six."),
    ("What makes a violin sound warm?", "Old spruce and a thin varnish give the instrument its mellow tone."),
    ("Who pays for broken windows?", "The tenant's insurance covers damage to the glass."),
    ("Why is my bicycle chain noisy?", "A dry chain squeaks: clean it and put oil on every link."),
    ("How far away is the moon?", "Light from the Earth's satellite reaches us in 1.3 seconds."),
    ("Which vaccine do children need?", "Measles shots are given twice, the first at eleven months."),
    ("How do I cancel a contract?", "Write to the company three months before the term ends."),
    ("What do owls eat?", "Mice and voles are most of this bird's prey."),
    ("How is steel made?", "Iron ore is smelted with coke, then its carbon is burnt off with oxygen."),
    ("Where can I change money?", "Banks at the airport sell foreign currency until midnight."),
    ("How do I restore a deleted file?", "The recycle bin keeps documents for thirty days."),
)
"""Each question is about its own text, and about none of the others."""


def check_embedder(embedder: object) -> Embedder:
    """Raises ModelModeError unless the model makes vectors, InputTypeError unless it is one."""
    if isinstance(embedder, RemoteEmbedder):
        return embedder
    hint = "must be an embedding model, such as 'all-minilm-l6-v2'; {} is a reranker"
    return _check_model(embedder, "embedder", Mode.EMBEDDING, hint)


def check_reranker(reranker: object) -> Reranker | None:
    """Raises ModelModeError unless the model scores pairs, InputTypeError unless it is one."""
    if reranker is None or isinstance(reranker, RemoteReranker):
        return reranker
    hint = "must be a cross-encoder, such as 'ggrank-reranker-mini'; {} is loaded to embed"
    return _check_model(reranker, "reranker", Mode.RERANK, hint)


def _check_model(value: object, name: str, mode: Mode, hint: str) -> Llama:
    if not isinstance(value, Llama):
        found = f"{value!r}: load it with Llama.load" if isinstance(value, str) else type(value).__name__
        raise InputTypeError(f"the {name} must be a loaded model, found {found}")
    if value.mode is not mode:
        raise ModelModeError(f"the {name} {hint.format(value.model_path.name)}")
    return value


def load_embedder(made: IndexSettings | None, folder: Path | None, **params: Any) -> Llama:
    """The model that an index was made with, or the default one; ``n_ctx=None`` keeps the index's own.

    Raises:
        SearchIndexError: the file is not there any more, or a server embedded the index.
    """
    if made is None:
        return Llama.load(DEFAULT_MODEL, **params)
    if not made.model_sha256:
        raise SearchIndexError(
            f"the index was embedded by a server ({made.model or 'its only model'}): open it in "
            "Python with a RemoteEmbedder, or search it by words"
        )
    from ggrank.hub import presets
    from ggrank.search.settings import command

    named = [preset.name for preset in presets().values() if preset.file_name == Path(made.model).name]
    if folder and not named and not Path(made.model).exists():
        raise SearchIndexError(
            f"{folder}: the index's model is not at {made.model} any more; give its new path with --model "
            f"(-m), or once for all with: {command(folder, '--model FILE')}"
        )
    return Llama.load(
        named[0] if named else made.model,
        pooling_type=PoolingType[made.pooling_type],
        query_prefix=made.query_prefix,
        document_prefix=made.document_prefix,
        **{**params, "n_ctx": params.get("n_ctx") or made.n_ctx},
    )


def token_counter(embedder: Embedder) -> Callable[[str], int]:
    """A function that counts a text's tokens, special ones not included; of a server's model about."""
    if isinstance(embedder, RemoteEmbedder):
        return lambda text: len(_PIECES.findall(text))
    tokenize = embedder.tokenize
    return lambda text: len(tokenize(text))


def unrelated_cosine(embedder: Embedder) -> float:
    """What the cosine of a question and a text that has nothing to do with it rarely exceeds.

    It is the mean of 132 such pairs plus two of their standard deviations: about 0.2 for all-MiniLM-L6-v2,
    above 0.7 for the models of the E5 family.
    """
    questions, texts = zip(*_QUESTIONS_AND_TEXTS, strict=True)
    asked = embedder.embed_many(questions, prefix=embedder.query_prefix)
    given = embedder.embed_many(texts, prefix=embedder.document_prefix)
    cosines = (asked @ given.T)[~np.eye(len(questions), dtype=bool)]
    return float(min(cosines.mean() + 2 * cosines.std(), 0.95))
