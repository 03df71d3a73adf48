"""``ggrank similar``: what else in an index means the same as a file or a text."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click

from ggrank.cli.indexes import found_index_option
from ggrank.cli.search import hits_output_option, show_hits
from ggrank.errors import InputError


@click.command(short_help="Find passages with the same meaning as a file.")
@click.argument("file_or_text", metavar="FILE|ID|TEXT")
@found_index_option
@click.option(
    "--top-n", "-n", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="The N best."
)
@hits_output_option
def similar(file_or_text: str, folder: Path, top_n: int, output: str | None) -> None:
    """Find passages of other documents with the same meaning as a file, an indexed document, or a text.

    \b
    ggrank similar notes/travel.md
    ggrank similar "trains, hotels and who pays for them"
    """
    from ggrank import Index
    from ggrank.search.lookup import check_no_path

    path = Path(file_or_text)
    with Index.open(folder) as index:
        if file_or_text not in index:
            if path.is_dir():
                raise InputError(f"{path} is a folder: give a file, or a text of several words")
            if path.is_file():
                file_or_text = _text_of(path)
            else:
                check_no_path(file_or_text)
        show_hits("", index.similar(file_or_text, top_n=top_n), output=output)


def _text_of(path: Path) -> str:
    """The text of a file that is not indexed."""
    from ggrank.rows.reading import read_errors
    from ggrank.search.readers import read_documents

    with read_errors(str(path)):
        texts = [document.text for document in islice(read_documents(path), 2)]
    if len(texts) != 1:
        raise InputError(f"{path} is a table, and not in the index: give the text of one of its rows")
    return texts[0]
