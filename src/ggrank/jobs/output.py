"""A job's folder: shards, each there whole or not at all, and what is known of its units.

    part-00003-00000.parquet   (or .jsonl) the first shard of unit 3
    _part-00003-00000.bad      the rows that were left out of it, if any; written before the shard
    _unit-00003.json           the unit's files with size, time and sha256; once it is done, its counts
    _job.json                  what the job is: model and settings; and which files each unit has
    _lock                      locked by the one process that works on the job

Programs that read a folder of Parquet pass over names with an underscore.

Where one file is asked for, the folder is beside it until the last shard is done:

    corpus.parquet             the rows of all shards
    corpus.parquet.shards/     the shards, as long as the job is not done
    corpus.parquet.job.json    what the job was, and what came out
    corpus.parquet.bad.jsonl   the rows that were left out, where there are any
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ggrank.errors import InputError
from ggrank.hub.checksums import sha256_of
from ggrank.jobs.shards import Shard, grouped
from ggrank.jobs.sources import STDIN
from ggrank.jobs.steps import Computed, Step
from ggrank.rows import parquet
from ggrank.rows.reading import FileFormat, Row
from ggrank.rows.writing import UNFINISHED, json_line, locked, write_errors, write_json, written

JOB = "_job.json"

Format = Literal["parquet", "jsonl"]
"""How a job writes its rows."""

Json = dict[str, Any]


class Folder:
    """The output folder of one job."""

    def __init__(self, path: Path, format: Format, step: Step) -> None:
        self.path, self._format, self._step = path, format, step

    @cached_property
    def origins(self) -> Json:
        """What computed the new column, for the metadata of Parquet; loads the model."""
        return {self._step.column: self._step.origin()}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and locks it; an error before the first shard removes a new folder again."""
        path = self.path
        with write_errors(path):
            if path.exists() and not path.is_dir():
                raise InputError(
                    f"{path} is a file, and a folder of shards should go there; name another --output"
                )
            is_new = not (path / JOB).exists()
            if is_new and path.exists() and any(entry.name[0] not in "._" for entry in path.iterdir()):
                raise InputError(
                    f"{path} has other files in it, and no job's; name another folder for --output"
                )
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
            InputError: the folder holds shards of another job.
        """
        units = self._recorded(facts)
        wanted, known = set(sources), {name for names in units for name in names}
        changed = [number for number, names in enumerate(units) if self._is_changed(number, names, wanted)]
        for number in changed:
            gone = [name for name in units[number] if name not in wanted]
            units[number] = [name for name in units[number] if name in wanted]
            if gone and "rows" in self.unit(number):
                self._copy_rows(number, gone, to=len(units))
                units.append(gone)
        units += grouped([name for name in sources if name not in known], file_format)
        write_json(self.path / JOB, {"job": facts, "units": units})
        for number in changed:
            self._reset(number)
        return [[name for name in names if name in wanted] for names in units], sorted(known - wanted)

    def _recorded(self, facts: Json) -> list[list[str]]:
        """The names of each unit's files as an earlier run of the same job recorded them."""
        for path in self.path.glob(f".*{UNFINISHED}"):  # left by a killed process
            path.unlink(missing_ok=True)
        before = read_json(self.path / JOB)
        units: list[list[str]] = []
        if self.shard_paths():
            found, remedy = f"{self.path} holds shards of another job", "remove the folder and begin anew"
            check_same(before.get("job", {}), facts, found, remedy)
            units = list(before["units"])
        # Of no unit: what was there before the first shard, and copies that were cut off before the plan.
        for pattern in ("part-?????-*", "_part-?????-*.bad", "_unit-?????.json"):
            for path in self.path.glob(pattern):
                number = path.name.partition("-")[2][:5]
                if number.isdecimal() and int(number) >= len(units):
                    path.unlink()
        return units

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
        ends = dict(zip(unit["rows"], np.cumsum(list(unit["rows"].values())).tolist(), strict=True))
        slices = [slice(ends[name] - unit["rows"][name], ends[name]) for name in files if name in ends]
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
        self.record(
            to,
            {
                "files": {name: unit["files"][name] for name in files},
                "shards": [0] if slices else [],
                "rows": {name: n for name, n in unit["rows"].items() if name in files},
                "bad_rows": len(bad),
            },
        )

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

    def counts(self, number: int) -> dict[str, int] | None:
        """The counts of a unit that is done and whose shards are all there; else None."""
        unit = self.unit(number)
        if "rows" in unit and all(self.shard_path(number, shard).exists() for shard in unit["shards"]):
            return {"rows": sum(unit["rows"].values()), "bad_rows": unit["bad_rows"]}
        return None

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
                types = parquet.column_types(shard.rows, self._types_before(number, shard.number))
                problems = [parquet.misfit(row, types) for row in shard.rows]
                shard.bad += [
                    replace(row, problem=problem)
                    for row, problem in zip(shard.rows, problems, strict=True)
                    if problem
                ]
                keep = [i for i, problem in enumerate(problems) if not problem]
                table = parquet.typed_table([shard.rows[i] for i in keep], types)
                columns = {name: values[keep] for name, values in columns.items()}
            table = parquet.with_columns(table, columns, self.origins)
        if shard.bad:
            bad = [{"file": row.file, "line": row.line, "reason": row.problem} for row in shard.bad]
            _write_lines(self.bad_path(number, shard.number), bad)
        if shard.rows:
            with written(self.shard_path(number, shard.number)) as path:
                if table is not None:
                    parquet.write_table(path, table)
                else:
                    with path.open("wb") as file:
                        file.writelines(json_lines(shard.rows, columns))

    def _types_before(self, number: int, shard: int) -> parquet.Types:
        """The types of the columns in the last shard before this one."""
        paths = (self.shard_path(number, before) for before in range(shard - 1, -1, -1))
        if path := next((path for path in paths if path.exists()), None):
            schema = parquet.schema_of(path)
            return {field.name: str(field.type) for field in schema if field.name not in self._step.names}
        return {}


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


def check_same(before: Mapping[str, Any], now: Mapping[str, Any], found: str, remedy: str) -> None:
    """Raises InputError where a job is another than the one whose output is there.

    Args:
        found: what is there, for the message.
        remedy: how to get rid of it.
    """
    old = dict(_flat(before))
    for name, value in _flat(now):
        if old.get(name) != value:
            raise InputError(
                f"{found}: its {name} was {_short(old.get(name))}, and now it is {_short(value)}; "
                f"use the same again, name another --output, or {remedy}"
            )


def _short(value: object) -> str:
    text = "not given" if value in (None, []) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted names."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def facts_of(name: str) -> Json:
    """A file's size, time of change and sha256; empty for stdin."""
    if name == STDIN:
        return {}
    with _read_errors(name):
        status = Path(name).stat()
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sha256": sha256_of(Path(name))}


def is_same(name: str, facts: Json) -> bool:
    """Whether a file is what it was, by its size and time, or else by its sha256."""
    if not facts:  # stdin
        return True
    with _read_errors(name):
        status = Path(name).stat()
        if (status.st_size, status.st_mtime_ns) == (facts["size"], facts["mtime_ns"]):
            return True
        return bool(status.st_size == facts["size"] and sha256_of(Path(name)) == facts["sha256"])


@contextmanager
def _read_errors(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from error


def read_json(path: Path) -> Json:
    """A JSON object; empty where there is no file. Raises InputError where it is something else."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: is no job's ({error}); remove the folder and begin anew") from error
    return found if isinstance(found, dict) else {}


# -- one file as output


def beside(output: Path, ending: str) -> Path:
    """A file beside the output."""
    return output.with_name(output.name + ending)


def check_place(output: Path) -> None:
    """Raises InputError where the file's folder is missing, or where something else has its name."""
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output}: the folder {output.parent} does not exist; make it first")
    if output.is_dir():
        raise InputError(
            f"{output} is a folder, and a file should go there; name another --output, or end the name with "
            "a slash for a folder of shards"
        )
    if output.exists() and not beside(output, ".job.json").exists():
        raise InputError(f"{output} is there, and no job made it; remove it, or name another --output")


def finished(output: Path, sources: Sequence[str], facts: Json) -> Json:
    """What is known of the job that made the file; empty where the file is not there.

    Raises:
        InputError: it was another job, or the file was changed since.
    """
    if not output.exists():
        return {}
    mark = read_json(beside(output, ".job.json"))
    remedy = f"remove {output} and begin anew"
    check_same(mark.get("job", {}), facts, f"{output} is of another job", remedy)
    if output.stat().st_size != mark["size"]:
        raise InputError(f"{output} was changed since its job wrote it; {remedy}")
    _check_input(output, sources, mark["files"], remedy)
    return mark


def check_input(output: Path, sources: Sequence[str], folder: Folder) -> None:
    """Raises InputError where the input is not that of the half-done job: a single file does not grow."""
    if folder.shard_paths():
        _check_input(output, sources, _files(folder), f"remove {folder.path} and begin anew")


def _files(folder: Folder) -> Json:
    """What is known of each file of the input."""
    units = enumerate(read_json(folder.path / JOB)["units"])
    return {name: folder.unit(n).get("files", {}).get(name, {}) for n, names in units for name in names}


def _check_input(output: Path, sources: Sequence[str], known: Json, remedy: str) -> None:
    if list(known) != list(sources):
        raise InputError(
            f"{output} has other files as its input, and one file does not grow: name a folder as --output, "
            f"or {remedy}"
        )
    for name in sources:
        if known[name] and not is_same(name, known[name]):
            raise InputError(f"{name} was changed since {output} was begun; {remedy}")


def assemble(output: Path, folder: Folder, counts: Mapping[str, int]) -> None:
    """Joins the shards to one file, or writes only the bad rows where no row could be used."""
    bad = beside(output, ".bad.jsonl")
    bad.unlink(missing_ok=True)
    if counts["bad_rows"]:
        with written(bad) as unfinished:
            _concatenate(unfinished, sorted(folder.path.glob("_part-*.bad")))
    if not counts["rows"]:
        return
    with written(output) as unfinished:
        shards = folder.shard_paths()
        if shards[0].suffix == ".jsonl":
            _concatenate(unfinished, shards)
        else:
            parquet.join_files(unfinished, shards)
        mark = {"job": read_json(folder.path / JOB)["job"], "files": _files(folder), "counts": counts}
        mark |= {"checked": folder.unit(0).get("checked"), "size": unfinished.stat().st_size}
        # Before the file has its name: a kill leaves no file that has no record.
        write_json(beside(output, ".job.json"), mark)


def _concatenate(path: Path, parts: Sequence[Path]) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part.read_bytes())
