"""The meaning of a model's name: a preset, a path on this disk, or a file of a Hugging Face repo."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from ggrank.errors import InputError, InputTypeError, ModelNotFoundError
from ggrank.hub.client import HubFile
from ggrank.hub.presets import Preset, bundled_path, presets

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


Location = Path | HubFile
"""A path that exists, or a file of a repo."""


def read_name(
    model: str | os.PathLike[str], *, filename: str | None = None, revision: str | None = None
) -> tuple[Location, Preset | None]:
    """Where the model of that name is, and the preset of that name.

    A path is a `pathlib.Path`, any string that ends in ``.gguf``, or a string with a path separator that
    exists.
    """
    name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else None
    if not isinstance(name, str):
        raise InputTypeError(f"A model is given by a string or a path, found {type(model).__name__}")
    if name in presets() and isinstance(model, str):
        return _preset(presets()[name], filename, revision)
    if not isinstance(model, str) or name.lower().endswith(".gguf") or _is_path(name):
        _refuse_repo_options(name, filename, revision)
        path = Path(name).expanduser()
        if not _exists(path):
            raise ModelNotFoundError(f"There is no file {name!r}.{_where_instead(path)}")
        return path, None
    if REPO_ID.fullmatch(name):
        return HubFile(name, filename, revision), None
    if name and _exists(Path(name)):
        raise ModelNotFoundError(
            f"{name!r} is no preset. If the file or directory here is meant, write './{name}'."
        )
    raise ModelNotFoundError(
        "Expected a preset, a path to a .gguf file, or a Hugging Face repo id (org/name), found "
        f"{name!r}.{_near(name, presets())} 'ggrank models' lists the presets."
    )


def _preset(preset: Preset, filename: str | None, revision: str | None) -> tuple[Location, Preset]:
    """A preset's file. Another file or revision of its repo has the prefixes, but no pinned sum."""
    if preset.bundled:
        _refuse_repo_options(preset.name, filename, revision)
        return bundled_path(preset), preset
    file = HubFile(preset.repo, filename or preset.file, revision or preset.revision)
    if (file.file, file.revision) == (preset.file, preset.revision):
        file = replace(file, sha256=preset.sha256, size=preset.size)
    return file, preset


def _refuse_repo_options(name: str, filename: str | None, revision: str | None) -> None:
    for option, value in (("filename", filename), ("revision", revision)):
        if value is not None:
            raise InputError(f"{option} {value!r} chooses inside a Hugging Face repo, but {name!r} is a file")


def _is_path(name: str) -> bool:
    return ("/" in name or os.sep in name) and _exists(Path(name).expanduser())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # no file can have this name: NUL bytes, or far too long
        return False


def _where_instead(path: Path) -> str:
    """A hint at what may have been meant by a path that does not exist."""
    repo = "/".join(path.parts[:2])
    if len(path.parts) == 3 and REPO_ID.fullmatch(repo) and not _exists(Path(path.parts[0])):
        return f" A file of a Hugging Face repo is given as {repo!r} with the filename {path.name!r}."
    for preset in presets().values():
        if preset.file_name.lower() == path.name.lower():
            return f" The preset {preset.name!r} has it: 'ggrank models download {preset.name}'."
    if not _exists(path.parent):
        return f" There is no directory {str(path.parent)!r} either."
    names = [file.name for file in path.parent.glob("*.gguf")]
    return _near(path.name, names) or f" The .gguf files there: {', '.join(sorted(names)) or 'none'}."


def _near(name: str, names: Iterable[str]) -> str:
    by_lower = {known.lower(): known for known in names}
    near = [repr(by_lower[found]) for found in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    return f" Did you mean {' or '.join(near)}?" if near else ""
