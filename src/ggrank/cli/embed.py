"""``ggrank embed``: a few texts to vectors, as JSON lines; files of rows are for ``ggrank job embed``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ggrank.cli.console import Column, echo_facts, echo_json, echo_table, progress, wants_table
from ggrank.cli.documents import Document, Format, name_of, read_documents
from ggrank.cli.options import ModelChoice, input_options, model_options, output_option, vector_options
from ggrank.cli.ranking import STEP, cache_fact
from ggrank.rows.writing import json_default

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ggrank.jobs.steps import VectorDtype
    from ggrank.types import Truncate


@click.command(short_help="Turn texts into vectors.")
@input_options("TEXTS")
@click.option("--prefix", default="", help='Text to set before each text, such as "search_document: ".')
@vector_options
@click.option(
    "--truncate",
    type=click.Choice(["end", "error"]),
    default="end",
    show_default=True,
    help="Cut the end of longer texts, or stop with an error.",
)
@model_options
@output_option
def embed(
    texts: tuple[str, ...],
    files: tuple[str, ...],
    file_format: Format,
    prefix: str,
    dtype: VectorDtype,
    dimensions: int | None,
    truncate: Truncate,
    choice: ModelChoice,
    as_table: bool | None,
) -> None:
    """Turn TEXTS into vectors of length 1, one each, in the order of the input.

    \b
    ggrank embed "a text" "another" > vectors.jsonl
    ggrank embed --file documents.txt

    Each JSON line holds index (from 0, in the input), id and embedding. All texts are held in memory: for
    corpora there is ggrank job embed.
    """
    from ggrank.jobs.steps import check_width, keep_vectors

    documents = read_documents(texts, files, file_format=file_format)
    with choice.load() as llama:
        check_width(llama, dimensions)
        vectors: list[NDArray[Any]] = []
        with progress(len(documents), label="embedding", at_least=STEP) as advance:
            for first in range(0, len(documents), STEP):
                some = [document.text for document in documents[first : first + STEP]]
                found = llama.embed_many(some, prefix=prefix, normalize=False, truncate=truncate)
                vectors.extend(keep_vectors(found, dtype, dimensions, llama.matryoshka))
                advance(len(some))
        if wants_table(as_table):
            _echo_table(documents, vectors)
            runs_on = f"runs on {llama.device} ({llama.engine})"
            width = f"{dimensions or llama.n_embd} numbers a text"
            echo_facts(llama.model_path.name, runs_on, width, cache_fact(llama))
            return
    for index, (document, vector) in enumerate(zip(documents, vectors, strict=True)):
        echo_json({"index": index, "id": document.id, "embedding": json_default(vector)})


def _echo_table(documents: Sequence[Document], vectors: Sequence[NDArray[Any]]) -> None:
    has_ids = any(document.id is not None for document in documents)
    columns = [
        Column("id" if has_ids else "index", align="left" if has_ids else "right"),
        Column("text", stretch=True),
        Column("embedding"),
    ]
    rows = [
        [
            name_of(document, index),
            document.text,
            " ".join(f"{value:+.3g}" for value in vector[:3]) + " ...",
        ]
        for index, (document, vector) in enumerate(zip(documents, vectors, strict=True))
    ]
    echo_table(columns, rows)
