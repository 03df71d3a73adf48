"""What the commands over an index share: where it is, and the model that it was made with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ggrank.cli.options import Command, ModelChoice

if TYPE_CHECKING:
    from ggrank import Llama

DEFAULT_FOLDER = ".ggrank"


def _index_option(default: Callable[[], Path | None], shown: str) -> Callable[[Command], Command]:
    """--index and --name, as the keyword ``folder``; where neither is given, what ``default`` finds."""

    def decorated(command: Command) -> Command:
        @click.option(
            "--index",
            "folder",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help=f"The index's own folder; by default {shown}.",
        )
        @click.option("--name", metavar="NAME", help="An index of yours by its name, whatever the folder.")
        @wraps(command)
        def with_folder(*args: Any, folder: Path | None, name: str | None, **kwargs: Any) -> None:
            if folder and name:
                raise click.UsageError("--index and --name both say which index: give one of them.")
            command(*args, folder=named_index(name) if name else folder or default(), **kwargs)

        return with_folder

    return decorated


index_option = _index_option(lambda: Path(DEFAULT_FOLDER), DEFAULT_FOLDER)
found_index_option = _index_option(
    lambda: nearest_index() or Path(DEFAULT_FOLDER), f"{DEFAULT_FOLDER}, here or above"
)
any_index_option = _index_option(lambda: None, f"{DEFAULT_FOLDER}, here or above, and all with a name")
"""Without --index and --name ``folder`` is None."""


def named_index(name: str) -> Path:
    """The folder of an index with a name, there or not."""
    from ggrank.search.settings import indexes_folder

    if not re.fullmatch(r"\w[\w .-]*", name):
        raise click.UsageError(f"--name expects a name of letters, digits, '-', '_' and '.': {name!r}")
    return indexes_folder() / name


def nearest_index() -> Path | None:
    """The ``.ggrank`` of the current folder or of the nearest one above it; None where there is none."""
    folders = (Path(DEFAULT_FOLDER), *(folder / DEFAULT_FOLDER for folder in Path.cwd().parents))
    return next(filter(Path.is_dir, folders), None)


_OPERATORS = {"=": "==", "==": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_CONDITION = re.compile(r"\s*([^=!<>]+?)\s*(!=|<=|>=|==|=|<|>)\s*(.*?)\s*", re.DOTALL)


def parsed(conditions: Sequence[str]) -> dict[str, Any]:
    """``where`` of `Index.search` from the command line's words.

    Example:
        >>> parsed(["tags=staff", "year>=2020", "year<2025"])
        {'tags': {'==': 'staff'}, 'year': {'>=': 2020, '<': 2025}}
    """
    where: dict[str, dict[str, Any]] = {}
    for condition in conditions:
        found = _CONDITION.fullmatch(condition)
        if found is None:
            raise click.UsageError(f'--where expects "name=value", "name!=value" or alike: {condition!r}')
        name, operator, value = found.groups()
        where.setdefault(name, {})[_OPERATORS[operator]] = _value(value)
    return where


def _value(text: str) -> str | float | bool | None:
    """A number, true, false and null as what they are; anything else is a text."""
    try:
        value = json.loads(text, parse_constant=int)  # NaN and Infinity are words: int refuses them
    except (ValueError, RecursionError):
        return text
    return value if value is None or isinstance(value, (str, int, float)) else text


def load_embedder(folder: Path, choice: ModelChoice) -> Llama:
    """The model that was asked for; without ``--model`` the one that the folder's index was made with."""
    from ggrank.search.generations import settings_of

    source = click.get_current_context().get_parameter_source("model")
    made = settings_of(folder) if source is ParameterSource.DEFAULT else None
    if made is None:
        return choice.load()
    from ggrank.search.models import load_embedder

    return load_embedder(
        made,
        folder,
        n_ctx=choice.n_ctx,
        n_threads=choice.n_threads,
        n_gpu_layers=choice.n_gpu_layers,
        cache=choice.cache,
        engine=choice.engine,
    )
