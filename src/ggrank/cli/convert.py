"""``ggrank convert``: a Hugging Face model becomes one GGUF file, which is checked at once."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggrank.cli.console import echo, echo_json, wants_table
from ggrank.cli.options import output_option

if TYPE_CHECKING:
    from ggrank.conversion import Converted


@click.command(short_help="Turn a Hugging Face model into one GGUF file.")
@click.argument("source", metavar="FOLDER|REPO")
@click.option(
    "--output", "-o", type=click.Path(path_type=Path), metavar="FILE", help="Else NAME-q8_0.gguf, here."
)
@click.option(
    "--quantize",
    "-q",
    type=click.Choice(("f32", "f16", "q8_0", "q4_k_m")),
    default="q8_0",
    show_default=True,
    help="How the weights are stored.",
)
@click.option("--revision", metavar="REV", help="A repo's branch, tag or commit.")
@click.option("--check", is_flag=True, help="Compare 100 scores or vectors with the original's.")
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@output_option
def convert(
    source: str,
    output: Path | None,
    quantize: str,
    revision: str | None,
    check: bool,
    force: bool,
    as_table: bool | None,
) -> None:
    """Write the embedder or reranker in FOLDER, or of the Hugging Face repo REPO, as one GGUF file.

    FOLDER is what save_pretrained of transformers or sentence-transformers writes, with safetensors: BERT,
    XLM-R, ModernBERT, nomic-bert, Qwen3 embedders and rerankers. The file carries head, tokenizer, prefixes
    and length, and is loaded and computed with before it takes its name. --check needs
    pip install sentence-transformers, the command itself pip install 'ggrank[convert]'.

    Matrices are quantized by llama.cpp; vectors, positions and token types stay float32. With q8_0 a model of
    up to 512 in width keeps its value projections in float16, because rounding them hurts most.
    """
    from ggrank.conversion import convert_model

    logging.getLogger("gguf").setLevel(logging.WARNING)
    converted = convert_model(
        source,
        output,
        quantize=quantize,
        revision=revision,
        check=check,
        force=force,
        on_progress=_show_progress,
    )
    if wants_table(as_table):
        _print_report(converted)
    else:
        echo_json(_record(converted))


def _show_progress(what: str, done: int, total: int) -> None:
    """One line on a terminal; the next call replaces it."""
    if sys.stderr.isatty():
        share = f" {done} of {total} tensors" if total > 1 else ""
        is_over = what == "checking" and done == total
        click.echo(f"\r\033[K{'' if is_over else what + share}", err=True, nl=False)


def _print_report(converted: Converted) -> None:
    echo(f"{converted.path}  {converted.path.stat().st_size / 1e6:,.0f} MB")
    if converted.comparison is not None:
        found = converted.comparison
        echo(
            f"{found.n} {found.what}s beside the original's: largest deviation {found.deviation:.2g}"
            f"{' (1 - cosine)' if found.what == 'vector' else ''}, rank correlation {found.correlation:.4f}"
        )


def _record(converted: Converted) -> dict[str, object]:
    record: dict[str, object] = {"path": str(converted.path), "size": converted.path.stat().st_size}
    if converted.comparison is not None:
        found = converted.comparison
        record |= {"compared": found.n, "what": found.what, "deviation": found.deviation}
        record["correlation"] = found.correlation
    return record
