"""Small facts that ggrank remembers between runs, as JSON files in the user's cache directory.

A cache that cannot be written is no error: the fact is found out again next time.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ggrank.errors import InputError
from ggrank.rows.writing import write_json


def cache_dir() -> Path:
    """The directory of ggrank's own records: ``$GGRANK_CACHE_DIR``, or in the platform's place for caches."""
    if chosen := os.environ.get("GGRANK_CACHE_DIR"):
        return Path(chosen)
    try:
        home = Path.home()
    except RuntimeError:  # a user without a home, as containers run them
        home = Path(os.devnull)
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "ggrank"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "ggrank"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "ggrank"


def recall(name: str) -> dict[str, Any]:
    """The facts remembered under ``name``; empty when there are none, or when they are damaged."""
    try:
        facts = json.loads((cache_dir() / f"{name}.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


def remember(name: str, facts: dict[str, Any]) -> bool:
    """Adds ``facts`` to those under ``name``; False where the file cannot be replaced.

    Two processes that write at the same moment both leave a whole file; the later one wins.
    """
    return _write(name, {**recall(name), **facts})


def forget(name: str, keys: Iterable[str]) -> bool:
    """Takes these facts out of those under ``name``; False where the file cannot be replaced."""
    gone = set(keys)
    return _write(name, {key: fact for key, fact in recall(name).items() if key not in gone})


def _write(name: str, facts: dict[str, Any]) -> bool:
    directory = cache_dir()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / f"{name}.json", dict(sorted(facts.items())))
    except (OSError, InputError):
        return False
    return True
