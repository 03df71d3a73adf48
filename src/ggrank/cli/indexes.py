"""What `index` and `search` share: where the index is, and the model that it was made with.

Knows options, and how a model is loaded again that an index remembers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from ggrank.cli.options import Command, ModelChoice

if TYPE_CHECKING:
    from ggrank import Llama
    from ggrank.search.index import IndexSettings


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


def load_embedder(folder: Path, choice: ModelChoice, *, anew: bool = False) -> Llama:
    """The model that was asked for; without ``--model`` the one that the folder's index was made with."""
    from ggrank.search.folder import exists, settings_of

    source = click.get_current_context().get_parameter_source("model")
    if anew or source is not ParameterSource.DEFAULT or not exists(folder):
        return choice.load()
    return _load_again(settings_of(folder), choice)


def _load_again(made: IndexSettings, choice: ModelChoice) -> Llama:
    from ggrank import Llama, PoolingType
    from ggrank.hub import presets

    named = [preset.name for preset in presets().values() if preset.file_name == Path(made.model).name]
    return Llama.load(
        named[0] if named else made.model,
        pooling_type=PoolingType[made.pooling_type],
        n_ctx=choice.n_ctx or made.n_ctx,
        n_threads=choice.n_threads,
        n_gpu_layers=choice.n_gpu_layers,
        query_prefix=made.query_prefix,
        document_prefix=made.document_prefix,
        cache=choice.cache,
        engine=cast(Any, choice.engine),  # one of click's choices
    )
