"""A job's folder: parts, each there whole or not at all, and what is known of them.

    part-00000.parquet   (or .jsonl, .npy) rows
    _job.json            what the job is: which rows, model and settings; at the end, what came out
    _parts.log           a JSON line for each part that is done; a part counts once its line is on the disk
    _lock                locked by the one process that writes, as long as it lives
    _stdin               what came from there, as long as the job reads it

Names with an underscore are passed over by what reads folders of Parquet. Bad rows are in a file beside the
folder. Knows files and their order of writing; not how a part is computed.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ggrank.errors import InputError
from ggrank.jobs.blocks import BadRow
from ggrank.jobs.rows import Place
from ggrank.jobs.writing import append, encoded, sync, told, whole, write_json

JOB, LOG, LOCK, SPOOL = "_job.json", "_parts.log", "_lock", "_stdin"


@dataclass(frozen=True)
class PartRecord:
    """What is known of a part that is done.

    Attributes:
        part: its number.
        rows, bad_rows, truncated, n_tokens: how many it has, left out, has cut, and took.
        after: where the next part begins.
        size: of its file, in bytes.
        bad_size: of the file of bad rows, up to here.
    """

    part: int
    rows: int
    bad_rows: int
    truncated: int
    n_tokens: int
    after: Place
    size: int = 0
    bad_size: int = 0

    @classmethod
    def from_json(cls, line: str) -> PartRecord:
        """The same again. Raises ValueError where it is something else."""
        try:
            values = json.loads(line)
            return cls(**{**values, "after": Place(*values["after"])})
        except (TypeError, KeyError) as error:
            raise ValueError(str(error)) from error


class Parts:
    """The folder of one job, open to write; made by `open_parts`.

    Attributes:
        records: of the parts that are done, in order.
    """

    def __init__(self, folder: Path, *, suffix: str, bad: Path) -> None:
        self._folder, self._suffix, self._bad = folder, suffix, bad
        self.records = self._recover()

    def path(self, part: int) -> Path:
        """A part's file."""
        return self._folder / f"part-{part:05}{self._suffix}"

    def paths(self) -> list[Path]:
        """All parts that are done, in order."""
        return [self.path(record.part) for record in self.records]

    def commit(
        self, record: PartRecord, *, write: Callable[[Path], object], bad: Iterable[BadRow]
    ) -> PartRecord:
        """Writes a part; when this returns it is on the disk, and counts.

        Raises:
            InputError: it cannot be written; then it does not count.
        """
        path = self.path(record.part)
        with whole(path) as temporary:
            write(temporary)
        lines = "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in bad)
        before = self.records[-1].bad_size if self.records else 0
        if lines:
            append(self._bad, lines)
        bad_size = before + len(encoded(lines))
        facts = {**asdict(record), "size": path.stat().st_size, "bad_size": bad_size}
        append(self._folder / LOG, json.dumps(facts) + "\n")
        self.records.append(PartRecord.from_json(json.dumps(facts)))
        return self.records[-1]

    def complete(self, summary: Mapping[str, Any]) -> None:
        """Marks the job as done."""
        write_json(self._folder / JOB, {**read_json(self._folder / JOB), "summary": dict(summary)})

    def discard(self) -> None:
        """Removes the parts, not the bad rows; the folder is then that of a job before its first part."""
        with told(self._folder):
            (self._folder / LOG).unlink(missing_ok=True)
            for path in self.paths():
                path.unlink(missing_ok=True)

    def _recover(self) -> list[PartRecord]:
        """What counts, and everything else as it was when the last part that counts was done."""
        log = self._folder / LOG
        text = log.read_bytes() if log.exists() else b""
        lines = text[: text.rfind(b"\n") + 1]
        records = [self._checked(line, n) for n, line in enumerate(lines.decode("utf-8").splitlines())]
        if len(lines) < len(text):  # the line that was being written
            _cut(log, len(lines))
        if self._bad.exists():
            _cut(self._bad, records[-1].bad_size if records else 0)
        return records

    def _checked(self, line: str, number: int) -> PartRecord:
        try:
            record = PartRecord.from_json(line)
        except ValueError as error:
            raise InputError(
                f"{self._folder / LOG}: line {number + 1} is damaged ({error}); {_AWAY}"
            ) from error
        path = self.path(record.part)
        size = path.stat().st_size if path.exists() else None
        if size != record.size or record.part != number:
            found = "is gone" if size is None else f"has {size:,} bytes instead of {record.size:,}"
            raise InputError(f"{path} {found}; put it back, or {_AWAY}")
        return record


_AWAY = "remove the folder and begin anew"

_OPTIONS = {
    "text_columns": "--text-column",
    "query_column": "--query-column",
    "document_column": "--document-column",
    "column": "--output-column",
    "prefix": "--prefix",
    "dtype": "--dtype",
    "dimensions": "--dimensions",
    "normalize": "--normalize",
    "score": "--score",
    "truncate": "--truncate",
    "format": "--output-format",
    "part_rows": "--part-rows",
    "strict": "--strict",
    "model.n_ctx": "--n-ctx",
}
"""Settings of a job that an option gives, for messages."""


@contextmanager
def job_folder(folder: Path) -> Iterator[None]:
    """Makes the folder (and those above it) where there is none, and holds its lock: nobody else can work on
    the job meanwhile. What was made goes again where no part was done; what an earlier run left stays.

    Raises:
        InputError: something else is there, another process works on it, or it cannot be written.
    """
    with told(folder):
        if folder.exists() and not folder.is_dir():
            raise InputError(
                f"{folder} is a file, and a folder of parts should go there; name another --output"
            )
        if folder.exists() and not (folder / JOB).exists() and _others(folder):
            raise InputError(
                f"{folder} has other files in it, and no job's; name another folder for --output"
            )
        above = [parent for parent in folder.parents if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        is_new = not (folder / JOB).exists()
        try:
            yield
        finally:  # within the lock: another process that is refused has nothing to remove
            if is_new and folder.is_dir() and _has_no_part(folder):
                shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # those that others use by now stay
                for parent in above if not folder.exists() else ():
                    parent.rmdir()


def open_parts(
    folder: Path, job: Mapping[str, Any], *, suffix: str, bad: Path, sums: Mapping[str, str]
) -> Parts:
    """Begins a job in a folder whose lock is held, or goes on with the same one. A job that was killed before
    its first part has nothing to keep: whichever comes now begins anew.

    Args:
        job: what it is; every value that another job would have otherwise.
        suffix: of its parts.
        bad: the file for bad rows.
        sums: of the sources, to be kept.

    Raises:
        InputError: there is another job's output, or it cannot be written.
    """
    before = read_json(folder / JOB)
    if before and not _has_no_part(folder):
        check_same(before.get("job"), job, f"{folder} holds parts of another job", _AWAY)
    else:
        (folder / LOG).unlink(missing_ok=True)  # where a kill ended the removal of an older job
        write_json(folder / JOB, {"job": job, "sums": sums})
        bad.unlink(missing_ok=True)
    return Parts(folder, suffix=suffix, bad=bad)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file. Raises InputError where it is something else."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no job's ({error}); {_AWAY}") from error
    return found if isinstance(found, dict) else {}


def remove(folder: Path) -> None:
    """Removes a job's folder, the mark of being one last."""
    with told(folder):
        for path in folder.glob("part-*"):
            path.unlink()
        if folder.exists():
            shutil.rmtree(folder)


def _has_no_part(folder: Path) -> bool:
    """Whether a job in a folder is still before its first part."""
    return not (folder / LOG).exists() and not _others(folder)


def _others(folder: Path) -> bool:
    """Whether files are there that the beginning or the removal of a job does not leave."""
    ours = (JOB, f".{JOB}", LOG, LOCK, SPOOL)
    return any(not path.name.startswith(ours) for path in folder.iterdir())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, which dies with its process. Of SQLite only its locks are used, which every
    system has.
    """
    taken = f"{folder}: another process works on this job; wait until it is done"
    try:
        lock = sqlite3.connect(folder / LOCK, timeout=0, isolation_level=None)
    except sqlite3.Error as error:
        raise InputError(f"{folder}: cannot be written ({error})") from error
    with closing(lock):
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:  # of a full disk too; only from Python 3.11 on it has a code
            if "locked" in str(error):
                raise InputError(taken) from error
            raise InputError(f"{folder}: cannot be written ({error}); what is done is kept") from error
        if not (folder / LOCK).exists():  # who had it has removed the folder meanwhile
            raise InputError(taken)
        yield


def check_same(before: Any, now: Mapping[str, Any], found: str, away: str) -> None:
    """Raises InputError where a job is another than the one whose output is there.

    Args:
        found: what is there, for the message.
        away: how to get rid of it.
    """
    old = dict(_flat(before if isinstance(before, dict) else {}))
    for name, value in _flat(now):
        if old.get(name) != value:
            raise InputError(
                f"{found}: its {_OPTIONS.get(name, name)} was {_short(old.get(name))}, and now it is "
                f"{_short(value)}; use the same again, name another --output, or {away}"
            )


def _short(value: object) -> str:
    if value is None or value == []:
        return "not given"
    text = ", ".join(map(repr, value)) if isinstance(value, list) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted names."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _cut(path: Path, size: int) -> None:
    """A file without what was written behind ``size``; gone where nothing stays."""
    if size == 0:
        path.unlink()
    elif path.stat().st_size > size:
        os.truncate(path, size)
        sync(path)
