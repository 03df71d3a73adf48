"""``ggrank demo``: a few questions over real passages, with the model inside the package."""

from __future__ import annotations

import time
from dataclasses import replace
from importlib import resources
from typing import TYPE_CHECKING

import click

from ggrank.cli.console import echo, echo_facts
from ggrank.cli.documents import Document, read_documents
from ggrank.cli.options import ModelChoice, model_options, output_option
from ggrank.cli.ranking import (
    Timed,
    cache_fact,
    echo_ranking_json,
    echo_ranking_table,
    rank_documents,
    speed_hint,
)
from ggrank.rows.records import cache_dir

if TYPE_CHECKING:
    from ggrank import Llama

QUESTIONS = (
    "How do I keep a loaf fresh?",
    "Why can't I fall asleep after an espresso?",
    "How do insects give directions?",
)
"""None shares its main words with the passage that answers it."""


@click.command(short_help="See it work: questions over a few dozen passages.")
@click.argument("question", required=False)
@click.option(
    "--top-n", "-n", type=click.IntRange(min=1), metavar="N", help="Passages to show for a question."
)
@model_options
@output_option
def demo(question: str | None, top_n: int | None, choice: ModelChoice, as_table: bool | None) -> None:
    """Rank a few dozen passages for three questions, or for your own QUESTION.

    Made for people: a table also where another command would write JSON lines.
    """
    if choice.cache is None:
        choice = replace(choice, cache=str(cache_dir() / "demo"))  # so that a second run embeds no passage
    passages = read_passages()
    questions = QUESTIONS if question is None else (question,)
    started = time.perf_counter()
    with choice.load() as llama:
        load_seconds = time.perf_counter() - started
        rankings = [
            _rank(llama, each, passages, top_n or (3 if question is None else 5)) for each in questions
        ]
        if as_table is False:
            for ranking in rankings:
                echo_ranking_json(ranking, passages)
            return
        echo()
        shown = [passages[found.index] for ranking in rankings for found in ranking.documents]
        id_width = max(len(str(passage.id)) for passage in shown)  # all tables line up
        for each, ranking in zip(questions, rankings, strict=True):
            echo(each, bold=True, fg="green")
            echo_ranking_table(ranking, passages, id_width=id_width)
            echo()
        _echo_footer(llama, rankings, n_passages=len(passages), load_seconds=load_seconds)
    _echo_next()


def read_passages() -> list[Document]:
    """The passages that travel inside the package."""
    with resources.as_file(resources.files("ggrank.cli").joinpath("demo_passages.jsonl")) as path:
        return read_documents((), [str(path)], file_format="jsonl")


def _rank(llama: Llama, question: str, passages: list[Document], top_n: int) -> Timed:
    return rank_documents(
        llama, question, passages, top_n=top_n, threshold=None, score="auto", truncate="end"
    )


def _echo_footer(llama: Llama, rankings: list[Timed], *, n_passages: int, load_seconds: float) -> None:
    n_tokens = sum(ranking.n_tokens for ranking in rankings)
    seconds = sum(ranking.seconds for ranking in rankings)
    echo_facts(
        llama.model_path.name,
        f"{llama.mode}, {rankings[0].scale}",
        f"runs on {llama.device} ({llama.engine})",
        f"{n_passages} passages",
        f"{n_tokens:,} tokens in {1000 * seconds:,.0f} ms",
        f"loaded in {1000 * load_seconds:,.0f} ms",
        cache_fact(llama),
    )
    echo_facts(speed_hint(llama))


def _echo_next() -> None:
    echo()
    echo('Next: ggrank demo "your own question"')
    echo('      ggrank rank "a question" --file your_documents.txt')
