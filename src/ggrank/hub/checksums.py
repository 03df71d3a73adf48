"""Checks that a file holds the expected bytes, without reading 400 MB at every start."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ggrank.errors import ChecksumError
from ggrank.rows import records

VERIFIED = "verified"
"""The record of files whose sum was taken: path -> size, mtime_ns, ctime_ns, sha256."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class Expected:
    """The bytes that a file should have; ``source`` ends the sentence "expected ..., as the hub names it"."""

    sha256: str | None = None
    size: int | None = None
    source: str = ""


def sha256_of(path: Path) -> str:
    """The file's sha256 as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check(path: Path, expected: Expected, *, again: bool = False) -> str:
    """The file's sha256, if it is the expected one; else ChecksumError, and the file stays as it is.

    A file that was checked before and has the same size and times of change is read again only if ``again``
    is true.
    """
    name, facts = str(path.absolute()), _facts(path)
    known = records.recall(VERIFIED).get(name)
    unchanged = isinstance(known, dict) and {**facts, "sha256": known.get("sha256")} == known
    found = str(known["sha256"]) if known and unchanged and not again else sha256_of(path)
    if expected.sha256 not in (None, found) or expected.size not in (None, facts["size"]):
        # The cache's entry is a link; deleting it alone would bring the same bytes back.
        real = path.resolve()
        size = "" if expected.size is None else f" and {expected.size:,} bytes"
        raise ChecksumError(
            f"{path.name} holds other bytes than it should: sha256 {found} and {facts['size']:,} bytes, "
            f"expected sha256 {expected.sha256 or 'unknown'}{size}, {expected.source}. "
            f"It is not loaded and was not deleted. It lies at {real}: delete it, then download again."
        )
    if not unchanged:
        records.remember(VERIFIED, {name: {**facts, "sha256": found}})
    return found


def _facts(path: Path) -> dict[str, Any]:
    status = path.stat()
    # ctime cannot be set: it shows that a file was replaced by another one with the same mtime.
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ctime_ns": status.st_ctime_ns}
