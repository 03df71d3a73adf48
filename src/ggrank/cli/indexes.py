"""What `index` and `search` share: where the index is, and the model that it was made with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ggrank.cli.options import Command, ModelChoice

if TYPE_CHECKING:
    from ggrank import Llama


def index_option(command: Command) -> Command:
    """--index, as the keyword ``folder``."""
    return click.option(
        "--index",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=".ggrank",
        show_default=True,
        metavar="DIR",
        help="The index's own folder.",
    )(command)


def load_embedder(folder: Path, choice: ModelChoice) -> Llama:
    """The model that was asked for; without ``--model`` the one that the folder's index was made with."""
    from ggrank.search.opening import settings_of

    source = click.get_current_context().get_parameter_source("model")
    made = settings_of(folder) if source is ParameterSource.DEFAULT else None
    if made is None:
        return choice.load()
    from ggrank.search.models import load_embedder

    return load_embedder(
        made,
        n_ctx=choice.n_ctx,
        n_threads=choice.n_threads,
        n_gpu_layers=choice.n_gpu_layers,
        cache=choice.cache,
        engine=choice.engine,
    )
