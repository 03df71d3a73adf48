"""``ggrank models``: the catalogue, downloads, checksums, and what a file says about itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggrank.cli.console import (
    Column,
    colored_state,
    echo,
    echo_facts,
    echo_json,
    echo_table,
    echo_texts,
    one_line,
    terminal_width,
    wants_table,
)
from ggrank.cli.options import filename_option, output_option
from ggrank.errors import ChecksumError

if TYPE_CHECKING:
    from rich.text import Text

    from ggrank.hub import ModelStatus

_TABLE = ("name", "kind", "languages", "size", "here")
_WIDE_TABLE = (*_TABLE, "licence", "context", "width", "summary")
_WIDE = 120


@click.group(invoke_without_command=True, short_help="List, download, verify and describe models.")
@click.pass_context
def models(ctx: click.Context) -> None:
    """List the models that ggrank knows by name, download them, check and describe their files.

    Without a COMMAND it lists them.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_command)


@models.command("list", short_help="List the models that ggrank knows by name.")
@output_option
def list_command(as_table: bool | None = None) -> None:
    """List the models that ggrank knows by name, and show which are on this machine."""
    from ggrank.hub import list_models

    statuses = list_models()
    if not wants_table(as_table):
        for status in statuses:
            echo_json(_catalogue_record(status))
        return
    names = _WIDE_TABLE if terminal_width() >= _WIDE else _TABLE
    numbers = ("size", "context", "width")
    columns = [Column(name, "right" if name in numbers else "left", name == "summary") for name in names]
    rows = [_shown(status) for status in statuses]
    echo_table(columns, [[row[name] for name in names] for row in rows])
    for status in statuses:
        if not status.preset.is_open_source:
            terms = status.preset.license
            echo_facts(f"{status.preset.name} is not open source: read the terms of its licence ({terms})")
    echo_facts("ggrank models info NAME says more, ggrank models download NAME fetches a model")


def _shown(status: ModelStatus) -> dict[str, str]:
    """The record in a table's words."""
    preset, record = status.preset, _catalogue_record(status)
    languages, size = preset.languages, record["size"]
    about = f"~{preset.about_mb} MB" if preset.about_mb else "?"
    return {
        **record,
        "languages": ", ".join(languages) if len(languages) <= 3 else str(len(languages)),
        "size": about if size is None else f"{size / 1e6:,.0f} MB",
        "here": "-" if status.path is None else "bundled" if preset.bundled else "yes",
        "licence": preset.license,
        "context": f"{preset.context:,}" if preset.context else "?",
        "width": str(preset.width or "-"),
    }


def _catalogue_record(status: ModelStatus) -> dict[str, Any]:
    """What is known of a model before a look into its file."""
    preset = status.preset
    return {
        "name": preset.name,
        "kind": "reranker" if preset.is_reranker else "embedding",
        "languages": list(preset.languages),
        "context": preset.context,
        "width": preset.width,
        "dimensions": str(preset.matryoshka) if preset.matryoshka else None,
        "size": preset.size if status.path is None else status.path.stat().st_size,
        "license": preset.license,
        "open_source": preset.is_open_source,
        "present": status.path is not None,
        "path": str(status.path) if status.path else None,
        "repo": preset.repo or None,
        "file": preset.file,
        "summary": preset.summary,
    }


@models.command(short_help="Download a model and check its sha256.")
@click.argument("name")
@click.option(
    "--dir", "directory", type=click.Path(file_okay=False), metavar="DIR", help="Save the file here."
)
@filename_option
@click.option("--revision", metavar="REV", help="A branch, tag or commit of the repo.")
@click.option("--dry-run", is_flag=True, help="Show only what would be downloaded, from where and how much.")
def download(
    name: str, directory: str | None, filename: str | None, revision: str | None, dry_run: bool
) -> None:
    """Download the model NAME (a preset or a Hugging Face repo), check its sha256, print its path.

    A file that is here already is not downloaded again.
    """
    from ggrank import hub

    if not dry_run:
        _echo_path(hub.download(name, directory=directory, filename=filename, revision=revision).path)
        return
    plan = hub.plan(name, directory=directory, filename=filename, revision=revision)
    if plan.here is not None:
        echo(f"{plan.name}: nothing to download, it is here: {plan.here}")
        return
    about = f"about {plan.preset.about_mb} MB" if plan.preset and plan.preset.about_mb else "unknown size"
    size = about if plan.size is None else f"{plan.size:,} bytes"
    echo(f"{plan.name}: would download {plan.url} ({size}) to {plan.target}")
    echo(f"sha256 {plan.sha256 or 'unknown: the first download records it'}")


def _echo_path(path: Path) -> None:
    """The exact bytes of the name, so that ``$(ggrank models path NAME)`` works with any file."""
    click.echo(os.fsencode(path))


@models.command(short_help="Print the path of a model's file.")
@click.argument("name")
@filename_option
def path(name: str, filename: str | None) -> None:
    """Print the path of the file of the model NAME; exit with 1 when it is not on this machine."""
    from ggrank.hub import find_model

    _echo_path(find_model(name, filename=filename, local_files_only=True).path)


@models.command(short_help="Check the sha256 of the files that are here.")
@click.argument("name", required=False)
@output_option
@click.pass_context
def verify(ctx: click.Context, name: str | None, as_table: bool | None) -> None:
    """Read the file of NAME (or of every model that is here) and compare its sha256 with the known one."""
    from ggrank.hub import list_models

    names = [name] if name else [status.preset.name for status in list_models() if status.path]
    records = [_verify_one(each) for each in names]
    if wants_table(as_table):
        _echo_unbroken([(colored_state(one["state"]), one["name"], one["detail"]) for one in records])
    else:
        for record in records:
            echo_json(record)
    ctx.exit(any(record["state"] == "fail" for record in records))


def _verify_one(name: str) -> dict[str, Any]:
    from ggrank import hub

    try:
        found = hub.verify(name)
    except ChecksumError as error:
        return {"name": name, "state": "fail", "path": None, "sha256": None, "detail": str(error)}
    state = "ok" if found.expected else "unknown"
    detail = (
        f"sha256 {found.sha256[:16]}..., {'as expected' if found.expected else 'none is known to compare'}"
    )
    return {"name": name, "state": state, "path": str(found.path), "sha256": found.sha256, "detail": detail}


@models.command(short_help="Describe a model from its file and the catalogue.")
@click.argument("name", metavar="NAME|PATH")
@filename_option
@output_option
def info(name: str, filename: str | None, as_table: bool | None) -> None:
    """Describe a model: what the catalogue and its file say. Nothing is loaded or downloaded."""
    from ggrank.hub import find_model, list_models

    known = {status.preset.name: status for status in list_models()}.get(name)
    if known is not None and known.path is None:
        record = _catalogue_record(known)
    else:
        path = find_model(name, filename=filename, local_files_only=True).path
        record = {**_file_record(path), **(_catalogue_record(known) if known else {})}
    if not wants_table(as_table):
        echo_json(record)
        return
    _echo_unbroken([(key.replace("_", " "), _in_words(value)) for key, value in record.items()])


def _echo_unbroken(rows: Sequence[tuple[str | Text, ...]]) -> None:
    """Aligned cells, each row as one line: a path or a sha256 can be copied from a narrow terminal."""
    from rich.text import Text

    columns = []
    for column in zip(*rows, strict=True):
        cells = [Text(one_line(cell)) if isinstance(cell, str) else cell for cell in column]
        width = max(map(len, cells))
        for cell in cells:
            cell.pad_right(width - len(cell))
        columns.append(cells)
    lines = [Text("  ").join(cells) for cells in zip(*columns, strict=True)]
    for line in lines:
        line.rstrip()
    echo_texts(lines)


def _in_words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value or "-")


def _file_record(path: Path) -> dict[str, Any]:
    from ggrank.gguf import open_gguf

    file = open_gguf(path)
    metadata = file.metadata
    return {
        "path": str(file.path),
        "size": file.n_bytes,
        "name": metadata.get("general.name"),
        "license": metadata.get("general.license"),
        "architecture": file.architecture,
        "quantization": file.quantization,
        "tensors": len(file.tensors),
        "pooling_type": file.pooling_type.name,
        "n_ctx_train": file.n_ctx_train,
        "n_embd": metadata.get(f"{file.architecture}.embedding_length"),
        "tokenizer": file.tokenizer_model,
        "tokenizer_pre": file.tokenizer_pre,
        "head": file.has_head,
        "labels": list(file.labels),
    }
