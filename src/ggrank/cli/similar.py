"""``ggrank similar``: what else in an index means the same as a file or a text."""

from __future__ import annotations

from pathlib import Path

import click

from ggrank.cli.indexes import find_document, found_index_option
from ggrank.cli.search import hits_output_option, show_hits
from ggrank.errors import InputError


@click.command(short_help="Find what means the same as a file.")
@click.argument("file_or_text", metavar="FILE|ID|TEXT")
@found_index_option
@click.option(
    "--top-n", "-n", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="The N best."
)
@hits_output_option
def similar(file_or_text: str, folder: Path, top_n: int, output: str | None) -> None:
    """Find passages of other documents that mean the same as an indexed file, a document, or a text.

    \b
    ggrank similar notes/travel.md
    ggrank similar "trains, hotels and who pays for them"
    """
    from ggrank import Index

    path = Path(file_or_text)
    looks_like_a_path = len(file_or_text.split()) == 1 and (path.suffix or len(path.parts) > 1)
    with Index.open(folder) as index:
        document = find_document(index, file_or_text)
        if document is None and looks_like_a_path and not path.is_file():
            raise InputError(f"there is no file {path}, and none of that name in the index")
        id = file_or_text if document is None or document.id is None else document.id
        show_hits("", index.similar(id, top_n=top_n), output=output)
