"""What the commands over an index share: where it is, and the model that it was made with."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ggrank.cli.options import Command, ModelChoice

if TYPE_CHECKING:
    from ggrank import Llama

DEFAULT_FOLDER = ".ggrank"


def index_option(command: Command) -> Command:
    """--index, as the keyword ``folder``."""
    return _index_option(DEFAULT_FOLDER, True)(command)


def found_index_option(command: Command) -> Command:
    """--index, as the keyword ``folder``; without it the ``.ggrank`` of this folder or of one above it."""
    return _index_option(lambda: nearest_index() or Path(DEFAULT_FOLDER), ".ggrank, here or above")(command)


def _index_option(default: str | Callable[[], Path], shown: str | bool) -> Callable[[Command], Command]:
    return click.option(
        "--index",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        default=default,
        show_default=shown,
        metavar="DIR",
        help="The index's own folder.",
    )


def nearest_index() -> Path | None:
    """The ``.ggrank`` of the current folder or of the nearest one above it; None where there is none."""
    if Path(DEFAULT_FOLDER).is_dir():
        return Path(DEFAULT_FOLDER)
    return next(filter(Path.is_dir, (folder / DEFAULT_FOLDER for folder in Path.cwd().parents)), None)


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
        n_ctx=choice.n_ctx,
        n_threads=choice.n_threads,
        n_gpu_layers=choice.n_gpu_layers,
        cache=choice.cache,
        engine=choice.engine,
    )
