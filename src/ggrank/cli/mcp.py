"""``ggrank mcp``: indexes as tools for agents."""

from __future__ import annotations

from pathlib import Path

import click

from ggrank.cli.indexes import DEFAULT_FOLDER, named_index, nearest_index
from ggrank.errors import InputError


@click.command(short_help="Let an agent search your indexes (MCP).")
@click.option(
    "--index",
    "folders",
    multiple=True,
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    metavar="DIR",
    help="An index that ggrank index made. Repeatable. Without it: .ggrank, here or above.",
)
@click.option("--name", "names", multiple=True, metavar="NAME", help="An index by its name. Repeatable.")
@click.option("--reranker", metavar="NAME|PATH", help="Let the agent ask for reranking with this model.")
@click.option(
    "--http",
    "port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Serve http://127.0.0.1:PORT/mcp in place of stdin and stdout.",
)
@click.option(
    "--idle-unload",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="MINUTES",
    help="Unload the models this long after the last call.",
)
def mcp(
    folders: tuple[Path, ...],
    names: tuple[str, ...],
    reranker: str | None,
    port: int | None,
    idle_unload: float,
) -> None:
    """Offer indexes to agents as the tools search, get, similar and status.

    \b
    ggrank mcp                .ggrank of this folder or one above it
    ggrank mcp --index ~/notes/.ggrank --reranker ggrank-reranker-mini
    ggrank mcp --http 8765    over HTTP, on this machine only

    An agent's program starts it, and speaks to it through stdin and stdout;
    docs/search.md has the lines for its settings.
    """
    folders = (*folders, *map(named_index, names))
    if not folders:
        nearest = nearest_index()
        if nearest is None:
            raise InputError(
                f"no index in {Path.cwd()} or above it: make one with `ggrank index FOLDER`, or give --index"
            )
        folders = (nearest,)
    try:
        from ggrank.server.mcp import Shelf, build_server

        shelf = Shelf(names_of(folders), reranker=reranker, idle_seconds=60 * idle_unload)
        server = build_server(shelf)
    except ImportError as error:
        raise InputError("ggrank mcp needs its SDK: pip install 'ggrank[mcp]'") from error
    try:
        if port is None:
            server.run("stdio")
        else:
            click.echo(f"http://127.0.0.1:{port}/mcp", err=True)
            server.run("streamable-http", host="127.0.0.1", port=port)
    finally:
        shelf.close()


def names_of(folders: tuple[Path, ...]) -> dict[str, Path]:
    """Indexes by a short name: that of the folder around ``.ggrank``; a number is added to a second one."""
    names: dict[str, Path] = {}
    for folder in folders:
        path = folder.resolve()
        name = wanted = (path.parent if path.name == DEFAULT_FOLDER else path).name or "index"
        number = 1
        while name in names:
            number += 1
            name = f"{wanted}-{number}"
        names[name] = path
    return names
