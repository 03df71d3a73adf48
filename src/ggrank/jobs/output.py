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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from ggrank.errors import InputError
from ggrank.hub.checksums import sha256_of
from ggrank.jobs.shards import BadRow, Shard, grouped
from ggrank.jobs.sources import STDIN, Source
from ggrank.jobs.steps import Computed, Step
from ggrank.jobs.tables import Format, joined, kinds_in, kinds_of, misfit, table_of_values, write_jsonl
from ggrank.rows.writing import UNFINISHED, json_line, write_errors, write_json, written

JOB, LOCK = "_job.json", "_lock"


class Folder:
    """The output folder of one job."""

    def __init__(self, path: Path, format: Format, step: Step) -> None:
        self.path, self._format, self._step = path, format, step

    @cached_property
    def origins(self) -> dict[str, Any]:
        """What computed the new column, for the metadata of Parquet; loads the model."""
        return {self._step.column: self._step.origin()}

    # -- units

    def plan(
        self, sources: Sequence[Source], facts: Mapping[str, Any]
    ) -> tuple[list[list[Source]], list[str]]:
        """The units of all files: those of earlier runs, and after them the new files'. The shards of units
        whose files were changed are removed.

        Args:
            facts: what makes two jobs the same one.

        Returns:
            The units; and the names of files that earlier runs had and that are not there any more.

        Raises:
            InputError: the folder holds shards of another job.
        """
        before = self.recorded(facts)
        by_name = {source.name: source for source in sources}
        known = {name for names in before for name in names}
        for number, names in enumerate(before):
            present = [name for name in names if name in by_name]
            if self.is_changed(number, [by_name[name] for name in present]):
                self._reset(number)
                names[:] = present
        units = [[by_name[name] for name in names if name in by_name] for names in before]
        new = grouped(source for source in sources if source.name not in known)
        all_names = before + [[source.name for source in unit] for unit in new]
        write_json(self.path / JOB, {"job": facts, "units": all_names})
        return [*units, *new], sorted(known - by_name.keys())

    def recorded(self, facts: Mapping[str, Any]) -> list[list[str]]:
        """The names of each unit's files as an earlier run of the same job recorded them."""
        for path in self.path.glob(f".*{UNFINISHED}"):  # left by a killed process
            path.unlink(missing_ok=True)
        before = read_json(self.path / JOB)
        if self.shard_paths():
            found, remedy = f"{self.path} holds shards of another job", "remove the folder and begin anew"
            check_same(before.get("job", {}), facts, found, remedy)
            return list(before["units"])
        # There is nothing to keep: whichever job comes now begins anew.
        for path in (*self.path.glob("_*.json"), *self.bad_paths()):
            path.unlink()
        return []

    def is_changed(self, number: int, present: Sequence[Source]) -> bool:
        """Whether a unit has to be computed anew; one that is done stays when only files were removed."""
        unit = self.unit(number)
        files = unit.get("files", {})
        if unit and "counts" not in unit and len(present) < len(files):
            return True
        return any(not is_same(source, files[source.name]) for source in present if source.name in files)

    def _reset(self, number: int) -> None:
        """Removes a unit's shards, and then what says that they are right."""
        with write_errors(self.path):
            for pattern in (f"part-{number:05}-*", f"_part-{number:05}-*.bad", f"_unit-{number:05}.json"):
                for path in self.path.glob(pattern):
                    path.unlink()

    def unit(self, number: int) -> dict[str, Any]:
        """What is known of a unit; empty before it was begun."""
        return read_json(self._unit_path(number))

    def counts(self, number: int) -> dict[str, int] | None:
        """The counts of a unit that is done, whose shards are all there; else None."""
        unit = self.unit(number)
        shards = unit.get("shards", [])
        return (
            unit.get("counts") if all(self.shard_path(number, shard).exists() for shard in shards) else None
        )

    def begin(self, number: int, sources: Sequence[Source]) -> dict[str, Any]:
        """Records a unit's files, unless an earlier run did."""
        if found := self.unit(number):
            return found
        self._reset(number)
        unit = {"files": {source.name: facts_of(source) for source in sources}}
        self.record(number, unit)
        return unit

    def record(self, number: int, unit: Mapping[str, Any]) -> None:
        """Records what is known of a unit: once it is done, its shards and counts."""
        write_json(self._unit_path(number), unit)

    def _unit_path(self, number: int) -> Path:
        return self.path / f"_unit-{number:05}.json"

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

    def bad_paths(self) -> list[Path]:
        """All files of bad rows, in order."""
        return sorted(self.path.glob("_part-*.bad"))

    def n_bad(self, number: int, shard: Shard) -> int:
        """How many bad rows of a shard were written."""
        path = self.bad_path(number, shard.number)
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def write(self, number: int, shard: Shard, computed: Sequence[Computed]) -> None:
        """Writes a shard and its bad rows; when this returns they are on the disk."""
        if not shard.rows:
            self._write_bad(number, shard)
            return
        columns = joined([one.columns for one in computed])
        if self._format == "jsonl":
            self._write(number, shard, lambda path: write_jsonl(path, shard.rows, columns))
            return
        from ggrank.rows.parquet import table_of, with_columns, write_tables

        if shard.rows[0].batch is not None:
            table = table_of(shard.rows)
        else:
            kinds = kinds_of(shard.rows, self._kinds_before(number, shard.number))
            problems = [misfit(row, kinds) for row in shard.rows]
            keep = [i for i, problem in enumerate(problems) if not problem]
            shard.bad += [
                BadRow(file, row.line, problem)
                for file, row, problem in zip(shard.files, shard.rows, problems, strict=True)
                if problem
            ]
            table = table_of_values([shard.rows[i] for i in keep], kinds)
            columns = {name: values[keep] for name, values in columns.items()}
        table = with_columns(table, columns, self.origins)
        self._write(number, shard, lambda path: write_tables(path, iter([table]), table.schema))

    def _write_bad(self, number: int, shard: Shard) -> None:
        if shard.bad:
            with written(self.bad_path(number, shard.number)) as path:
                path.write_bytes(b"".join(json_line(asdict(bad)) for bad in shard.bad))

    def _write(self, number: int, shard: Shard, write: Callable[[Path], None]) -> None:
        self._write_bad(number, shard)
        with written(self.shard_path(number, shard.number)) as path:
            write(path)

    def _kinds_before(self, number: int, shard: int) -> dict[str, str]:
        """The kinds of the columns in the last shard before this one."""
        from ggrank.rows.parquet import schema_of

        for before in range(shard - 1, -1, -1):
            if (path := self.shard_path(number, before)).exists():
                return kinds_in(schema_of(path), self._step.names)
        return {}

    def assemble(self, path: Path) -> None:
        """One file of all shards."""
        if self._format == "jsonl":
            with path.open("wb") as file:
                for shard in self.shard_paths():
                    file.write(shard.read_bytes())
            return
        import pyarrow as pa
        import pyarrow.parquet as pq

        from ggrank.rows.parquet import schema_of, write_tables

        def tables() -> Iterator[pa.Table]:
            for shard in self.shard_paths():
                with pq.ParquetFile(shard) as file:  # `read_table` takes 100 MB
                    yield file.read(use_threads=False)

        schemas = [schema_of(shard) for shard in self.shard_paths()]
        write_tables(path, tables(), pa.unify_schemas(schemas).with_metadata(schemas[0].metadata))


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


def facts_of(source: Source) -> dict[str, Any]:
    """A file's size, time of change and sha256; empty for stdin."""
    if source.name == STDIN:
        return {}
    with _file_errors(source):
        status = Path(source.name).stat()
        return {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "sha256": sha256_of(Path(source.name)),
        }


def is_same(source: Source, facts: Mapping[str, Any]) -> bool:
    """Whether a file is what it was, by its size and time, or else by its sha256."""
    if not facts:  # stdin
        return True
    with _file_errors(source):
        status = Path(source.name).stat()
        if (status.st_size, status.st_mtime_ns) == (facts["size"], facts["mtime_ns"]):
            return True
        return bool(status.st_size == facts["size"] and sha256_of(Path(source.name)) == facts["sha256"])


@contextmanager
def _file_errors(source: Source) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{source.shown}: cannot be read ({error.strerror})") from error


def read_json(path: Path) -> dict[str, Any]:
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


def finished(output: Path, sources: Sequence[Source], facts: Mapping[str, Any]) -> dict[str, Any]:
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


def check_input(output: Path, sources: Sequence[Source], folder: Folder) -> None:
    """Raises InputError where the input is not that of the half-done job: a single file does not grow."""
    if folder.shard_paths():
        _check_input(output, sources, _files(folder), f"remove {folder.path} and begin anew")


def _files(folder: Folder) -> dict[str, Any]:
    """What is known of each file of the input."""
    units = enumerate(read_json(folder.path / JOB)["units"])
    return {name: folder.unit(n).get("files", {}).get(name, {}) for n, names in units for name in names}


def _check_input(output: Path, sources: Sequence[Source], known: Mapping[str, Any], remedy: str) -> None:
    if list(known) != [source.name for source in sources]:
        raise InputError(
            f"{output} has other files as its input, and one file does not grow: name a folder as --output, "
            f"or {remedy}"
        )
    for source in sources:
        if known[source.name] and not is_same(source, known[source.name]):
            raise InputError(f"{source.shown} was changed since {output} was begun; {remedy}")


def assemble_file(output: Path, folder: Folder, counts: Mapping[str, int]) -> None:
    """Writes the file, or only its bad rows where no row could be used."""
    bad = beside(output, ".bad.jsonl")
    bad.unlink(missing_ok=True)
    if paths := folder.bad_paths():
        with written(bad) as unfinished:
            unfinished.write_bytes(b"".join(path.read_bytes() for path in paths))
    if not counts["rows"]:
        return
    with written(output) as unfinished:
        folder.assemble(unfinished)
        mark = {"job": read_json(folder.path / JOB)["job"], "files": _files(folder), "counts": counts}
        checked = folder.unit(0).get("checked")
        # Before the file has its name: a kill leaves no file that nobody knows.
        write_json(
            beside(output, ".job.json"), {**mark, "checked": checked, "size": unfinished.stat().st_size}
        )
