"""``ggrank search``: the passages of an index that answer a query; and how hits are shown."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
from click.core import ParameterSource

from ggrank.cli.console import (
    count,
    echo,
    echo_facts,
    echo_json,
    echo_texts,
    one_line,
    shorten,
    terminal_width,
    visible,
    wants_table,
)
from ggrank.cli.indexes import found_index_option, load_embedder, parsed
from ggrank.cli.options import DEFAULT_MODEL, Command, ModelChoice, engine_options
from ggrank.cli.ranking import cache_fact

if TYPE_CHECKING:
    from rich.text import Text

    from ggrank import Llama
    from ggrank.search.hits import Hit, Place
    from ggrank.search.ranking import By

_FOUND_BY = {"both": "cosine and BM25, fused", "meaning": "cosine", "words": "BM25"}
_INDENT = 4
_HIGHLIGHT = "bold red"


def hits_output_option(command: Command) -> Command:
    """--table, --json and --markdown, as the keyword ``output``; None where none is given."""

    @click.option("--table", is_flag=True, help="Print for people, the default on a terminal.")
    @click.option("--json", is_flag=True, help="Print JSON lines, the default elsewhere.")
    @click.option("--markdown", is_flag=True, help="Print a list with links, to paste into notes.")
    @wraps(command)
    def with_output(*args: Any, **kwargs: Any) -> None:
        given = [name for name in ("table", "json", "markdown") if kwargs.pop(name)]
        if len(given) > 1:
            raise click.UsageError(f"--{given[0]} and --{given[1]} exclude each other: give one of them.")
        command(*args, output=given[0] if given else None, **kwargs)

    return with_output


class _OneQuery(click.Command):
    """Says where the words of a query without quotes were taken for arguments and options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            is_option = isinstance(error, click.NoSuchOption) and not error.option_name.startswith("--")
            if not (is_option or "extra argument" in error.message):
                raise
            hint = 'Put the query in quotes: ggrank search "travel policy -draft"'
            raise click.UsageError(f"{error.message.rstrip('.')}. {hint}", ctx) from error


@click.command(cls=_OneQuery, short_help="Search an index.")
@click.argument("query")
@found_index_option
@click.option(
    "--top-n", "-n", type=click.IntRange(min=1), default=5, show_default=True, metavar="N", help="The N best."
)
@click.option(
    "--by",
    type=click.Choice(["both", "meaning", "words"]),
    default="both",
    show_default=True,
    help="Meaning compares vectors; words is BM25, which finds names and numbers and loads no model.",
)
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    metavar="SCORE",
    help="Leave out hits with a lower score; scores of different queries can be compared.",
)
@click.option(
    "--reranker",
    metavar="NAME|PATH",
    help="Cross-encoder that reorders the best passages.",
)
@click.option(
    "--retrieve-k",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="K",
    help="How many passages the reranker reads.",
)
@click.option("--path", "paths", multiple=True, metavar="GLOB", help='Only files such as "notes/*.md".')
@click.option("--ext", "suffixes", multiple=True, metavar="SUFFIX", help="Only files such as md,txt.")
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]),
    metavar="DATE",
    help="Only files changed on or after DATE, such as 2026-01-31.",
)
@click.option(
    "--where",
    multiple=True,
    callback=lambda _context, _option, conditions: parsed(conditions),
    metavar="CONDITION",
    help='Only documents whose metadata meets the condition: "tags=staff", "year>=2020", "tags!=draft".',
)
@click.option("--files", "one_per_file", is_flag=True, help="Only the best passage of each file.")
@click.option(
    "--context",
    "-C",
    type=click.IntRange(min=0),
    metavar="N",
    help="Print whole passages, and N lines before and after.",
)
@click.option("--explain", is_flag=True, help="Show each hit's ranks and values.")
@click.option(
    "--model",
    "-m",
    default=DEFAULT_MODEL,
    metavar="NAME|PATH",
    help="The embedder, if the index's own file is gone.",
)
@engine_options
@hits_output_option
def search(
    query: str,
    folder: Path,
    by: By,
    reranker: str | None,
    context: int | None,
    explain: bool,
    model: str,
    engine: str,
    cache: str | None,
    output: str | None,
    **options: Any,  # of the same name in `Index.search`
) -> None:
    """Search the index that ``ggrank index`` made.

    \b
    ggrank search "who pays for travel?"
    ggrank search 'travel "night train" -draft'
    ggrank search "error E4711" --by words --path logs --since 2026-01-31
    ggrank search "who pays for travel?" --reranker ggrank-reranker-mini

    A phrase in quotes must be in a passage; -word and -"a phrase" must not. A backslash before a quote or
    minus sign makes it an ordinary character.

    Each JSON line holds rank, place (as get takes it), path, headings, page, line, start and stop (characters
    in the document's text), id, title, metadata, text, score (0 to 1), cosine, logit, words (of the query
    that the passage holds), others (where else the same text stands), snippet, and with -C before and after.
    """
    from ggrank import Index
    from ggrank.search.words import has_open_quote, parse

    _check_options(**options, reranker=reranker, explain=explain, output=output)
    if has_open_quote(query):
        click.echo("Note: a quote in the query is not closed, so it is ignored.", err=True)
    with ExitStack() as stack:
        choice = ModelChoice(model, engine=engine, cache=cache)
        embedder = None if by == "words" else stack.enter_context(load_embedder(folder, choice))
        second = None
        if reranker is not None:
            second = stack.enter_context(replace(choice, model=reranker, pooling_type="rank").load())
        opened = stack.enter_context(Index.open(folder, embedder=embedder))
        started = time.perf_counter()
        hits = opened.search(query, by=by, reranker=second, context=context or 0, **options)
        seconds = time.perf_counter() - started
        n_passages, n_files = len(opened), opened.n_files
        if n_passages and not hits:
            filters = {name: options[name] for name in ("where", "paths", "suffixes")}
            for sentence in opened.unmatched(**filters):
                click.echo(f"Note: {sentence}.", err=True)
        if not n_passages:
            click.echo("Note: there is nothing in the index.", err=True)
        show_hits(query, hits, output=output, explain=explain, whole=context is not None)
        if _output(output) != "table":
            return
        asked = parse(query)
        if not hits:
            echo("Nothing found.")
        elif max(hit.score for hit in hits) < 0.0005 and not asked.required:
            echo("Nothing is close to the query: every score is 0.")
        echo_facts(
            " ".join(filter(None, [_name(embedder), _FOUND_BY[by]])),
            f"{_name(second)} reranked" if second else "",
            *(f'with "{phrase}"' for phrase in asked.required),
            *(f'without "{phrase}"' for phrase in asked.excluded),
            f"{count(n_passages, 'passage')} of {count(n_files, 'file')}",
            f"{1000 * seconds:,.0f} ms",
            *(cache_fact(llama) for llama in (embedder, second) if llama),
        )


def _check_options(
    *, retrieve_k: int, top_n: int, reranker: str | None, explain: bool, output: str | None, **_: object
) -> None:
    """Refuses options that would be ignored beside the others."""
    source = click.get_current_context().get_parameter_source("retrieve_k")
    if source is not ParameterSource.DEFAULT and (reranker is None or retrieve_k < top_n):
        raise click.UsageError("--retrieve-k goes with --reranker, and must not be below --top-n.")
    if explain and output == "markdown":
        raise click.UsageError("--explain does not go with --markdown: use --table or --json.")


def show_hits(
    query: str, hits: Sequence[Hit], *, output: str | None, explain: bool = False, whole: bool = False
) -> None:
    """Hits for people, or a line each, in JSON or Markdown.

    Args:
        query: as it was asked; its words and phrases are highlighted.
        output: "table", "json" or "markdown"; None for a table on a terminal and JSON elsewhere.
        whole: shows whole passages and the lines around them.
    """
    for rank, hit in enumerate(hits, 1):
        match _output(output):
            case "json":
                echo_json(_record(query, rank, hit, explain=explain, whole=whole))
            case "markdown":
                echo(_markdown(query, hit, whole=whole))
            case _:
                echo_texts(_lines(query, rank, hit, explain=explain, whole=whole))


def _output(output: str | None) -> str:
    return output or ("table" if wants_table(None) else "json")


def _name(llama: Llama | None) -> str:
    return f"{llama.model_path.name}:" if llama else ""


# -- for people


def _lines(query: str, rank: int, hit: Hit, *, explain: bool, whole: bool) -> Iterator[Text]:
    """Rank, score and place, and below them what matches; no line is wider than the terminal."""
    from rich.style import Style
    from rich.text import Text

    width = terminal_width() - _INDENT
    link = _uri(hit) if os.environ.get("TERM") != "linux" else ""  # the text console of Linux knows no links
    place = Text.assemble((f"{hit.score:.3f}  ", "bold"), (_where(hit), Style(bold=True, link=link or None)))
    headings = Text(_inner(one_line(hit.headings), width))
    fits = not headings or place.cell_len + 2 + headings.cell_len <= width
    if whole and rank > 1:
        yield Text()
    yield from _wrapped(Text("  ").join([place, headings]) if fits else place, width, first=f"{rank:>2}")
    if not fits:
        yield from _wrapped(headings, width)
    if whole:
        yield from _whole_lines(query, hit, width)
    else:
        part = Text(one_line(hit.snippet(query, n_characters=min(max(2 * width, 150), 300))))
        yield from _wrapped(_highlighted(part, query), width)
    others = ", ".join(map(_where, hit.others))
    if others:
        yield from _wrapped(Text(shorten(f"also {others}", width), "dim"), width)
    if explain:
        yield from _wrapped(Text(_explanation(hit), "dim"), width)


def _inner(headings: str, width: int) -> str:
    """A path of headings in at most ``width`` columns: the outer ones are left out first."""
    from rich.cells import cell_len

    shown = headings
    while cell_len(shown) > width and " > " in headings:
        headings = headings.partition(" > ")[2]
        shown = f"… > {headings}"
    return shorten(shown, width)


def _whole_lines(query: str, hit: Hit, width: int) -> Iterator[Text]:
    """The passage and the lines around it, with their numbers where the file has such lines."""
    from rich.text import Text

    from ggrank.search.hits import has_lines

    before, text, after = map(visible, (hit.before, hit.text, hit.after))
    block = Text.assemble((before, "dim"), _highlighted(Text(text), query), (after, "dim"))
    first = hit.line - before.count("\n")
    digits = len(str(first + block.plain.count("\n"))) + 2 if has_lines(hit.path) and not hit.page else 0
    for number, line in enumerate(block.split("\n", allow_blank=True), first):
        shown = f"{number:>{_INDENT + digits - 2}}" if digits else ""
        yield from _wrapped(line, width - digits, first=shown, indent=_INDENT + digits)


def _wrapped(text: Text, width: int, *, first: str = "", indent: int = _INDENT) -> Iterator[Text]:
    """Lines of at most ``width`` columns, indented; the first one has something in the indentation."""
    from rich.console import Console
    from rich.text import Text

    for line in text.wrap(Console(), width, overflow="fold"):
        shown = Text.assemble((f"{first:<{indent}}", "bold"), line)
        shown.rstrip()
        yield shown
        first = ""


def _highlighted(text: Text, query: str) -> Text:
    from ggrank.search.lexical import find_phrases, find_words

    for start, end in [*find_words(query, text.plain), *find_phrases(query, text.plain)]:
        text.stylize(_HIGHLIGHT, start, end)
    return text


def _explanation(hit: Hit) -> str:
    """Such as "cosine 0.512 (rank 1), BM25 3.20 (rank 2: pays, travel), fused 2.093, logit 1.7"."""
    how = hit.explanation
    facts = []
    if hit.cosine is not None:
        facts.append(f"cosine {hit.cosine:.3f} (rank {how.meaning_rank})")
    if how.bm25 is not None:
        facts.append(f"BM25 {how.bm25:.2f} (rank {how.words_rank}: {', '.join(hit.words)})")
    if len(facts) == 2:
        facts.append(f"fused {how.first_stage:.3f}")
    if hit.logit is not None and how.reranked is not None:
        facts.append(f"logit {hit.logit:.3f}")
        if how.reranked != hit.logit:
            facts.append(f"blended {how.reranked:.3f}")
    return one_line(", ".join(facts))


# -- where a hit is


def _where(place: Place) -> str:
    """A hit's place, with the file as it is named from here: "notes/travel.md:12"."""
    from ggrank.search.hits import printed_place

    return one_line(printed_place(place, from_here(place.path) if place.path else None))


def from_here(path: str) -> str:
    """Relative to the current folder, unless that is longer."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return min(relative, path, key=len)


def _uri(place: Place) -> str:
    """The file's address, in which every unusual character is encoded; "" for a text of no file."""
    return Path(place.path).as_uri() if place.path else ""


# -- for programs and notes


def _record(query: str, rank: int, hit: Hit, *, explain: bool, whole: bool) -> dict[str, Any]:
    record = {"rank": rank, "place": _where(hit), **asdict(hit), "snippet": hit.snippet(query)}
    for name in ("score", "cosine", "logit"):  # a float32 in the fewest digits that still are that float32
        record[name] = None if record[name] is None else float(f"{record[name]:.9g}")
    left_out = [*([] if explain else ["explanation"]), *([] if whole else ["before", "after"])]
    return {name: value for name, value in record.items() if name not in left_out}


def _markdown(query: str, hit: Hit, *, whole: bool) -> str:
    """An item of a list: a link, the headings, and the text in one line, in which nothing is markup.

    The link is relative where the place is: not every program follows file:// in Markdown.
    """
    path = from_here(hit.path)
    target = _uri(hit) if Path(path).is_absolute() else quote(Path(path).as_posix())
    where = _escaped(_where(hit))
    linked = f"[{where}]({target})" if hit.path else where
    text = f"{hit.before}{hit.text}{hit.after}" if whole else hit.snippet(query)
    return f"- {linked}{_escaped(f', {hit.headings}') if hit.headings else ''}: {_escaped(text)}"


def _escaped(text: str) -> str:
    return re.sub(r"[\\`*_\[\]{}<>|~$&#=%^!]", r"\\\g<0>", one_line(text))
