"""``ggrank embed``: texts to vectors, as JSON lines or one .npy file; files of rows to rows with vectors.

A few texts are embedded here; a job over files is `ggrank.jobs`'s.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ggrank.cli.console import Column, echo_facts, echo_json, echo_table, progress, wants_table
from ggrank.cli.corpus import JobChoice, Rows, check_output, column_of, job_options, job_params, run_job
from ggrank.cli.documents import Document, read_documents
from ggrank.cli.options import ModelChoice, output_option
from ggrank.cli.ranking import STEP, cache_fact
from ggrank.cli.ray import model_or_ray_options
from ggrank.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ggrank import Llama
    from ggrank.jobs import VectorForm
    from ggrank.jobs.sources import Kind
    from ggrank.jobs.vectors import VectorDtype
    from ggrank.types import Truncate

FileFormat = Literal["auto", "text", "jsonl", "csv", "parquet"]


@click.command(short_help="Turn texts into vectors.")
@click.argument("texts", nargs=-1, metavar="[TEXTS]...")
@click.option(
    "--file",
    "-f",
    "files",
    multiple=True,
    type=Rows(),
    metavar="FILE",
    help="JSONL, CSV, Parquet, a folder or a pattern of them; or a text a line; - is stdin. Repeatable.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["auto", "text", "jsonl", "csv", "parquet"]),
    default="auto",
    show_default=True,
    help="Of files and stdin; auto goes by the suffix, and for stdin by the first line.",
)
@click.option(
    "--text-column",
    "text_columns",
    multiple=True,
    metavar="NAME",
    help="Of rows; text, with title before it where there is one. Repeatable: joined by a space.",
)
@click.option(
    "--prefix",
    help='Set before each text, such as "search_document: "; nothing, and the model\'s own in a job.',
)
@click.option("--normalize/--no-normalize", default=True, show_default=True, help="Vectors of length 1.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8", "binary"]),
    default="float32",
    show_default=True,
    help="What numbers are kept as; int8 and binary (signs, 8 a byte) keep the direction.",
)
@click.option(
    "--dimensions",
    type=click.IntRange(min=1),
    metavar="N",
    help="Keep the first N, of models that were trained for it (Matryoshka).",
)
@click.option(
    "--truncate",
    type=click.Choice(["end", "error"]),
    default="end",
    show_default=True,
    help="Texts longer than n_ctx: cut the end, or refuse (not in a job, which marks them).",
)
@job_options
@model_or_ray_options
@output_option
def embed(
    texts: tuple[str, ...],
    files: tuple[str, ...],
    file_format: FileFormat,
    text_columns: tuple[str, ...],
    prefix: str | None,
    normalize: bool,
    dtype: VectorDtype,
    dimensions: int | None,
    truncate: Truncate,
    to: JobChoice,
    choice: ModelChoice,
    as_table: bool | None,
) -> None:
    """Turn TEXTS into vectors, one each, in the order of the input; or the rows of files, as a job.

    \b
    ggrank embed "a text" "another" > vectors.jsonl
    ggrank embed --file documents.txt --output vectors.npy
    ggrank embed --file corpus.jsonl --output corpus.parquet
    ggrank embed --file corpus/ --output vectors/ --dtype int8      again after a stop: goes on

    It is a job wherever --file names rows (.jsonl, .csv, .parquet, a folder of them or a pattern) or --format
    does, and wherever --output is no .npy. Other files and stdin are a text a line, stdin also JSONL.

    Each JSON line of TEXTS holds index (from 0, in the input), id and embedding. Rows of a job keep
    their order and their other columns; embedding and embedding_truncated are new. Bad rows go to
    OUTPUT.bad.jsonl. The last line on stdout sums a job up, as JSON.
    """
    from ggrank.jobs import EmbedStep, VectorForm

    if to.output is not None:
        check_output(to.output)
    form = VectorForm(dtype=dtype, dimensions=dimensions, normalize=normalize)
    why_job = _why_job(texts, files, file_format, to, has_columns=bool(text_columns))
    if not why_job:
        _embed_texts(texts, files, file_format, to.output, prefix or "", form, truncate, choice, as_table)
        return
    _check_job(texts, why_job, truncate, as_table)
    step = EmbedStep(job_params(choice), text_columns, prefix, form, column_of(to, "embedding"))
    kind: Kind | None = None if file_format == "auto" else file_format
    run_job(files, to, step, kind=kind, otherwise="text")


def _why_job(
    texts: tuple[str, ...],
    files: tuple[str, ...],
    file_format: FileFormat,
    to: JobChoice,
    *,
    has_columns: bool,
) -> str:
    """The option that says that rows of files are meant; "" where a few texts are."""
    from ggrank.jobs.sources import holds_rows

    if to.asked_for_by or has_columns:
        return to.asked_for_by or "--text-column"
    if file_format in ("jsonl", "csv", "parquet"):
        return f"--format {file_format}"
    if to.output is not None and not to.output.endswith(".npy"):
        return f"--output {to.output}" if files or not texts else ""
    rows = next(filter(holds_rows, files), None)
    return f"--file {rows}" if file_format == "auto" and rows is not None else ""


def _check_job(texts: tuple[str, ...], why_job: str, truncate: Truncate, as_table: bool | None) -> None:
    if texts:
        raise click.UsageError(
            f"{why_job} is for a job, which reads files of rows: leave it out, or put the TEXTS into a file."
        )
    if truncate == "error":
        raise click.UsageError("A job cuts long texts and marks them; --truncate error is for TEXTS.")
    if as_table:
        raise click.UsageError("A job has no table; leave out --table.")


def _embed_texts(
    texts: tuple[str, ...],
    files: tuple[str, ...],
    file_format: FileFormat,
    output: str | None,
    prefix: str,
    form: VectorForm,
    truncate: Truncate,
    choice: ModelChoice,
    as_table: bool | None,
) -> None:
    """A few texts, all of them in memory."""
    from ggrank.jobs.writing import check_place

    if output is not None and not output.endswith(".npy"):
        raise click.BadParameter(
            f"TEXTS go to a file that ends in .npy, not to {output}; as JSON lines they go to stdout: "
            f"leave out --output, and write > {Path(output).with_suffix('.jsonl')}",
            param_hint="'--output'",
        )
    if output is not None:
        check_place(Path(output))
    documents = _documents(texts, files, file_format)
    with choice.load() as llama:
        form.check(llama)
        parts = _embed_in_steps(llama, documents, prefix=prefix, form=form, truncate=truncate)
        if output is not None:
            width = form.width(llama.n_embd)
            array = _write_npy(Path(output), [form.apply(_none(llama), llama.matryoshka), *parts])
            click.echo(f"{output}: {len(documents):,} x {width} {array}", err=True)
        elif wants_table(as_table):
            _echo_table(documents, [vector for part in parts for vector in part])
            runs_on = f"runs on {llama.device} ({llama.engine})"
            numbers = f"{form.width(llama.n_embd)} numbers a text"
            echo_facts(llama.model_path.name, runs_on, numbers, cache_fact(llama))
        else:
            _echo_json(documents, parts)


def _documents(texts: tuple[str, ...], files: tuple[str, ...], file_format: FileFormat) -> list[Document]:
    """All texts. Stdin that begins with a brace is JSON lines, broken or not, as it is to a job."""
    from ggrank.jobs.sources import STDIN, begin_of_stdin

    def read(texts: Sequence[str], files: Sequence[str]) -> list[Document]:
        kind = file_format
        is_stdin = STDIN in (*texts, *files) or not (texts or files)
        if kind == "auto" and is_stdin and sys.stdin is not None and not sys.stdin.isatty():
            kind = "jsonl" if begin_of_stdin().startswith(b"{") else kind
        return read_documents(texts, files, file_format=kind)

    if not texts and not files:
        return read((), ())
    found = [*(read([text], ()) for text in texts), *(read((), [file]) for file in files)]
    return [document for documents in found for document in documents]


def _embed_in_steps(
    llama: Llama, documents: Sequence[Document], *, prefix: str, form: VectorForm, truncate: Truncate
) -> Iterator[NDArray[Any]]:
    """Vectors of `STEP` documents at a time, shape (up to STEP, the form's width)."""
    with progress(len(documents), label="embedding", at_least=STEP) as advance:
        for first in range(0, len(documents), STEP):
            texts = [document.text for document in documents[first : first + STEP]]
            vectors = llama.embed_many(texts, prefix=prefix, normalize=False, truncate=truncate)
            yield form.apply(vectors, llama.matryoshka)
            advance(len(texts))


def _echo_json(documents: Sequence[Document], parts: Iterator[NDArray[Any]]) -> None:
    vectors = (vector for part in parts for vector in part)
    for index, (document, vector) in enumerate(zip(documents, vectors, strict=True)):
        # Nine significant digits are enough to give back the same float32.
        whole = vector.dtype.kind != "f"
        embedding = [value if whole else float(f"{value:.9g}") for value in vector.tolist()]
        echo_json({"index": index, "id": document.id, "embedding": embedding})


def _echo_table(documents: Sequence[Document], vectors: Sequence[NDArray[Any]]) -> None:
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
            " ".join(f"{value:+.3f}" if vector.dtype.kind == "f" else str(value) for value in vector[:3])
            + " ...",
        ]
        for index, (document, vector) in enumerate(zip(documents, vectors, strict=True))
    ]
    echo_table(columns, rows)


def _none(llama: Llama) -> NDArray[Any]:
    import numpy as np

    return np.empty((0, llama.n_embd), dtype=np.float32)


def _write_npy(path: Path, parts: Sequence[NDArray[Any]]) -> str:
    """Writes beside ``path`` and renames: the file is there whole or not at all. Returns the dtype."""
    import numpy as np

    array = np.concatenate(parts)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            np.save(file, array)
        part.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
    return array.dtype.name
