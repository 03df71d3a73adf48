"""A job whose output is one file: its shards are in a folder beside it until the last one is done.

corpus.parquet             the rows of all shards
corpus.parquet.shards/     the shards, as long as the job is not done
corpus.parquet.job.json    what the job was, and what came out
corpus.parquet.bad.jsonl   the rows that were left out, where there are any
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ggrank.errors import InputError
from ggrank.jobs.output import JOB, Folder, check_same, is_same, read_json
from ggrank.jobs.sources import Source
from ggrank.rows.writing import write_json, written


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


def assemble(output: Path, folder: Folder, counts: Mapping[str, int]) -> None:
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
