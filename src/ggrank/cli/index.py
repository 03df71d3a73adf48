"""``ggrank index``: files and folders into an index on disk, which ``ggrank search`` searches."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggrank.cli.console import count, echo, echo_facts, echo_json, one_line, progress_bar, wants_table
from ggrank.cli.indexes import DEFAULT_FOLDER, index_option, load_embedder, nearest_index
from ggrank.cli.options import ModelChoice, model_options, output_option
from ggrank.cli.ranking import LONG, speed_hint
from ggrank.cli.search import from_here
from ggrank.cli.watching import check_watching, follow, summary
from ggrank.errors import InputError

if TYPE_CHECKING:
    from ggrank import Llama
    from ggrank.search.index import Changes, Index, IndexProgress
    from ggrank.search.update import Skipped
    from ggrank.search.vectors import VectorType

KINDS, MANY = 8, 3
"""Suffixes that a note counts, and files with the same problem that are named."""

NAMES = "--verbose names them"


@click.command(short_help="Index files and folders for search.")
@click.argument("paths", nargs=-1, type=click.Path(), metavar="[PATH]...")
@index_option
@click.option(
    "--vectors",
    type=click.Choice(["float32", "int8"]),
    help="How vectors are stored: float32 (the default), or int8 in a quarter of the space.",
)
@click.option(
    "--chunk-tokens", type=click.IntRange(min=16), metavar="N", help="Most tokens of a passage; 200."
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    metavar="N",
    help="Most tokens that a passage repeats of the one before; 40.",
)
@click.option(
    "--forget",
    multiple=True,
    type=click.Path(),
    metavar="PATH",
    help="Remove a file or folder and all below it, also if it is no longer on the disk. Repeatable.",
)
@click.option("--rebuild", is_flag=True, help="Make a new index, with other settings or another model.")
@click.option("--prune", is_flag=True, help="Remove files that are gone, even more than half of a folder.")
@click.option(
    "--include",
    multiple=True,
    metavar="GLOB",
    help='Only files such as "*.md", whatever their format. Repeatable; remembered; "" clears it.',
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="GLOB",
    help='Skip files and folders such as "drafts/". Repeatable; remembered; "" clears it.',
)
@click.option(
    "--max-file-size",
    "max_megabytes",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MB",
    help="Skip files larger than this, except CSV, TSV, JSONL and Parquet; 10. Remembered.",
)
@click.option("--watch", "-w", is_flag=True, help="Stay, and keep the index up to date; Ctrl-C ends it.")
@click.option("--verbose", "-v", is_flag=True, help="Name the skipped files.")
@model_options
@output_option
def index(
    paths: tuple[str, ...],
    folder: Path,
    vectors: VectorType | None,
    chunk_tokens: int | None,
    overlap: int | None,
    forget: tuple[str, ...],
    rebuild: bool,
    prune: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    max_megabytes: float | None,
    watch: bool,
    verbose: bool,
    choice: ModelChoice,
    as_table: bool | None,
) -> None:
    """Index files and folders: text, Markdown, code, HTML, PDF, Office, mail, notebooks and tables.

    \b
    ggrank index notes/ papers/ handbook.pdf
    ggrank index                          update what was indexed before
    ggrank index corpus.jsonl             a line: {"id": ..., "text": ...}
    ggrank index notes/ --exclude drafts/ --name notes
    ggrank index --watch                  stay, and follow what changes
    ggrank index --forget papers/         remove it from the index

    Only files that changed are read, and only passages that are new are embedded. Ctrl-C loses nothing: the
    same command goes on. HTML, EPUB, mail and PDF need an extra, pip install 'ggrank[files]', Parquet
    'ggrank[corpus]', and --watch 'ggrank[watch]'.
    """
    from ggrank import Index

    if forget:
        if paths or rebuild:
            raise click.UsageError(
                "--forget goes alone. What has moved costs nothing where you index its new place first."
            )
        _forget(folder, forget, as_table)
        return
    _check_folder(folder, paths)
    if watch:
        check_watching()
    started = time.perf_counter()
    with (
        load_embedder(folder, choice) as embedder,
        Index.open(
            folder,
            embedder=embedder,
            vectors=vectors,
            chunk_tokens=chunk_tokens,
            overlap=overlap,
            rebuild=rebuild,
        ) as opened,
    ):
        if wants_table(as_table):
            echo(_about(embedder), dim=True)
        rules = {
            "include": include or None,
            "exclude": exclude or None,
            "max_file_size": None if max_megabytes is None else int(1e6 * max_megabytes),
        }
        changes = _update(opened, paths, prune=prune, **rules)
        _echo_skipped(changes.skipped, verbose=verbose)
        _echo_unsupported(changes, verbose=verbose)
        if wants_table(as_table):
            seconds = time.perf_counter() - started
            _echo_changes(opened, changes, seconds)
            if seconds > LONG:
                echo_facts(speed_hint(embedder))
        else:
            _echo_json(opened, changes, embedder)
        if watch:
            follow(opened, folder, known=set(changes.skipped), prune=prune)


def _check_folder(folder: Path, paths: tuple[str, ...]) -> None:
    """Before a model is loaded: says where no index is here, but one is above; an error without a path."""
    from ggrank.search.files import check_paths
    from ggrank.search.generations import current
    from ggrank.search.settings import command

    if current(folder) is not None:
        return
    above = nearest_index() if folder == Path(DEFAULT_FOLDER) else None
    if above is not None and above != folder:
        update = command(Path(os.path.relpath(above)), " ".join(map(shlex.quote, paths))).strip()
        hint = f"there is an index above, in {above}; update that one with: {update}"
        if not paths:
            raise InputError(f"{folder}: there is no index here, but {hint}")
        _echo_note(f"Note: this makes a new index in {folder}; {hint}")
    if not paths:
        check_paths((), (), (), folder=folder)


def _about(embedder: Llama) -> str:
    """The model and its languages, before anything is indexed with it."""
    name = embedder.model_path.name
    return f"{name} (languages: {', '.join(embedder.languages)})" if embedder.languages else name


def _forget(folder: Path, paths: tuple[str, ...], as_table: bool | None) -> None:
    from ggrank import Index

    with Index.open(folder) as opened:
        removed = opened.remove(paths=paths)
    if wants_table(as_table):
        echo(f"{removed:,} removed")
    else:
        echo_json({"removed": removed})


def _echo_skipped(skipped: Sequence[Skipped], *, verbose: bool) -> None:
    """Files that could not be read; where many have the same reason, one of them."""
    by_reason: dict[str, list[str]] = {}
    for one in skipped:
        by_reason.setdefault(one.reason, []).append(one.path)
    for reason, paths in by_reason.items():
        if verbose or len(paths) <= MANY:
            for path in paths:
                _echo_note(f"Warning: {from_here(path)}: {reason}")
        else:
            example = from_here(paths[0])
            _echo_note(f"Warning: {len(paths):,} files: {reason}, such as {example}; {NAMES}")


def _echo_unsupported(changes: Changes, *, verbose: bool) -> None:
    """How many files are left out, by their suffix or the reason; their names on request."""
    kinds = sorted(changes.unsupported.items(), key=lambda one: (-len(one[1]), one[0]))
    if not kinds:
        return
    n_files = sum(len(paths) for _, paths in kinds)
    counted = ", ".join(f"{len(paths):,} {kind or 'without a suffix'}" for kind, paths in kinds[:KINDS])
    more = ", ..." if len(kinds) > KINDS else ""
    hint = "" if verbose else f"; {NAMES}"
    _echo_note(f"Note: {count(n_files, 'file')} left out: {counted}{more}{hint}")
    for kind, paths in kinds if verbose else ():
        for path in map(from_here, paths):
            click.echo(
                one_line(path if kind.startswith(".") else f"{path} ({kind or 'no suffix'})"), err=True
            )


def _echo_note(text: str) -> None:
    """To stderr; a terminal gets lines that end between words."""
    text = one_line(text)
    if sys.stderr.isatty():
        wrap = partial(textwrap.fill, break_long_words=False, break_on_hyphens=False)
        text = wrap(text, shutil.get_terminal_size().columns, subsequent_indent="  ")
    click.echo(text, err=True)


def _update(opened: Index, paths: tuple[str, ...], **options: Any) -> Changes:
    started, n_kept = time.perf_counter(), 0
    try:
        with progress_bar("indexing") as show:

            def on_progress(progress: IndexProgress) -> None:
                nonlocal n_kept
                n_kept = progress.n_passages
                speed = progress.n_tokens / (time.perf_counter() - started)
                note = f"{count(progress.n_passages, 'passage')}, {speed:,.0f} tokens/s"
                show(progress.n_bytes, progress.n_bytes_total, note if progress.n_passages else "")

            return opened.update(paths, on_progress=on_progress, **options)
    except KeyboardInterrupt:
        kept = f"{count(n_kept, 'new passage')} {'is' if n_kept == 1 else 'are'} kept"
        click.echo(f"\nStopped; {kept}. The same command goes on.", err=True)
        raise


def _echo_changes(opened: Index, changes: Changes, seconds: float) -> None:
    echo(summary(changes, whole=True) or "There is nothing to index.")
    echo_facts(
        count(opened.n_files, "file"),
        count(len(opened), "passage"),
        f"{changes.progress.n_embedded:,} embedded now",
        count(changes.progress.n_tokens, "token"),
        f"{seconds:,.1f} s",
    )


def _echo_json(opened: Index, changes: Changes, embedder: Llama) -> None:
    echo_json(
        {
            "model": embedder.model_path.name,
            "languages": list(embedder.languages),
            "added": changes.added,
            "changed": changes.changed,
            "removed": changes.removed,
            "unchanged": changes.unchanged,
            "skipped": [{"path": one.path, "reason": one.reason} for one in changes.skipped],
            "unsupported": {suffix: len(paths) for suffix, paths in changes.unsupported.items()},
            "files": opened.n_files,
            "passages": len(opened),
            "embedded": changes.progress.n_embedded,
            "tokens": changes.progress.n_tokens,
        }
    )
