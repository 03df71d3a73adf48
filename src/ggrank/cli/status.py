"""``ggrank status``: what an index holds."""

from __future__ import annotations

from pathlib import Path

import click

from ggrank.cli.console import count, echo, echo_json, wants_table
from ggrank.cli.indexes import found_index_option
from ggrank.cli.options import output_option


@click.command(short_help="Say what an index holds.")
@found_index_option
@output_option
def status(folder: Path, as_table: bool | None) -> None:
    """Say what an index holds: files, passages, size, model, and when it was updated last.

    \b
    ggrank status
    ggrank status --index ~/notes/.ggrank --json
    """
    from ggrank import Index

    with Index.open(folder) as index:
        settings = index.settings
        n_files, n_documents, n_passages = index.n_files, index.n_documents, len(index)
        updated = f"{index.updated:%Y-%m-%d %H:%M}"
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if wants_table(as_table):
        echo(str(folder.resolve()), bold=True)
        contents = (count(n_files, "file"), count(n_documents, "document"), count(n_passages, "passage"))
        echo(f"{', '.join(contents)}; {n_bytes / 1e6:,.1f} MB, {settings.vectors}; updated {updated}")
        echo(settings.model, dim=True)
        return
    echo_json(
        {
            "index": str(folder.resolve()),
            "files": n_files,
            "documents": n_documents,
            "passages": n_passages,
            "bytes": n_bytes,
            "vectors": settings.vectors,
            "model": settings.model,
            "updated": updated,
        }
    )
