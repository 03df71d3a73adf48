"""What a job does to its rows: `EmbedStep` and `ScoreStep`, from a table to the same with new columns.

A step is a plain value that can be pickled; it loads its model when it first computes, once in a process.
Knows columns and models; no files, parts or processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from numpy.typing import NDArray

from ggrank.errors import InputError
from ggrank.jobs.model import CorpusModel
from ggrank.jobs.vectors import AS_IT_IS, VectorForm
from ggrank.loading.params import LlamaParams
from ggrank.scoring import choose_scale, sigmoid
from ggrank.text.inputs import check_text
from ggrank.types import Mode, Scale, ScoreScale, Truncate

Item = Any
"""What a step computes from one row: a text, or a (query, document) pair."""


@dataclass(frozen=True)
class Computed:
    """New columns, a row each, in order; and the tokens that were read for them."""

    columns: dict[str, NDArray[Any]]
    n_tokens: int


class Step(Protocol):
    """What a job does to its rows; see `EmbedStep`."""

    @property
    def params(self) -> LlamaParams:
        """Which model, and how it is loaded."""

    @property
    def column(self) -> str:
        """The new column."""

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that every row must have."""

    @property
    def read(self) -> tuple[str, ...]:
        """Columns that are looked at: ``needed``, and those that a row may lack."""

    @property
    def column_options(self) -> str:
        """The options that name ``needed``, for messages."""

    @property
    def model(self) -> CorpusModel:
        """The model, loaded now where it was not."""

    def item(self, values: Mapping[str, Any]) -> Item:
        """What is computed from a row. Raises InputError with the reason where it has no text."""

    def compute(self, items: Sequence[Item]) -> Computed:
        """The new columns of many rows."""

    def empty(self) -> Computed:
        """The new columns of no row."""

    def settings(self) -> dict[str, Any]:
        """All that the new columns depend on beside the rows and the model, as JSON has it."""

    def origin(self) -> dict[str, Any]:
        """What a reader of the new column should know, as JSON has it."""

    def close(self) -> None:
        """Frees the model, if it was loaded."""


class _Stepping:
    """What both steps have in common; their fields come from dataclasses."""

    params: LlamaParams
    column: str

    @cached_property
    def model(self) -> CorpusModel:
        """The model, loaded now where it was not."""
        model = CorpusModel.open(self.params)
        try:
            self._check(model)
        except Exception:
            model.close()
            raise
        return model

    def close(self) -> None:
        """Frees the model, if it was loaded; the next call loads it again."""
        model = self.__dict__.pop("model", None)
        if model is not None:
            model.close()

    def empty(self) -> Computed:
        """The new columns of no row."""
        return self.compute([])

    def __call__(self, table: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """A table of columns, with the new ones behind the others.

        Raises:
            InputError: a row has no text, or a column of that name is there already.
        """
        taken = next((name for name in self.names if name in table), None)
        if taken is not None:
            raise InputError(f"the table has a column {taken!r} already; give the new one another name")
        read = {name: table[name] for name in self.read if name in table}
        check_columns(self.needed, table)
        n_rows = len(table[self.needed[0]])
        items = [self.item({name: read[name][i] for name in read}) for i in range(n_rows)]
        return {**table, **self.compute(items).columns}

    @property
    def names(self) -> tuple[str, str]:
        """The new columns."""
        return (self.column, f"{self.column}_truncated")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "model"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _check(self, model: CorpusModel) -> None:
        raise NotImplementedError

    def item(self, values: Mapping[str, Any]) -> Item:
        raise NotImplementedError

    def compute(self, items: Sequence[Item]) -> Computed:
        raise NotImplementedError

    @property
    def needed(self) -> tuple[str, ...]:
        raise NotImplementedError

    @property
    def read(self) -> tuple[str, ...]:
        return self.needed


@dataclass(frozen=True)
class EmbedStep(_Stepping):
    """Texts to vectors: the new columns are ``column`` (n, width) and ``column_truncated`` (n,), bool.

    Attributes:
        params: which model, and how it is loaded.
        text_columns: whose texts, joined by a space, are embedded; empty for ``text``, with ``title`` before
            it in rows that have one.
        prefix: set before each text; None for the model's own for documents.
        form: how vectors are kept.
        column: the new column.

    Example:
        >>> step = EmbedStep(LlamaParams("all-minilm-l6-v2"))
        >>> table = step({"id": [1, 2], "text": ["Llamas graze.", "Bees dance."]})
        >>> list(table), table["embedding"].shape
        (['id', 'text', 'embedding', 'embedding_truncated'], (2, 384))
    """

    params: LlamaParams
    text_columns: tuple[str, ...] = ()
    prefix: str | None = None
    form: VectorForm = AS_IT_IS
    column: str = "embedding"

    column_options = "--text-column"

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that every row must have."""
        return self.text_columns or ("text",)

    @property
    def read(self) -> tuple[str, ...]:
        """``needed``, and the title where one may be."""
        return self.text_columns or ("text", "title")

    def item(self, values: Mapping[str, Any]) -> str:
        """A row's text. Raises InputError where it has none."""
        return text_of(values, self.text_columns)

    def compute(self, items: Sequence[str]) -> Computed:
        """Vectors, and whether a text was cut."""
        raw = self.model.vectors(items, prefix=self._prefix)
        vectors = self.form.apply(raw.values, self.model.matryoshka)
        return Computed(dict(zip(self.names, (vectors, raw.truncated), strict=True)), raw.n_tokens)

    def settings(self) -> dict[str, Any]:
        """All that vectors depend on beside rows and model."""
        return {
            "step": "embed",
            "text_columns": list(self.text_columns),
            "prefix": self._prefix,
            "dtype": self.form.dtype,
            "dimensions": self.form.dimensions,
            "normalize": self.form.normalize,
            "column": self.column,
        }

    def origin(self) -> dict[str, Any]:
        """The settings and the model."""
        return {**self.settings(), **self.model.origin()}

    @property
    def _prefix(self) -> str:
        return self.model.document_prefix if self.prefix is None else self.prefix

    def _check(self, model: CorpusModel) -> None:
        model.check_mode(Mode.EMBEDDING)
        self.form.check(model)


@dataclass(frozen=True)
class ScoreStep(_Stepping):
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

    column_options = "--query-column and --document-column"

    @property
    def needed(self) -> tuple[str, ...]:
        """Both columns."""
        return (self.query_column, self.document_column)

    def item(self, values: Mapping[str, Any]) -> tuple[str, str]:
        """A row's pair. Raises InputError where a text is missing."""
        return string_in(values, self.query_column), string_in(values, self.document_column)

    def compute(self, items: Sequence[tuple[str, str]]) -> Computed:
        """Scores, and whether a pair was cut."""
        raw = self.model.logits(items, truncate=self.truncate)
        scores = sigmoid(raw.values) if self._scale(self.model) == "sigmoid" else raw.values
        return Computed(dict(zip(self.names, (scores, raw.truncated), strict=True)), raw.n_tokens)

    def settings(self) -> dict[str, Any]:
        """All that scores depend on beside rows and model."""
        return {
            "step": "score",
            "query_column": self.query_column,
            "document_column": self.document_column,
            "score": self._scale(self.model),
            "truncate": self.truncate,
            "column": self.column,
        }

    def origin(self) -> dict[str, Any]:
        """The settings and the model."""
        return {**self.settings(), **self.model.origin()}

    def _scale(self, model: CorpusModel) -> Scale:
        return choose_scale(self.score, own=model.score_scale, model=model.model_path.name)

    def _check(self, model: CorpusModel) -> None:
        model.check_mode(Mode.RERANK)
        self._scale(model)


def text_of(values: Mapping[str, Any], columns: Sequence[str] = ()) -> str:
    """A row's text: those of ``columns``, joined by a space; of none, ``text`` with a title before it.

    Raises:
        InputError: a column is missing, or holds no string.

    Example:
        >>> text_of({"title": "Cats", "text": "They purr."}), text_of({"a": "x", "b": "y"}, ["b"])
        ('Cats They purr.', 'y')
    """
    if columns:
        return " ".join(string_in(values, column) for column in columns)
    title = values.get("title")
    text = string_in(values, "text")
    return f"{string_in(values, 'title')} {text}" if title else text


def string_in(values: Mapping[str, Any], column: str) -> str:
    """The string in a column; bytes that are UTF-8 count. Raises InputError where there is none."""
    if column not in values:
        raise InputError(f"no column {column!r}")
    value = values[column]
    if isinstance(value, bytes):  # as older writers of Parquet leave a column of strings: binary, unmarked
        value = _decoded(value)
    if not isinstance(value, str):
        found = {"NoneType": "null", "bytes": "not UTF-8"}.get(type(value).__name__, type(value).__name__)
        raise InputError(f"column {column!r} holds no string: {found}")
    return check_text(value, column)


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value


def check_columns(needed: Sequence[str], there: Mapping[str, Any] | Sequence[str]) -> None:
    """Raises InputError where a column is missing; the message lists those that are there."""
    missing = [name for name in needed if name not in there]
    if missing:
        found = ", ".join(there) or "none"
        raise InputError(
            f"no column {missing[0]!r}; the columns are: {found}. Name the right one with an option"
        )
