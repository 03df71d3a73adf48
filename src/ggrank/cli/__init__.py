"""The command ``ggrank``: finds the subcommand, and turns every way to end into an exit code.

Each subcommand is a module of this package, imported when it is asked for. Exit codes: 0, 1 (an error of
ggrank's, shown in one line), 2 (wrong usage), 130 (Ctrl-C).
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
import warnings
from typing import Any, NoReturn

import click
from click.exceptions import Exit

from ggrank import __version__
from ggrank.cli.console import one_line
from ggrank.errors import GgrankError

COMMANDS = {
    "Start": ("demo", "rank", "embed"),
    "Your files": ("index", "search", "similar", "get", "status"),
    "Other programs": ("serve", "mcp"),
    "Many rows": ("job",),
    "Models and this machine": ("models", "doctor", "tune", "eval", "convert"),
}
"""By what they are for, in the order in which people meet them."""

_WRITE_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EBADF, getattr(errno, "EDQUOT", errno.ENOSPC))
"""Of an OSError without a file name: it comes from stdout, because everything else writes to named files."""


class Commands(click.Group):
    """Imports a subcommand when it is asked for; the rules about errors are the same for all of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of COMMANDS."""
        return [name for names in COMMANDS.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A section for each group; the columns of all sections line up."""
        names = self.list_commands(ctx)
        commands = {name: self.get_command(ctx, name) for name in names}
        helps = {name: command.get_short_help_str(80) for name, command in commands.items() if command}
        for title, group in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{max(map(len, names))}}", helps[name]) for name in group])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Imports the module of that name, which holds a command of that name."""
        if name not in self.list_commands(ctx):
            return None
        command: click.Command = getattr(importlib.import_module(f"ggrank.cli.{name}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's; an unknown name gets the nearest known one."""
        near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
        if near and self.get_command(ctx, args[0]) is None:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {near[0]!r}?")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's; a closed stdout, a full disk or an unusable file is one line and exit code 1."""
        if sys.stdout is None:
            _fail("cannot write to stdout: it is closed")
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.filename is None:
                _drop_output()
            is_output = error.filename is None and error.errno in _WRITE_ERRORS
            where = "cannot write to stdout" if is_output else error.filename or "a file"
            _fail(one_line(f"{where}: {error.strerror}" if error.strerror else str(error)))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a subcommand; what it raises becomes a line and an exit code."""
        for stream in (sys.stdout, sys.stderr):  # a console that is not UTF-8 shows ? for what it lacks
            if reconfigure := getattr(stream, "reconfigure", None):
                reconfigure(errors="replace")
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _show_warning
                result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except GgrankError as error:
            raise click.ClickException(one_line(str(error))) from error
        except BrokenPipeError:
            _drop_output()
            raise Exit(0) from None  # the reader (`head`, `less`) has all it wants
        except KeyboardInterrupt:
            raise Exit(130) from None


def _drop_output() -> None:
    """Python flushes what is left at its end; where that fails again it would print a traceback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    sys.exit(1)


def _show_warning(message: Warning | str, *_where: object, **_file: object) -> None:
    click.echo(f"Warning: {one_line(str(message))}", err=True)


@click.command(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80}
)
@click.version_option(__version__, prog_name="ggrank", message="%(prog)s %(version)s")
def main() -> None:
    """Rank text on your own machine with GGUF models.

    \b
    ggrank demo                                     try it
    ggrank rank "a question" --file documents.txt   order documents
    ggrank index notes/                             make your files searchable
    """
