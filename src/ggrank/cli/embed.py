"""``ggrank embed``: texts to vectors, as JSON lines or one .npy file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggrank.cli.console import Column, echo_facts, echo_json, echo_table, progress, wants_table
from ggrank.cli.documents import Document
from ggrank.cli.options import Inputs, ModelChoice, input_options, model_options, output_option
from ggrank.cli.ranking import STEP
from ggrank.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ggrank import Llama
    from ggrank.types import Truncate


@click.command(short_help="Turn texts into vectors.")
@input_options("TEXTS")
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False), metavar="FILE.npy", help="One array, a row a text."
)
@click.option("--prefix", default="", help='Set before each text, such as "search_document: ".')
@click.option("--normalize/--no-normalize", default=True, show_default=True, help="Vectors of length 1.")
@click.option(
    "--truncate",
    type=click.Choice(["end", "error"]),
    default="end",
    show_default=True,
    help="Texts longer than n_ctx: cut the end, or refuse.",
)
@model_options
@output_option
def embed(
    inputs: Inputs,
    output: str | None,
    prefix: str,
    normalize: bool,
    truncate: Truncate,
    choice: ModelChoice,
    as_table: bool | None,
) -> None:
    """Turn TEXTS into vectors, one each, in the order of the input.

    \b
    ggrank embed "a text" "another" > vectors.jsonl
    ggrank embed --file documents.txt --output vectors.npy

    Each JSON line holds index (from 0, in the input), id and embedding.
    """
    if output is not None and not output.endswith(".npy"):
        raise click.BadParameter(f"{output} does not end in .npy", param_hint="'--output'")
    documents = inputs.read()
    with choice.load() as llama:
        parts = _embed_in_steps(llama, documents, prefix=prefix, normalize=normalize, truncate=truncate)
        if output is not None:
            _write_npy(Path(output), list(parts), llama.n_embd)
            click.echo(f"{output}: {len(documents):,} x {llama.n_embd} float32", err=True)
        elif wants_table(as_table):
            _echo_table(documents, [vector for part in parts for vector in part])
            runs_on = f"runs on {llama.device} ({llama.engine})"
            echo_facts(llama.model_path.name, runs_on, f"{llama.n_embd} numbers a text")
        else:
            _echo_json(documents, parts)


def _embed_in_steps(
    llama: Llama, documents: Sequence[Document], *, prefix: str, normalize: bool, truncate: Truncate
) -> Iterator[NDArray[np.float32]]:
    """Vectors of `STEP` documents at a time, shape (up to STEP, n_embd)."""
    with progress(len(documents), label="embedding", at_least=STEP) as advance:
        for first in range(0, len(documents), STEP):
            texts = [document.text for document in documents[first : first + STEP]]
            yield llama.embed_many(texts, prefix=prefix, normalize=normalize, truncate=truncate)
            advance(len(texts))


def _echo_json(documents: Sequence[Document], parts: Iterator[NDArray[np.float32]]) -> None:
    vectors = (vector for part in parts for vector in part)
    for index, (document, vector) in enumerate(zip(documents, vectors, strict=True)):
        # Nine significant digits are enough to give back the same float32.
        embedding = [float(f"{value:.9g}") for value in vector.tolist()]
        echo_json({"index": index, "id": document.id, "embedding": embedding})


def _echo_table(documents: Sequence[Document], vectors: Sequence[NDArray[np.float32]]) -> None:
    has_ids = any(document.id is not None for document in documents)
    columns = [
        Column("id" if has_ids else "index", align="left" if has_ids else "right"),
        Column("text", stretch=True),
        Column("embedding"),
    ]
    rows = [
        [
            document.name(index),
            document.text,
            " ".join(f"{value:+.3f}" for value in vector[:3]) + " ...",
        ]
        for index, (document, vector) in enumerate(zip(documents, vectors, strict=True))
    ]
    echo_table(columns, rows)


def _write_npy(path: Path, parts: Sequence[NDArray[np.float32]], n_embd: int) -> None:
    """Writes beside ``path`` and renames, so that the file is there whole or not at all."""
    import numpy as np

    array = np.concatenate([np.empty((0, n_embd), dtype=np.float32), *parts])
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.save(file, array)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
