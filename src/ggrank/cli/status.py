"""``ggrank status``: what indexes hold."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from ggrank.cli.console import count, echo, echo_json, wants_table
from ggrank.cli.indexes import any_index_option, nearest_index
from ggrank.cli.options import output_option
from ggrank.errors import GgrankError, InputError


@click.command(short_help="Show what your indexes hold.")
@any_index_option
@output_option
def status(folder: Path | None, as_table: bool | None) -> None:
    """Show what indexes hold: files, passages, size, model, and when they were updated last.

    \b
    ggrank status             the nearest index, and all with a name
    ggrank status --index ~/notes/.ggrank --json
    """
    from ggrank.search.settings import indexes_folder

    named = sorted(indexes_folder().glob("*/"))
    folders = [folder] if folder else [*filter(None, [nearest_index()]), *named]
    if not folders:
        raise InputError(
            "there is no index in this folder, in none above it, and none with a name; make one with: "
            "ggrank index PATH"
        )
    for number, one in enumerate(folders):
        try:
            facts = _facts(one)
        except GgrankError as error:
            if folder:
                raise
            facts = {"problem": str(error)}
        facts = {"index": str(one.resolve()), "name": one.name if one in named else None, **facts}
        if wants_table(as_table):
            if number:
                echo()
            _echo(facts)
        else:
            echo_json(facts)


def _facts(folder: Path) -> dict[str, Any]:
    from ggrank import Index

    with Index.open(folder) as index:
        settings = index.settings
        n_files, n_documents, n_passages = index.n_files, index.n_documents, len(index)
        updated = index.updated.replace(tzinfo=None).isoformat(" ", "minutes")
    return {
        "files": n_files,
        "documents": n_documents,
        "passages": n_passages,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "vectors": settings.vectors,
        "model": settings.model,
        "updated": updated,
    }


def _echo(facts: dict[str, Any]) -> None:
    echo(" ".join(filter(None, [facts["name"], facts["index"]])), bold=True)
    if "problem" in facts:
        echo(facts["problem"])
        return
    contents = ", ".join(count(facts[f"{one}s"], one) for one in ("file", "document", "passage"))
    megabytes = f"{facts['bytes'] / 1e6:,.1f} MB, {facts['vectors']}"
    echo(f"{contents}; {megabytes}; updated {facts['updated']}, {_age(facts['updated'])}")
    echo(facts["model"], dim=True)


def _age(updated: str) -> str:
    minutes = int((datetime.now() - datetime.fromisoformat(updated)).total_seconds()) // 60
    for unit, length in (("day", 24 * 60), ("hour", 60), ("minute", 1)):
        if minutes >= length:
            return f"{count(minutes // length, unit)} ago"
    return "just now"
