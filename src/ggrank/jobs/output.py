"""A job's folder: shards, each there whole or not at all, and what is known of its units.

    part-00003-00000.parquet   (or .jsonl) the first shard of unit 3
    _part-00003-00000.bad      the rows that were left out of it, if any; written before the shard
    _unit-00003.json           the unit's files with size, time and sha256; once it is done, its counts
    _job.json                  what the job is: model and settings; and which files each unit has
    _lock                      locked by the one process that works on the job

Programs that read a folder of Parquet pass over names with an underscore. Where one file is asked for:

    corpus.parquet             the rows of all shards
    corpus.parquet.bad.jsonl   the rows that were left out, where there are any
    corpus.parquet.job/        the folder: its shards until all are done, and what is known
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ggrank.errors import InputError
from ggrank.hub.checksums import sha256_of
from ggrank.jobs.shards import Shard, grouped
from ggrank.jobs.sources import BAD, RECORD, STDIN
from ggrank.jobs.steps import Computed, Step
from ggrank.rows import parquet
from ggrank.rows.reading import FileFormat, Row, read_errors
from ggrank.rows.writing import UNFINISHED, json_line, locked, write_errors, write_json, written

JOB = "_job.json"

Format = Literal["parquet", "jsonl"]
"""How a job writes its rows."""

Json = dict[str, Any]


class Folder:
    """The output folder of one job, or the one beside its single output file."""

    def __init__(self, output: Path, format: Format, step: Step, *, is_file: bool) -> None:
        self.output, self._format, self._step, self._is_file = output, format, step, is_file
        self.path = output.with_name(output.name + RECORD) if is_file else output

    @cached_property
    def origins(self) -> Json:
        """What computed the new column, for the metadata of Parquet; loads the model."""
        return {self._step.column: self._step.origin()}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and locks it; an error before the first shard removes a new folder again."""
        self._check_place()
        path = self.path
        with write_errors(path):
            is_new = not (path / JOB).exists()
            above = [parent for parent in path.absolute().parents if not parent.exists()]
            path.mkdir(parents=True, exist_ok=True)
        with locked(
            path / "_lock", taken=f"{path}: another process works on this job; wait until it is done"
        ):
            try:
                yield
            except BaseException:
                if is_new and not self.shard_paths():
                    shutil.rmtree(path, ignore_errors=True)
                    with suppress(OSError):  # folders that others use by now stay
                        for parent in above:
                            parent.rmdir()
                raise

    def _check_place(self) -> None:
        """Raises InputError where something else has the output's name, or a file's folder is missing."""
        output, path = self.output, self.path
        is_ours = (path / JOB).exists()
        if self._is_file and not output.absolute().parent.is_dir():
            raise InputError(f"{output}: the folder {output.parent} does not exist; make it first")
        if self._is_file and output.is_dir():
            raise InputError(
                f"{output} is a folder, and a file should go there; name another --output, or end the name "
                "with a slash for a folder of shards"
            )
        if self._is_file and output.exists() and not is_ours:
            raise InputError(f"{output} is there, and no job made it; remove it, or name another --output")
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file, and a folder should go there; name another --output")
        if path.exists() and not is_ours and any(entry.name[0] not in "._" for entry in path.iterdir()):
            raise InputError(f"{path} has other files in it, and no job's; name another folder for --output")

    # -- units

    def plan(
        self, sources: Sequence[str], facts: Json, file_format: FileFormat
    ) -> tuple[list[list[str]], list[str]]:
        """The units of all files: those of earlier runs, and after them the new files'. The shards of units
        whose files were changed are removed; the rows of files that are gone stay.

        Args:
            facts: what makes two jobs the same one.

        Returns:
            The units; and the names of files that earlier runs had and that are not there any more.

        Raises:
            InputError: there is another job's output, or its single file cannot take in new rows.
        """
        units = self._recorded(facts)
        wanted, known = set(sources), [name for names in units for name in names]
        changed = [number for number, names in enumerate(units) if self._is_changed(number, names, wanted)]
        if self._is_file and units and (changed or known != list(sources)):
            raise InputError(
                f"{self.output} was begun with other files, or one was changed since, and one file does not "
                f"grow: name a folder as --output, or remove {self.path} and begin anew"
            )
        for number in changed:
            gone = [name for name in units[number] if name not in wanted]
            units[number] = [name for name in units[number] if name in wanted]
            if gone and "rows" in self.unit(number):
                self._copy_rows(number, gone, to=len(units))
                units.append(gone)
        units += grouped([name for name in sources if name not in known], file_format)
        if not self.is_finished:
            write_json(self.path / JOB, {"job": facts, "units": units})
        for number in changed:
            self._reset(number)
        return [[name for name in names if name in wanted] for names in units], sorted({*known} - wanted)

    def _recorded(self, facts: Json) -> list[list[str]]:
        """The names of each unit's files as an earlier run of the same job recorded them."""
        for path in self.path.glob(f".*{UNFINISHED}"):  # left by a killed process
            path.unlink(missing_ok=True)
        before = read_json(self.path / JOB)
        units: list[list[str]] = []
        if self.shard_paths() or self.is_finished:
            self._check_same(before, facts)
            units = before["units"]
        # Of no unit: what was there before the first shard, and copies that were cut off before the plan.
        for pattern in ("part-?????-*", "_part-?????-*.bad", "_unit-?????.json"):
            for path in self.path.glob(pattern):
                number = path.name.partition("-")[2][:5]
                if number.isdecimal() and int(number) >= len(units):
                    path.unlink()
        return units

    def _check_same(self, before: Json, facts: Json) -> None:
        remedy = f"remove {self.output} and {self.path}" if self._is_file else "remove the folder"
        for name, value in facts.items():
            old = before.get("job", {}).get(name)
            if old != value:
                raise InputError(
                    f"{self.output} is of another job: its {name} was {_short(old)}, and now it is "
                    f"{_short(value)}; use the same again, name another --output, or {remedy} and begin anew"
                )
        if self.is_finished and self.output.stat().st_size != before.get("size"):
            raise InputError(f"{self.output} was changed since its job wrote it; {remedy} and begin anew")

    def _is_changed(self, number: int, names: Sequence[str], wanted: set[str]) -> bool:
        """Whether a unit has to be computed anew; one that is done stays when only files were removed."""
        unit = self.unit(number)
        present = [name for name in names if name in wanted]
        if unit and "rows" not in unit and len(present) < len(names):
            return True
        files = unit.get("files", {})
        return any(not is_same(name, files[name]) for name in present if name in files)

    def _copy_rows(self, number: int, files: Sequence[str], *, to: int) -> None:
        """Copies what a finished unit has of these files to another one, as its only shard."""
        unit = self.unit(number)
        rows, ends = unit["rows"], list(accumulate(unit["rows"].values()))
        slices = [slice(end - rows[name], end) for name, end in zip(rows, ends, strict=True) if name in files]
        paths = [self.shard_path(number, shard) for shard in unit["shards"]]
        if bad := [row for row in self.bad_rows(number) if row["file"] in files]:
            _write_lines(self.bad_path(to, 0), bad)
        if slices:
            with written(self.shard_path(to, 0)) as unfinished:
                if self._format == "jsonl":
                    lines = b"".join(path.read_bytes() for path in paths).splitlines(keepends=True)
                    unfinished.write_bytes(b"".join(line for one in slices for line in lines[one]))
                else:
                    parquet.copy_rows(unfinished, paths, slices)
        found = {"files": {name: unit["files"][name] for name in files}, "shards": [0] if slices else []}
        kept = {name: n for name, n in rows.items() if name in files}
        self.record(to, {**found, "rows": kept, "bad_rows": len(bad)})

    def _reset(self, number: int) -> None:
        """Removes a unit's shards, and then what says that they are right."""
        with write_errors(self.path):
            for pattern in (f"part-{number:05}-*", f"_part-{number:05}-*.bad", f"_unit-{number:05}.json"):
                for path in self.path.glob(pattern):
                    path.unlink()

    def unit(self, number: int) -> Json:
        """What is known of a unit; empty before it was begun."""
        return read_json(self.path / f"_unit-{number:05}.json")

    def record(self, number: int, unit: Json) -> None:
        """Records what is known of a unit."""
        write_json(self.path / f"_unit-{number:05}.json", unit)

    def is_done(self, number: int) -> bool:
        """Whether a unit is done and all of its shards are there, or were when the single file was made."""
        unit = self.unit(number)
        paths = (self.shard_path(number, shard) for shard in unit.get("shards", ()))
        return "rows" in unit and (self.is_finished or all(path.exists() for path in paths))

    def counts(self, n_units: int) -> dict[str, int]:
        """The rows, bad rows and shards of all units."""
        units = [self.unit(number) for number in range(n_units)]
        return {
            "rows": sum(sum(unit.get("rows", {}).values()) for unit in units),
            "bad_rows": sum(unit.get("bad_rows", 0) for unit in units),
            "shards": sum(len(unit.get("shards", ())) for unit in units),
        }

    def begin(self, number: int, names: Sequence[str]) -> Json:
        """Records a unit's files, unless an earlier run did."""
        if found := self.unit(number):
            return found
        self._reset(number)
        unit = {"files": {name: facts_of(name) for name in names}}
        self.record(number, unit)
        return unit

    # -- shards

    def shard_path(self, number: int, shard: int) -> Path:
        """A shard's file."""
        return self.path / f"part-{number:05}-{shard:05}.{self._format}"

    def bad_path(self, number: int, shard: int) -> Path:
        """The file of a shard's bad rows."""
        return self.path / f"_part-{number:05}-{shard:05}.bad"

    def shard_paths(self) -> list[Path]:
        """All shards, in order."""
        return sorted(self.path.glob(f"part-*.{self._format}"))

    def bad_rows(self, number: int, shard: int | None = None) -> list[Json]:
        """The bad rows that were written of a unit, or of one of its shards."""
        pattern = self.bad_path(number, shard).name if shard is not None else f"_part-{number:05}-*.bad"
        paths = sorted(self.path.glob(pattern))
        return [json.loads(line) for path in paths for line in path.read_bytes().splitlines()]

    def write(self, number: int, shard: Shard, computed: Sequence[Computed]) -> None:
        """Writes a shard and its bad rows; when this returns they are on the disk."""
        columns, table = joined(computed), None
        if shard.rows and self._format == "parquet":
            if shard.rows[0].batch is not None:
                table = parquet.table_of(shard.rows)
            else:
                table, problems = parquet.typed_table(shard.rows, self._types_before(number, shard.number))
                shard.bad += [replace(shard.rows[i], problem=problem) for i, problem in problems.items()]
                columns = {
                    name: np.delete(values, list(problems), axis=0) for name, values in columns.items()
                }
            table = parquet.with_columns(table, columns, self.origins)
        if shard.bad:
            bad = [{"file": row.file, "line": row.line, "reason": row.problem} for row in shard.bad]
            _write_lines(self.bad_path(number, shard.number), bad)
        if shard.rows:
            with written(self.shard_path(number, shard.number)) as path:
                if table is not None:
                    parquet.write_tables(path, [table], table.schema)
                else:
                    with path.open("wb") as file:
                        file.writelines(json_lines(shard.rows, columns))

    def _types_before(self, number: int, shard: int) -> dict[str, str]:
        """The types of the columns in the last shard before this one."""
        paths = (self.shard_path(number, before) for before in range(shard - 1, -1, -1))
        if path := next((path for path in paths if path.exists()), None):
            schema = parquet.schema_of(path)
            return {field.name: str(field.type) for field in schema if field.name not in self._step.names}
        return {}

    # -- one file

    @property
    def is_finished(self) -> bool:
        """Whether the single file was made of the shards."""
        return self._is_file and self.output.exists()

    def finish(self) -> None:
        """Joins the shards to the single file; only its bad rows are written where no row could be used."""
        if self._is_file and not self.is_finished:
            bad, bad_parts = (
                self.output.with_name(self.output.name + BAD),
                sorted(self.path.glob("_part-*.bad")),
            )
            bad.unlink(missing_ok=True)
            if bad_parts:
                with written(bad) as unfinished:
                    _concatenate(unfinished, bad_parts)
            if shards := self.shard_paths():
                with written(self.output) as unfinished:
                    if self._format == "jsonl":
                        _concatenate(unfinished, shards)
                    else:
                        parquet.join_files(unfinished, shards)
                    # Before the file has its name: a kill leaves no file that has no record.
                    size = {"size": unfinished.stat().st_size}
                    write_json(self.path / JOB, read_json(self.path / JOB) | size)
        if self.is_finished:
            for path in (*self.shard_paths(), *self.path.glob("_part-*.bad")):
                path.unlink()


def joined(computed: Sequence[Computed]) -> dict[str, Any]:
    """The new columns of blocks after one another."""
    names = computed[0].columns if computed else ()
    return {name: np.concatenate([block.columns[name] for block in computed]) for name in names}


def json_lines(rows: Sequence[Row], columns: Mapping[str, Any]) -> Iterator[bytes]:
    """A JSON object for each row, with the new columns after its own."""
    for i, row in enumerate(rows):
        yield json_line({**row.values, **{name: column[i] for name, column in columns.items()}})


def _write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    with written(path) as unfinished:
        unfinished.write_bytes(b"".join(map(json_line, records)))


def _concatenate(path: Path, parts: Sequence[Path]) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())


def _short(value: object) -> str:
    text = "not given" if value in (None, []) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def facts_of(name: str) -> Json:
    """A file's size, time of change and sha256; empty for stdin."""
    if name == STDIN:
        return {}
    with read_errors(name):
        status = Path(name).stat()
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256_of(Path(name))}


def is_same(name: str, facts: Json) -> bool:
    """Whether a file is what it was, by its size and time, or else by its sha256."""
    if not facts:  # stdin
        return True
    with read_errors(name):
        status = Path(name).stat()
        if (status.st_size, status.st_mtime_ns) == (facts["size"], facts["mtime_ns"]):
            return True
        return bool(status.st_size == facts["size"] and sha256_of(Path(name)) == facts["sha256"])


def read_json(path: Path) -> Json:
    """A JSON object; empty where there is no file. Raises InputError where it is something else."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no job's ({error}); remove the folder and begin anew") from error
    return found if isinstance(found, dict) else {}
