"""Options that several commands share; those of a model reach the command as one `ModelChoice`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ggrank import Llama, LlamaParams

DEFAULT_MODEL = "all-minilm-l6-v2"
BUNDLED_RERANKER = "ggrank-reranker-mini"
ENGINES = ("auto", "llama.cpp", "openvino")

Command = Callable[..., None]


@dataclass(frozen=True)
class ModelChoice:
    """Which model to load and how; None means what the preset or the file says."""

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
        """The loaded model; downloaded first where it is not here."""
        from ggrank import Llama

        return Llama.load(self.params())

    def params(self) -> LlamaParams:
        """The choice as `Llama.load` takes it."""
        from ggrank import LlamaParams

        return LlamaParams(**asdict(self))


filename_option = click.option(
    "--filename", metavar="FILE", help="Which file of a Hugging Face repo to use, if it has several."
)

output_option = click.option(
    "--table/--json",
    "as_table",
    default=None,
    help="Print a table or JSON lines; by default a table on a terminal, JSON lines elsewhere.",
)


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator; help lists them in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def n_option(*flags: str, help: str, least: int = 1, **more: Any) -> Callable[[Command], Command]:
    """An option whose value is a whole number of at least ``least``."""
    return click.option(*flags, type=click.IntRange(min=least), metavar="N", help=help, **more)


vector_options = with_options(
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float16", "int8"]),
        default="float32",
        show_default=True,
        help="Type of the numbers; int8 keeps the direction, not the length.",
    ),
    n_option(
        "--dimensions",
        help="Keep the first N numbers of each vector; only models trained for it (Matryoshka).",
    ),
)


engine_options = with_options(
    click.option(
        "--engine",
        type=click.Choice(ENGINES),
        default="auto",
        show_default=True,
        help="Which library computes; auto: the faster one.",
    ),
    click.option(
        "--cache",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Keep results in this folder, so that none is computed twice.",
    ),
)
"""The keywords ``engine`` and ``cache``."""


def model_options(command: Command) -> Command:
    """The options of `ModelChoice`, as the keyword ``choice``."""

    @with_options(
        click.option(
            "--model",
            "-m",
            default=DEFAULT_MODEL,
            show_default=True,
            metavar="NAME|PATH|REPO",
            help="A preset (ggrank models), a .gguf file or a Hugging Face repo.",
        ),
        filename_option,
        click.option(
            "--pooling-type",
            type=click.Choice(("none", "mean", "cls", "last", "rank"), case_sensitive=False),
            help="Pooling in place of the file's own; 'rank' loads the model as a reranker.",
        ),
        n_option("--n-ctx", help="Cut texts or pairs to N tokens."),
        n_option("--n-threads", help="Use N CPU threads."),
        n_option(
            "--n-gpu-layers",
            help="Put N layers on the GPU; 0: none, -1: all.",
            least=-1,
            default=-1,
            show_default=True,
        ),
        engine_options,
    )
    @wraps(command)
    def collected(**given: Any) -> None:
        chosen = {field.name: given.pop(field.name) for field in fields(ModelChoice) if field.name in given}
        command(choice=ModelChoice(**chosen), **given)

    return collected


def input_options(name: str) -> Callable[[Command], Command]:
    """Texts as arguments (shown as ``name``), --file and --format: what `read_documents` takes."""
    return with_options(
        click.argument("texts", nargs=-1, metavar=f"[{name}]..."),
        click.option(
            "--file",
            "-f",
            "files",
            multiple=True,
            type=click.Path(exists=True, allow_dash=True),
            metavar="FILE",
            help="Read the lines or rows of FILE (text, JSONL, CSV, Parquet), the passages of a document "
            "(PDF, HTML, Markdown, Word, ...), a folder of such files, or stdin (-). May be repeated.",
        ),
        click.option(
            "--format",
            "file_format",
            type=click.Choice(["auto", "text", "jsonl", "csv", "parquet"]),
            default="auto",
            show_default=True,
            help="The format of the files and of stdin; auto: by the suffix, else by the first line.",
        ),
    )
