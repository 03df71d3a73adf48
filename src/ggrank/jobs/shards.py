"""Rows to shards: a shard is a slice of the rows of a unit, and a unit is a file or a group of small files.

Where a shard or a block ends follows from the rows alone, never from when a job was stopped: the last digits
of a text's numbers depend on the texts beside it, and so stay the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ggrank.errors import InputError
from ggrank.jobs.sources import STDIN
from ggrank.jobs.steps import Item, Step
from ggrank.rows.documents import is_plain_table
from ggrank.rows.reading import FileFormat, Row, format_of, read_rows

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


@dataclass
class Shard:
    """A slice of a unit's rows: the sound ones with what is computed of each, and the bad ones."""

    number: int
    rows: list[Row] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    bad: list[Row] = field(default_factory=list)
    size: int = 0
    is_done: bool = True
    """Whether an earlier run may have written it."""
    checksum: str = ""
    """Of the stream up to the shard's end, where the rows come from one."""

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


def grouped(sources: Iterable[str], file_format: FileFormat) -> list[list[str]]:
    """New files as units, in order: small ones together, but each of Parquet, whose columns differ, alone."""
    groups: list[list[str]] = []
    room = -1  # of the last group
    for source in sources:
        size = 0 if source == STDIN else Path(source).stat().st_size
        is_parquet = (format_of(source) if file_format == "auto" else file_format) == "parquet"
        if is_parquet or size > room:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(source)
        room = -1 if is_parquet else room - size
    return groups


def shards_of(
    sources: Sequence[str],
    step: Step,
    *,
    file_format: FileFormat,
    shard_rows: int,
    all_columns: bool,
    tell: Callable[[str], object],
) -> Iterator[Shard]:
    """The shards of a unit, in order.

    Args:
        all_columns: of Parquet too, all become Python values.
        tell: is called with what the user should know of how a file is read.

    Raises:
        InputError: a file cannot be read, lacks a column from its first row on, or has a new one already.
    """
    shard = Shard(0)
    columns = None if all_columns else step.read
    for source in sources:
        is_first = True
        for row in read_rows(sys.stdin.buffer if source == STDIN else source, file_format, columns=columns):
            if is_first and not row.problem:
                is_first = False
                _check_first(row, step, file_format, tell)
            _add(shard, row, step)
            if len(shard.rows) + len(shard.bad) >= shard_rows or shard.size >= SHARD_BYTES:
                yield shard
                shard = Shard(shard.number + 1)
    if shard.rows or shard.bad:
        yield shard


def _check_first(row: Row, step: Step, file_format: FileFormat, tell: Callable[[str], object]) -> None:
    is_guess = file_format == "auto" and row.file_format == "text"
    try:
        step.check_columns(row, list(row.values) if row.batch is None else row.batch.schema.names)
    except InputError as error:
        hint = "; --format says what the file is" if is_guess else ""
        raise InputError(f"{row.file}:{row.line}: {error}{hint}") from error
    if is_guess and row.file == "stdin":
        tell("stdin is read as lines, a text each; for columns say --format csv, tsv or jsonl")
    if not step.named and is_plain_table(row):
        tell(
            f"{row.file} has no column 'text': each text is all columns of a row, as 'name: value'; "
            "--text-column names the right one"
        )


def _add(shard: Shard, row: Row, step: Step) -> None:
    shard.size += row.size
    try:
        if taken := next((name for name in step.names if name in row.values), None):
            raise InputError(f"there is a column {taken!r} already")
        item = step.item(row)
    except InputError as error:
        shard.bad.append(replace(row, problem=str(error)))
    else:
        shard.rows.append(row)
        shard.items.append(item)
