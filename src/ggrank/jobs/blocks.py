"""Rows to blocks: what is computed together, and what is written together.

Knows counts and sizes; no models, no files. Where a block ends follows from the rows alone, never from when a
job was stopped: a text's numbers move in their last digits with the texts beside it, and so stay the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from ggrank.errors import InputError
from ggrank.jobs.rows import Place, Row, RowReader
from ggrank.jobs.steps import Item, Step

BLOCK_ROWS = 1024
"""Rows that are computed together, as many as `Llama` packs together."""

BLOCK_BYTES = 1 << 22
"""Of rows that are computed together: memory stays flat when each is a book."""

PART_BYTES = 1 << 24
"""Of rows that are written together."""

DEFAULT_PART_ROWS = 8192
"""Rows that are written together: what a `kill -9` costs at most."""


@dataclass(frozen=True)
class BadRow:
    """A row that was left out, and why."""

    file: str
    line: int
    reason: str


@dataclass
class Block:
    """Rows that are computed together.

    Attributes:
        part: the number of the part that they belong to.
        rows, items: sound rows, and what is computed of each.
        bad: rows that were left out.
        after: where the next block begins.
        ends_part: whether it is the last of its part.
    """

    part: int
    after: Place
    rows: list[Row] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    bad: list[BadRow] = field(default_factory=list)
    ends_part: bool = False
    n_rows: int = 0
    size: int = 0

    def add(self, row: Row, item: Item | BadRow) -> None:
        """Takes a row, sound or bad."""
        if isinstance(item, BadRow):
            self.bad.append(item)
        else:
            self.rows.append(row)
            self.items.append(item)
        self.n_rows += 1
        self.size += row.size
        self.after = row.after

    @property
    def is_full(self) -> bool:
        """Whether no more rows should be computed with these."""
        return self.n_rows >= BLOCK_ROWS or self.size >= BLOCK_BYTES


class BlockReader:
    """Blocks of what a reader gives, from a part on.

    Args:
        reader: rows, from the part's first on.
        step: says what is computed from a row.
        part: the number of the part that begins there.
        part_rows: rows of a part at most.
        is_strict: a bad row is an error.
        hint: put behind that error.

    Raises:
        InputError: a bad row where ``is_strict``; or the first row that can be read lacks a column, or has a
            new one already, because then probably all do.
    """

    def __init__(
        self,
        reader: RowReader,
        step: Step,
        *,
        part: int,
        part_rows: int,
        is_strict: bool = False,
        hint: str = "",
    ) -> None:
        self._reader, self._step = reader, step
        self._part, self._part_rows, self._is_strict, self._hint = part, part_rows, is_strict, hint
        self._seen_one = part > 0

    def __iter__(self) -> Iterator[Block]:
        part, n_rows, size = self._part, 0, 0
        block = Block(part, self._reader.start)
        for row in self._reader:
            block.add(row, self._item(row))
            n_rows, size = n_rows + 1, size + row.size
            block.ends_part = n_rows >= self._part_rows or size >= PART_BYTES
            if not (block.ends_part or block.is_full):
                continue
            if block.ends_part:
                part, n_rows, size = part + 1, 0, 0
            yield block
            block = Block(part, block.after)
        if n_rows or part == 0:  # a job without rows has one part without rows, which names the columns
            block.ends_part = True
            yield block

    def _item(self, row: Row) -> Any:
        """What is computed from a row, or why it is bad."""
        name = self._reader.sources[row.source].shown
        self._check_first(row, name)
        try:
            return item_of(row, self._step)
        except InputError as error:
            problem = str(error)
        if self._is_strict:
            raise InputError(f"{name}:{row.line}: {problem}{self._hint}")
        return BadRow(name, row.line, problem)

    def _check_first(self, row: Row, name: str) -> None:
        """The first row that can be read must have the columns, and not the new ones."""
        if self._seen_one or row.problem:
            return
        self._seen_one = True
        wrong = "" if row.batch is not None else wrong_columns(self._step, row.values)
        if wrong:
            raise InputError(f"{name}:{row.line}: {wrong}")


def item_of(row: Row, step: Step) -> Item:
    """What is computed from a row. Raises InputError with the reason where the row is bad."""
    problem = row.problem or taken_column(step, row.values)
    if problem:
        raise InputError(problem)
    return step.item(row.values)


def wrong_columns(step: Step, there: Collection[str]) -> str:
    """What to say where a column is missing that a step needs, or a new one is there already; else ""."""
    missing = [column for column in step.needed if column not in there]
    if not missing:
        return taken_column(step, there)
    found = ", ".join(there) or "none"
    return (
        f"there is no column {missing[0]!r}; the columns are: {found}. Name the right one with "
        f"{step.column_options}"
    )


def taken_column(step: Step, there: Collection[str]) -> str:
    """What to say of an input that has a new column already; "" where it has none."""
    taken = next((name for name in (step.column, f"{step.column}_truncated") if name in there), None)
    if taken is None:
        return ""
    return f"there is a column {taken!r} already; give the new one another name with --output-column"
