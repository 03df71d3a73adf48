"""``ggrank demo``: a few questions over real passages, with the model inside the package."""

from __future__ import annotations

import sys
import textwrap
import time
from importlib import resources

import click

from ggrank.cli.console import count, echo, echo_facts, terminal_width
from ggrank.cli.documents import Document, read_documents
from ggrank.cli.options import ModelChoice, output_option
from ggrank.cli.ranking import echo_footer, echo_ranking_json, echo_ranking_table, rank_documents, speed_hint
from ggrank.rows.records import cache_dir

QUESTIONS = (
    "How do I keep a loaf fresh?",
    "Why can't I fall asleep after an espresso?",
    "How do insects give directions?",
)
"""No question shares its main words with the passage that answers it."""

INDENT = "  "


@click.command(short_help="Try it: ask questions about a few dozen passages.")
@click.argument("question", required=False)
@output_option
def demo(question: str | None, as_table: bool | None) -> None:
    """Rank a few dozen passages for three questions, or for your own QUESTION.

    \b
    ggrank demo
    ggrank demo "How did sailors find out where they were?"

    It prints tables in a pipe too, unless you give --json.
    """
    passages = read_passages()
    questions, top_n = ((question,), 5) if question else (QUESTIONS, 3)
    started = time.perf_counter()
    cache = cache_dir() / "demo"  # so that a second run embeds no passage
    with ModelChoice(cache=str(cache)).load() as llama:
        loaded = time.perf_counter()
        rankings = [rank_documents(llama, each, passages, top_n=top_n) for each in questions]
        seconds = time.perf_counter() - loaded
        if as_table is False:
            for ranking in rankings:
                echo_ranking_json(ranking, passages)
            return
        echo()
        shown = [passages[found.index] for ranking in rankings for found in ranking]
        id_width = max(len(str(passage.id)) for passage in shown)  # all tables line up
        for each, ranking in zip(questions, rankings, strict=True):
            echo(each, bold=True, fg="green")
            if sys.stdout.isatty():  # a table on a terminal cuts passages, one in a pipe does not
                for line in textwrap.wrap(ranking[0].document, terminal_width() - len(INDENT)):
                    echo(INDENT + line)
            echo_ranking_table(ranking, passages, id_width=id_width)
            echo()
        loaded_in = f"loaded in {1000 * (loaded - started):,.0f} ms"
        echo_footer(llama, rankings, seconds, count(len(passages), "passage"), loaded_in)
        echo_facts(speed_hint(llama))
    echo()
    echo('Next: ggrank demo "your own question"')
    echo('      ggrank rank "a question" --file your_documents.txt')


def read_passages() -> list[Document]:
    """The passages in the package."""
    with resources.as_file(resources.files("ggrank.cli").joinpath("demo_passages.jsonl")) as path:
        return read_documents((), [str(path)], file_format="jsonl")
