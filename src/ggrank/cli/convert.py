"""``ggrank convert``: a Hugging Face model becomes one GGUF file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from ggrank.cli.console import echo, echo_json, progress_bar, wants_table
from ggrank.cli.options import output_option


@click.command(short_help="Convert a Hugging Face model to one GGUF file.")
@click.argument("source", metavar="FOLDER|REPO")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The file to write; by default NAME-q8_0.gguf in this folder.",
)
@click.option(
    "--quantize",
    "-q",
    type=click.Choice(("f32", "f16", "q8_0", "q4_k_m")),
    default="q8_0",
    show_default=True,
    help="How the weights are stored.",
)
@click.option("--revision", metavar="REV", help="A branch, tag or commit of the repo.")
@click.option("--check", is_flag=True, help="Compare 100 scores or vectors with those of the original.")
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
    """Convert the embedder or reranker in FOLDER, or in the Hugging Face repo REPO, to one GGUF file.

    \b
    ggrank convert my-reranker/
    ggrank convert sentence-transformers/all-MiniLM-L6-v2 --check

    FOLDER is what save_pretrained of transformers or sentence-transformers writes, with safetensors: BERT,
    XLM-R, ModernBERT, nomic-bert, Qwen3 embedders and rerankers. The file holds everything that its scores
    need: head, tokenizer, prefixes and maximum length. It is loaded and tried before it gets its name.

    The command needs pip install 'ggrank[convert]'; --check also needs pip install sentence-transformers.
    """
    from ggrank.conversion import convert_model

    logging.getLogger("gguf").setLevel(logging.WARNING)
    with progress_bar("converting") as show:
        path, found = convert_model(
            source,
            output,
            quantize=quantize,
            revision=revision,
            check=check,
            force=force,
            on_progress=lambda what, done, total: show(done, total, what),
        )
    size = path.stat().st_size
    if wants_table(as_table):
        echo(f"{path}  {size / 1e6:,.0f} MB")
        if found is not None:
            unit = " (1 - cosine)" if found.what == "vector" else ""
            echo(
                f"{found.n} {found.what}s compared with the original's: largest deviation "
                f"{found.deviation:.2g}{unit}, rank correlation {found.correlation:.4f}"
            )
        return
    record: dict[str, Any] = {"path": str(path), "size": size}
    if found is not None:
        record |= {"compared": found.n, "what": found.what, "deviation": found.deviation}
        record["correlation"] = found.correlation
    echo_json(record)
