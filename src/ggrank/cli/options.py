"""Options that several commands share, each group handed on as one frozen value.

Knows flags and the values they make. A model is found and loaded only when `ModelChoice.load` is called,
so that ``--help`` and wrong usage cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, cast

import click

from ggrank.cli.documents import Document, Format, read_documents

if TYPE_CHECKING:
    from ggrank import Llama, LlamaParams

DEFAULT_MODEL = "all-minilm-l6-v2"
BUNDLED_RERANKER = "ggrank-reranker-mini"

POOLING_TYPES = ("none", "mean", "cls", "last", "rank")

ENGINES = ("auto", "llama.cpp", "openvino")

Command = Callable[..., None]


@dataclass(frozen=True)
class ModelChoice:
    """Which model to load and how; None leaves it to the file and the preset."""

    model: str = DEFAULT_MODEL
    filename: str | None = None
    pooling_type: str | None = None
    n_ctx: int | None = None
    n_threads: int | None = None
    n_gpu_layers: int = -1
    local_files_only: bool = False
    cache: str | None = None
    engine: str = "auto"

    def load(self) -> Llama:
        """The loaded model."""
        from ggrank import Llama

        return Llama.load(self.params())

    def params(self) -> LlamaParams:
        """The choice as `Llama.load` takes it."""
        from ggrank import LlamaParams, PoolingType

        pooling = PoolingType[self.pooling_type.upper()] if self.pooling_type else None
        return LlamaParams(
            self.model,
            filename=self.filename,
            pooling_type=pooling,
            n_ctx=self.n_ctx,
            n_threads=self.n_threads,
            n_gpu_layers=self.n_gpu_layers,
            local_files_only=self.local_files_only,
            cache=self.cache,
            engine=cast(Any, self.engine),  # one of click's choices
        )


@dataclass(frozen=True)
class Inputs:
    """Where the documents come from."""

    texts: tuple[str, ...]
    files: tuple[str, ...]
    file_format: Format

    def read(self) -> list[Document]:
        """All documents; see `ggrank.cli.documents.read_documents`."""
        return read_documents(self.texts, self.files, file_format=self.file_format)


def engine_options(command: Command, *, on_ray: bool = False) -> Command:
    """--engine and --cache, as the keywords ``engine`` and ``cache``; ``on_ray`` adds the engine "ray"."""
    engine = click.option(
        "--engine",
        type=click.Choice((*ENGINES, "ray") if on_ray else ENGINES),
        default="auto",
        show_default=True,
        help="What computes; auto is the faster one" + ("; ray: auto, in workers on Ray." if on_ray else "."),
    )
    cache = click.option(
        "--cache",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Keep results in this folder, and compute each only once.",
    )
    return engine(cache(command))


def model_options(command: Command, *, on_ray: bool = False) -> Command:
    """--model and its kind, as the keyword ``choice``; ``on_ray`` as in `engine_options`."""

    @click.option(
        "--model",
        "-m",
        default=DEFAULT_MODEL,
        show_default=True,
        metavar="NAME|PATH|REPO",
        help="A preset (ggrank models list), a .gguf file or a Hugging Face repo.",
    )
    @click.option("--filename", metavar="FILE", help="Which file of a repo that holds several.")
    @click.option(
        "--pooling-type",
        type=click.Choice(POOLING_TYPES, case_sensitive=False),
        help="Instead of what the file says; rank makes a reranker of it.",
    )
    @click.option("--n-ctx", type=click.IntRange(min=1), metavar="N", help="Longest text or pair in tokens.")
    @click.option("--n-threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.")
    @click.option(
        "--n-gpu-layers",
        type=click.IntRange(min=-1),
        default=-1,
        show_default=True,
        metavar="N",
        help="Layers on the GPU: 0 none, -1 all.",
    )
    @partial(engine_options, on_ray=on_ray)
    @wraps(command)
    def collected(
        *,
        model: str,
        filename: str | None,
        pooling_type: str | None,
        n_ctx: int | None,
        n_threads: int | None,
        n_gpu_layers: int,
        cache: str | None,
        engine: str,
        **rest: Any,
    ) -> None:
        choice = ModelChoice(
            model, filename, pooling_type, n_ctx, n_threads, n_gpu_layers, cache=cache, engine=engine
        )
        command(choice=choice, **rest)

    return collected


def input_options(name: str) -> Callable[[Command], Command]:
    """Texts as arguments (shown as ``name``), --file and --format, as the keyword ``inputs``."""

    def decorate(command: Command) -> Command:
        @click.argument("texts", nargs=-1, metavar=f"[{name}]...")
        @click.option(
            "--file",
            "-f",
            "files",
            multiple=True,
            type=click.Path(exists=True, allow_dash=True),
            metavar="FILE",
            help="A document a line, JSONL, CSV, Parquet; a folder: its .txt, .md; - is stdin. Repeatable.",
        )
        @click.option(
            "--format",
            "file_format",
            type=click.Choice(["auto", "text", "jsonl", "csv", "parquet"]),
            default="auto",
            show_default=True,
            help="Of files and stdin; auto goes by the suffix, or by the first line.",
        )
        @wraps(command)
        def collected(
            *, texts: tuple[str, ...], files: tuple[str, ...], file_format: Format, **rest: Any
        ) -> None:
            command(inputs=Inputs(texts, files, file_format), **rest)

        return cast(Command, collected)

    return decorate


def output_option(command: Command) -> Command:
    """--json and --table, as the keyword ``as_table`` (None: by what stdout is)."""
    return click.option(
        "--table/--json",
        "as_table",
        default=None,
        help="A table for people or JSON lines for programs; by default what stdout is decides.",
    )(command)
