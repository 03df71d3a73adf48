"""``ggrank models``: the catalogue, downloads, checksums, and what a file says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ggrank.cli.console import Column, echo, echo_json, echo_wide_table, styled, wants_table
from ggrank.cli.options import output_option
from ggrank.errors import ChecksumError

if TYPE_CHECKING:
    from ggrank.gguf import GgufFile
    from ggrank.hub import DownloadPlan, ModelStatus, Preset, Verification

_MOST_LISTED = 3
"""Languages that a table names; of more it gives their number."""

_BERT_PAIR = "[CLS] query [SEP] document [SEP]"
_ROBERTA_PAIR = "<s> query </s></s> document </s>"


@click.group(short_help="List, download, verify and describe models.")
def models() -> None:
    """Which models there are, where their files lie, and what is in them."""


@models.command("list", short_help="The models known by name, and which are here.")
@output_option
def list_command(as_table: bool | None) -> None:
    """The models that ggrank knows by name, and which are on this machine."""
    from ggrank.hub import list_models

    statuses = list_models()
    if not wants_table(as_table):
        for status in statuses:
            echo_json(_status_record(status))
        return
    columns = [
        Column("name"),
        Column("kind"),
        Column("languages"),
        Column("context", align="right"),
        Column("width", align="right"),
        Column("size", align="right"),
        Column("licence"),
        Column("present"),
        Column("summary", stretch=True),
    ]
    echo_wide_table(columns, [_status_row(status) for status in statuses])
    if not all(status.preset.is_open_source for status in statuses):
        echo("* is no open source licence: read its terms before you use the model", dim=True)
    if any(status.path is None for status in statuses):
        echo("A download brings the others: ggrank models download NAME", dim=True)


def _status_record(status: ModelStatus) -> dict[str, Any]:
    preset = status.preset
    return {
        "name": preset.name,
        "kind": _kind(preset),
        "languages": list(preset.languages),
        "context": preset.context,
        "width": preset.width,
        "dimensions": str(preset.matryoshka) if preset.matryoshka else None,
        "size": _size(status),
        "license": preset.license,
        "open_source": preset.is_open_source,
        "present": status.path is not None,
        "path": str(status.path) if status.path else None,
        "repo": preset.repo or None,
        "file": preset.file,
        "summary": preset.summary,
    }


def _status_row(status: ModelStatus) -> list[str]:
    preset, size = status.preset, _size(status)
    about = f"~{preset.about_mb} MB" if preset.about_mb else "?"
    return [
        preset.name,
        _kind(preset),
        shown_languages(preset.languages),
        f"{preset.context:,}" if preset.context else "?",
        str(preset.width or "-"),
        about if size is None else _megabytes(size),
        preset.license + ("" if preset.is_open_source else "*"),
        "bundled" if status.path and preset.bundled else "yes" if status.path else "-",
        preset.summary,
    ]


def shown_languages(languages: Sequence[str]) -> str:
    """Languages in a few letters.

    Example:
        >>> shown_languages(["en", "zh"]), shown_languages(["100+"]), shown_languages(list("abcdefg"))
        ('en, zh', '100+', '7')
    """
    return ", ".join(languages) if len(languages) <= _MOST_LISTED else str(len(languages))


def _size(status: ModelStatus) -> int | None:
    return status.preset.size if status.path is None else status.path.stat().st_size


def _kind(preset: Preset) -> str:
    return "reranker" if preset.is_reranker else "embedding"


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.0f} MB"


@models.command(short_help="Fetch a model and check its sum.")
@click.argument("name")
@click.option(
    "--dir", "directory", type=click.Path(file_okay=False), metavar="DIR", help="Put the file there."
)
@click.option("--filename", metavar="FILE", help="Which file of a repo that holds several.")
@click.option("--revision", metavar="REV", help="A branch, tag or commit of the repo.")
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched, from where and how much.")
def download(
    name: str, directory: str | None, filename: str | None, revision: str | None, dry_run: bool
) -> None:
    """Fetch the model NAME (a preset or a Hugging Face repo), check its sum, print its path.

    A file that is here already is not fetched again.
    """
    from ggrank import hub

    if dry_run:
        _echo_plan(hub.plan(name, directory=directory, filename=filename, revision=revision))
        return
    source = hub.download(name, directory=directory, filename=filename, revision=revision)
    click.echo(str(source.path))


def _echo_plan(plan: DownloadPlan) -> None:
    if plan.here is not None:
        click.echo(f"{plan.name}: nothing to fetch, it is here: {plan.here}")
        return
    about = f"about {plan.preset.about_mb} MB" if plan.preset and plan.preset.about_mb else "size not known"
    size = about if plan.size is None else f"{plan.size:,} bytes"
    click.echo(f"{plan.name}: would fetch {plan.url} ({size}) to {plan.target}")
    click.echo(
        f"sha256 {plan.sha256}" if plan.sha256 else "sha256 not known yet; the first download records it"
    )


@models.command(short_help="Print where a model's file is.")
@click.argument("name")
@click.option("--filename", metavar="FILE", help="Which file of a repo that holds several.")
def path(name: str, filename: str | None) -> None:
    """Print where the file of the model NAME is on this machine; exit code 1 when it is not."""
    from ggrank.hub import find_model

    click.echo(str(find_model(name, filename=filename, local_files_only=True).path))


@models.command(short_help="Compare the sums of files that are here.")
@click.argument("name", required=False)
@output_option
@click.pass_context
def verify(ctx: click.Context, name: str | None, as_table: bool | None) -> None:
    """Read the file of NAME (or of every model that is here) and compare its sha256."""
    from ggrank.hub import list_models

    names = [name] if name else [status.preset.name for status in list_models() if status.path]
    records = [_verify_one(each) for each in names]
    for record in records:
        if wants_table(as_table):
            style = {"ok": "green", "unknown": "yellow", "fail": "red"}[record["state"]]
            echo(f"{styled(record['state'], fg=style)}  {record['name']}  {record['detail']}")
        else:
            echo_json(record)
    ctx.exit(1 if any(record["state"] == "fail" for record in records) else 0)


def _verify_one(name: str) -> dict[str, Any]:
    from ggrank import hub

    try:
        found: Verification = hub.verify(name)
    except ChecksumError as error:
        return {
            "name": name,
            "state": "fail",
            "path": None,
            "sha256": None,
            "detail": " ".join(str(error).split()),
        }
    state = "ok" if found.expected else "unknown"
    detail = f"sha256 {found.sha256}" + ("" if found.expected else " (nobody knows what it should be)")
    return {"name": name, "state": state, "path": str(found.path), "sha256": found.sha256, "detail": detail}


@models.command(short_help="What a file says about itself.")
@click.argument("name", metavar="NAME|PATH")
@click.option("--filename", metavar="FILE", help="Which file of a repo that holds several.")
@output_option
def info(name: str, filename: str | None, as_table: bool | None) -> None:
    """What the file of a model says about itself. Nothing is loaded, nothing downloaded."""
    from ggrank.gguf import open_gguf
    from ggrank.hub import find_model

    source = find_model(name, filename=filename, local_files_only=True)
    record = _info_record(open_gguf(source.path), source.preset)
    if not wants_table(as_table):
        echo_json(record)
        return
    width = max(map(len, record))
    for key, value in record.items():
        echo(f"{key.replace('_', ' '):<{width}}  {_shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value if value not in (None, "") else "-")


def _info_record(file: GgufFile, preset: Preset | None) -> dict[str, Any]:
    metadata = file.metadata
    return {
        "path": str(file.path),
        "preset": preset.name if preset else None,
        "bytes": file.n_bytes,
        "name": metadata.get("general.name"),
        "license": metadata.get("general.license") or (preset.license if preset else None),
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
        "pair_format": _pair_format(file),
    }


def _pair_format(file: GgufFile) -> str | None:
    """How a query and a document become one sequence; None for a file that does not rerank."""
    if not file.has_head:
        return None
    if file.rerank_template:
        return "the file's own rerank template"
    return _ROBERTA_PAIR if file.tokenizer_model == "t5" or _ends_like_roberta(file) else _BERT_PAIR


def _ends_like_roberta(file: GgufFile) -> bool:
    eos = file.metadata.get("tokenizer.ggml.eos_token_id")
    if file.tokenizer_model != "gpt2" or not isinstance(eos, int):
        return False
    return file.strings("tokenizer.ggml.tokens")[eos : eos + 1] == ["</s>"]
