"""Options that several commands share; each group reaches the command as one frozen value.

A model is found and loaded only when `ModelChoice.load` is called, so ``--help`` and wrong usage stay fast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ggrank import Llama, LlamaParams

DEFAULT_MODEL = "all-minilm-l6-v2"
BUNDLED_RERANKER = "ggrank-reranker-mini"

POOLING_TYPES = ("none", "mean", "cls", "last", "rank")

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
        """The loaded model."""
        from ggrank import Llama

        return Llama.load(self.params())

    def params(self) -> LlamaParams:
        """The choice as `Llama.load` takes it."""
        from ggrank import LlamaParams, PoolingType

        pooling = PoolingType[self.pooling_type.upper()] if self.pooling_type else None
        return LlamaParams(**{**asdict(self), "pooling_type": pooling})


filename_option = click.option(
    "--filename", metavar="FILE", help="Which file of a Hugging Face repo to use, if it has several."
)

output_option = click.option(
    "--table/--json",
    "as_table",
    default=None,
    help="Print a table or JSON lines; by default a table on a terminal, JSON lines elsewhere.",
)


def engine_options(command: Command, *, on_ray: bool = False) -> Command:
    """--engine and --cache, as the keywords ``engine`` and ``cache``; ``on_ray`` adds the engine "ray"."""
    engine = click.option(
        "--engine",
        type=click.Choice((*ENGINES, "ray") if on_ray else ENGINES),
        default="auto",
        show_default=True,
        help="Which library computes; auto: the faster one" + ("; ray: workers on Ray." if on_ray else "."),
    )
    cache = click.option(
        "--cache",
        type=click.Path(file_okay=False),
        metavar="DIR",
        help="Save results in this folder and look them up there; none is computed twice.",
    )
    return engine(cache(command))


def model_options(command: Command, *, on_ray: bool = False) -> Command:
    """The options of `ModelChoice`, as the keyword ``choice``; ``on_ray`` as in `engine_options`."""

    @click.option(
        "--model",
        "-m",
        default=DEFAULT_MODEL,
        show_default=True,
        metavar="NAME|PATH|REPO",
        help="A preset (ggrank models list), a .gguf file or a Hugging Face repo.",
    )
    @filename_option
    @click.option(
        "--pooling-type",
        type=click.Choice(POOLING_TYPES, case_sensitive=False),
        help="Use this pooling, not the file's own; rank loads the model as a reranker.",
    )
    @click.option("--n-ctx", type=click.IntRange(min=1), metavar="N", help="Cut texts or pairs to N tokens.")
    @click.option("--n-threads", type=click.IntRange(min=1), metavar="N", help="Use N CPU threads.")
    @click.option(
        "--n-gpu-layers",
        type=click.IntRange(min=-1),
        default=-1,
        show_default=True,
        metavar="N",
        help="Put N layers on the GPU; 0: none, -1: all.",
    )
    @partial(engine_options, on_ray=on_ray)
    @wraps(command)
    def collected(**given: Any) -> None:
        chosen = {field.name: given.pop(field.name) for field in fields(ModelChoice) if field.name in given}
        command(choice=ModelChoice(**chosen), **given)

    return collected


def input_options(name: str) -> Callable[[Command], Command]:
    """Texts as arguments (shown as ``name``), --file and --format: what `read_documents` takes."""
    texts = click.argument("texts", nargs=-1, metavar=f"[{name}]...")
    files = click.option(
        "--file",
        "-f",
        "files",
        multiple=True,
        type=click.Path(exists=True, allow_dash=True),
        metavar="FILE",
        help="Read the lines or rows of FILE (text, JSONL, CSV, Parquet), the passages of a document (PDF, "
        "HTML, Markdown, Word, ...), the .txt and .md files of a folder, or stdin (-). May be repeated.",
    )
    file_format = click.option(
        "--format",
        "file_format",
        type=click.Choice(["auto", "text", "jsonl", "csv", "parquet"]),
        default="auto",
        show_default=True,
        help="The format of the files and of stdin; auto: by the suffix, else by the first line.",
    )
    return lambda command: texts(files(file_format(command)))
