"""What a job computes: `EmbedStep` and `ScoreStep`, from a table of columns to the same with new ones.

A step is a plain value that can be pickled; it loads its model when it first computes, once in a process.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ggrank.errors import GgrankError, InputError, ModelModeError
from ggrank.hub.checksums import Expected, check
from ggrank.hub.matryoshka import Matryoshka, cut
from ggrank.hub.presets import check_dimensions
from ggrank.llama import Llama, _Results
from ggrank.loading.model import identity, load_model
from ggrank.loading.params import LlamaParams
from ggrank.rows.documents import check_columns, string_in, text_of
from ggrank.rows.reading import Row
from ggrank.scoring import choose_scale, l2_normalize, sigmoid, to_int8
from ggrank.types import Mode, PoolingType, Scale, ScoreScale, Truncate

TEXT_RULE = 1
"""Goes up when ggrank reads other text from a row, or other tokens from a text: no job goes on then."""

Item = Any
"""What a step computes from one row: a text, or a (query, document) pair."""

VectorDtype = Literal["float32", "float16", "int8"]
"""What a vector's numbers are kept as; int8 as `ggrank.scoring.to_int8` has it, without the scale."""


def keep_vectors(
    vectors: NDArray[np.float32],
    dtype: VectorDtype,
    dimensions: int | None = None,
    trained: Matryoshka | None = None,
) -> NDArray[Any]:
    """A model's vectors, shape (n, n_embd), with length 1 and as they are kept: (n, dimensions)."""
    unit = l2_normalize(cut(vectors, dimensions, trained))
    return to_int8(unit)[0] if dtype == "int8" else unit.astype(dtype)


def check_width(llama: Llama, dimensions: int | None) -> None:
    """Raises InputError where this model's vectors cannot be cut so."""
    if dimensions is not None:
        name, trained = llama.model_path.name, llama.matryoshka
        check_dimensions(dimensions, model=name, n_embd=llama.n_embd, trained=trained)


@dataclass(frozen=True)
class Computed:
    """New columns, a row each, in order; and the tokens that were read for them."""

    columns: dict[str, NDArray[Any]]
    n_tokens: int


class _Model(Llama):
    """A `Llama` that also says how many tokens it read and which texts it cut."""

    def check(self, mode: Mode) -> None:
        self._require(mode)
        if self.pooling_type is PoolingType.NONE:
            raise ModelModeError(
                f"{self.model_path.name} is loaded without pooling, so a text has a vector for each token; "
                "load it with another pooling_type"
            )

    def vectors(self, texts: Sequence[str], *, prefix: str) -> _Results:
        return self._vectors(texts, prefix=prefix, truncate="end")

    def logits(self, pairs: Sequence[tuple[str, str]], *, truncate: Truncate) -> _Results:
        return self._logits(pairs, truncate=truncate)

    def identity(self) -> dict[str, Any]:
        """What its numbers depend on, except the processor, which moves no more than their last digits."""
        facts: dict[str, Any] = json.loads(identity(self._model))
        found = {"sha256": facts["model"], "engine": facts["engine"], "device": facts["device"][0]}
        return {**found, "n_ctx": self.n_ctx, "settings": facts["settings"]}


class Step(ABC):
    """What a job computes from its rows; the fields come from the dataclasses below."""

    params: LlamaParams
    column: str
    kind: ClassVar[str]
    mode: ClassVar[Mode]
    column_options: ClassVar[str]
    """The options that name ``named``, for messages."""

    named: tuple[str, ...]
    """Columns that every row must have; none for the usual text."""

    @property
    def read(self) -> tuple[str, ...]:
        """Columns that are looked at."""
        return self.named

    @property
    def names(self) -> tuple[str, str]:
        """The new columns."""
        return (self.column, f"{self.column}_truncated")

    @cached_property
    def model(self) -> _Model:
        """The model, loaded now where it was not. Raises what `Llama.load` and `check` raise."""
        model = _Model(load_model(self.params))
        try:
            self.check(model)
        except GgrankError:
            model.close()
            raise
        return model

    def check(self, model: _Model) -> None:
        """Raises ModelModeError or InputError where this model cannot compute the new column."""
        model.check(self.mode)

    def close(self) -> None:
        """Frees the model, if it was loaded; the next call loads it again."""
        model = self.__dict__.pop("model", None)
        if model is not None:
            model.close()

    @abstractmethod
    def item(self, row: Row) -> Item:
        """What is computed from a row. Raises InputError, with the reason alone, where it has no text."""

    @abstractmethod
    def compute(self, items: Sequence[Item]) -> Computed:
        """The new columns of these items, which are computed together."""

    def _computed(self, values: NDArray[Any], found: _Results) -> Computed:
        columns = (values, np.array(found.truncated, bool))
        return Computed(dict(zip(self.names, columns, strict=True)), found.n_tokens)

    def _settings(self) -> dict[str, Any]:
        """All that the new columns depend on beside the rows and the model, as JSON has it."""
        own = {name: value for name, value in self.__getstate__().items() if name != "params"}
        return {"step": self.kind, **own, **self._resolved()}

    @abstractmethod
    def _resolved(self) -> dict[str, Any]:
        """What the model decides where a field does not."""

    def origin(self) -> dict[str, Any]:
        """The settings and the model, for readers of the new column."""
        model = self.model
        return {
            **self._settings(),
            "model": model.model_path.name,
            "model_sha256": check(model.model_path, Expected()),
            "pooling_type": model.pooling_type.name,
            "n_embd": model.n_embd,
            "n_ctx": model.n_ctx,
        }

    def facts(self) -> dict[str, Any]:
        """What makes two jobs the same one, as JSON has it."""
        identity = {f"model.{name}": value for name, value in self.model.identity().items()}
        return {**self._settings(), "text_rule": TEXT_RULE, **identity}

    def check_columns(self, row: Row, there: Sequence[str]) -> None:
        """Raises InputError where a table lacks a column, or has a new one already; ``row`` is its first."""
        try:
            check_columns(row, self.named, there)
        except InputError as error:
            raise InputError(f"{error}. Name the right one with {self.column_options}") from error
        for name in self.names:
            if name in there:
                raise InputError(
                    f"there is a column {name!r} already; give the new one another name with --column"
                )

    def __call__(self, table: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """A table of columns, with the new ones after its own.

        Raises:
            InputError: a row has no text, a column is missing, or a new one is there already.
        """
        self.check_columns(Row({}, 1), list(table))
        read = {name: table[name] for name in self.read if name in table}
        n_rows = len(next(iter(read.values())))
        rows = (Row({name: column[i] for name, column in read.items()}, i) for i in range(n_rows))
        return {**table, **self.compute([self.item(row) for row in rows]).columns}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "model"}


@dataclass(frozen=True)
class EmbedStep(Step):
    """Texts to vectors: the new columns are ``column`` (n, width) and ``column_truncated`` (n,), bool.

    Attributes:
        params: which model, and how it is loaded.
        text_columns: whose texts, joined by a space, are embedded; empty for ``text``, with ``title`` before
            it in rows that have one.
        prefix: set before each text; None for the model's own for documents.
        dtype: what the numbers are kept as, "float32", "float16" or "int8"; vectors have length 1 before
            they are rounded.
        dimensions: how many numbers are kept, the first ones; None for all. Only models trained for it
            (Matryoshka) allow fewer.
        column: the new column.

    Raises:
        InputError: an unknown dtype.

    Example:
        >>> step = EmbedStep(LlamaParams("all-minilm-l6-v2"))
        >>> table = step({"id": [1, 2], "text": ["Llamas graze.", "Bees dance."]})
        >>> list(table), table["embedding"].shape
        (['id', 'text', 'embedding', 'embedding_truncated'], (2, 384))
    """

    params: LlamaParams
    text_columns: tuple[str, ...] = ()
    prefix: str | None = None
    dtype: VectorDtype = "float32"
    dimensions: int | None = None
    column: str = "embedding"

    kind: ClassVar[str] = "embed"
    mode: ClassVar[Mode] = Mode.EMBEDDING
    column_options: ClassVar[str] = "--text-column"

    def __post_init__(self) -> None:
        if self.dtype not in get_args(VectorDtype):
            raise InputError(f"dtype must be one of {', '.join(get_args(VectorDtype))}; found {self.dtype!r}")

    def check(self, model: _Model) -> None:
        """Also where its vectors cannot be cut as asked."""
        super().check(model)
        check_width(model, self.dimensions)

    @property
    def named(self) -> tuple[str, ...]:  # type: ignore[override]
        """The text's columns where they were named."""
        return self.text_columns

    @property
    def read(self) -> tuple[str, ...]:
        """Those, or the usual ones."""
        return self.text_columns or ("text", "title")

    def item(self, row: Row) -> str:
        """A row's text."""
        title, text = text_of(row, self.text_columns)
        return f"{title} {text}" if title else text

    def compute(self, items: Sequence[str]) -> Computed:
        """Vectors, and whether a text was cut."""
        found = self.model.vectors(items, prefix=self._prefix)
        kept = keep_vectors(found.values, self.dtype, self.dimensions, self.model.matryoshka)
        return self._computed(kept, found)

    def _resolved(self) -> dict[str, Any]:
        return {"text_columns": list(self.text_columns), "prefix": self._prefix, "normalize": True}

    @property
    def _prefix(self) -> str:
        return self.model.document_prefix if self.prefix is None else self.prefix


@dataclass(frozen=True)
class ScoreStep(Step):
    """Pairs to scores: the new columns are ``column`` (n,), float32, and ``column_truncated`` (n,), bool.

    Attributes:
        params: which reranker, and how it is loaded.
        query_column, document_column: where the pair's texts are.
        score: the scale, "auto", "logit" or "sigmoid".
        truncate: "end" cuts a long document, "chunk" scores windows of it and keeps the best.
        column: the new column.

    Example:
        >>> step = ScoreStep(LlamaParams("ggrank-reranker-mini"))
        >>> table = step({"query": ["who hums?"], "document": ["Bees hum."]})
        >>> table["score"].shape, table["score_truncated"].tolist()
        ((1,), [False])
    """

    params: LlamaParams
    query_column: str = "query"
    document_column: str = "document"
    score: ScoreScale = "auto"
    truncate: Truncate = "end"
    column: str = "score"

    kind: ClassVar[str] = "score"
    mode: ClassVar[Mode] = Mode.RERANK
    column_options: ClassVar[str] = "--query-column and --document-column"

    @property
    def named(self) -> tuple[str, ...]:  # type: ignore[override]
        """Both columns."""
        return (self.query_column, self.document_column)

    def item(self, row: Row) -> tuple[str, str]:
        """A row's pair."""
        if row.problem:
            raise InputError(row.problem)
        return string_in(row.values, self.query_column), string_in(row.values, self.document_column)

    def compute(self, items: Sequence[tuple[str, str]]) -> Computed:
        """Scores, and whether a pair was cut."""
        found = self.model.logits(items, truncate=self.truncate)
        return self._computed(sigmoid(found.values) if self._scale() == "sigmoid" else found.values, found)

    def _resolved(self) -> dict[str, Any]:
        return {"score": self._scale()}

    def _scale(self) -> Scale:
        model = self.model
        return choose_scale(self.score, own=model.score_scale, model=model.model_path.name)
