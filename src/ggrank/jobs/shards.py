"""Rows to shards: a shard is a slice of the rows of a unit, and a unit is a file or a group of small files.

Where a shard or a block ends follows from the rows alone, never from when a job was stopped: the last digits
of a text's numbers depend on the texts beside it, and so stay the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ggrank.errors import InputError
from ggrank.jobs.sources import STDIN, Source
from ggrank.jobs.steps import Item, Step
from ggrank.rows.reading import Row, read_rows

SHARD_ROWS = 8192
"""Rows that are written together."""

SHARD_BYTES = 1 << 24
"""Of rows that are written together: memory stays flat when each is a book."""

GROUP_BYTES = 1 << 20
"""Of small files that make one unit: where one of them is changed, all are computed again."""

BLOCK_ROWS = 1024
"""Rows that are computed together, as many as `Llama` packs together."""

BLOCK_BYTES = 1 << 22
"""Of rows that are computed together."""


@dataclass(frozen=True)
class BadRow:
    """A row that was left out, and why."""

    file: str
    line: int
    reason: str


@dataclass
class Shard:
    """A slice of a unit's rows.

    Attributes:
        number: within its unit, from 0.
        rows, items, files: sound rows, what is computed of each, and where it is from.
        bad: rows that are left out.
        is_done: an earlier run may have written it.
        checksum: of the stream up to its end, where the rows come from one.
    """

    number: int
    rows: list[Row] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    size: int = 0
    is_done: bool = True
    checksum: str = ""

    def blocks(self) -> list[list[Item]]:
        """The items, in pieces that are computed together."""
        blocks: list[list[Item]] = []
        size = BLOCK_BYTES
        for row, item in zip(self.rows, self.items, strict=True):
            if size >= BLOCK_BYTES or len(blocks[-1]) >= BLOCK_ROWS:
                blocks.append([])
                size = 0
            blocks[-1].append(item)
            size += row.size
        return blocks


def grouped(sources: Iterable[Source]) -> list[list[Source]]:
    """New files as units, in order: small ones together, but each of Parquet, whose columns differ, alone."""
    groups: list[list[Source]] = []
    room = -1  # of the last group
    for source in sources:
        size = 0 if source.name == STDIN else Path(source.name).stat().st_size
        if source.is_parquet or size > room:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(source)
        room = -1 if source.is_parquet else room - size
    return groups


def shards_of(
    sources: Iterable[Source], step: Step, *, shard_rows: int, all_columns: bool
) -> Iterator[Shard]:
    """The shards of a unit, in order.

    Args:
        all_columns: of Parquet too, all become Python values.

    Raises:
        InputError: a file cannot be read, lacks a column from its first row on, or has a new one already.
    """
    shard = Shard(0)
    for source in sources:
        is_first = True
        for row in read_rows(
            sys.stdin.buffer if source.name == STDIN else source.name,
            source.file_format,
            columns=None if all_columns else step.read,
        ):
            if is_first and not row.problem:
                is_first = False
                _check_columns(row, step, source)
            _add(shard, row, step, source)
            if len(shard.rows) + len(shard.bad) >= shard_rows or shard.size >= SHARD_BYTES:
                yield shard
                shard = Shard(shard.number + 1)
    if shard.rows or shard.bad:
        yield shard


def _check_columns(row: Row, step: Step, source: Source) -> None:
    there = list(row.values) if row.batch is None else row.batch.schema.names
    if wrong := step.wrong_columns(there):
        hint = "; --format says what the file is" if there == ["text"] and "text" not in step.needed else ""
        raise InputError(f"{source.shown}:{row.line}: {wrong}{hint}")


def _add(shard: Shard, row: Row, step: Step, source: Source) -> None:
    shard.size += row.size
    problem = row.problem
    if not problem:
        taken = next((name for name in step.names if name in row.values), None)
        problem = f"there is a column {taken!r} already" if taken else ""
    try:
        item = None if problem else step.item(row.values)
    except InputError as error:
        problem = str(error)
    if problem:
        shard.bad.append(BadRow(source.shown, row.line, problem))
    else:
        shard.rows.append(row)
        shard.items.append(item)
        shard.files.append(source.shown)
