"""The command ``ggrank``: finds the subcommand, and turns every way to end into an exit code.

Knows the subcommands' names, not what they do: each is a module of this package, imported when it is
asked for. ``ggrank --help`` loads neither llama_cpp nor NumPy.

Exit codes: 0, 1 (one of ggrank's errors, told in one line), 2 (wrong usage), 130 (Ctrl-C).
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click
from click.exceptions import Exit

from ggrank import __version__
from ggrank.errors import GgrankError

COMMANDS = (
    "demo",
    "rank",
    "embed",
    "job",
    "index",
    "search",
    "serve",
    "eval",
    "convert",
    "tune",
    "bench",
    "models",
    "doctor",
)


class Commands(click.Group):
    """Subcommands by name; `invoke` holds the rules about errors for all of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which people meet them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Imports the module of that name, which holds a command of that name."""
        if name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"ggrank.cli.{name}"), name)
        return command

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """As click's; where stdout is closed or its disk is full, that is one line and exit code 1."""
        if sys.stdout is None:
            _end_without_stdout("it is closed")
        try:
            return super().main(*args, **kwargs)
        except OSError as error:
            if error.filename is not None:
                raise
            # Else Python would try again, and complain, when it flushes what is left at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            _end_without_stdout(error.strerror or str(error))

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a subcommand; what it raises becomes a line and an exit code."""
        _never_fail_to_print()
        try:
            with _warnings_in_one_line():
                result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except GgrankError as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except BrokenPipeError:
            # The reader (`head`, `less`) has all it wants. Python would complain at exit, when it
            # flushes what is left; give it somewhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise Exit(0) from None
        except KeyboardInterrupt:
            raise Exit(130) from None


def _end_without_stdout(reason: str) -> NoReturn:
    click.echo(f"Error: cannot write to stdout: {reason}", err=True)
    sys.exit(1)


@click.command(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="ggrank", message="%(prog)s %(version)s")
def main() -> None:
    """Rank text on your own machine with GGUF models.

    \b
    ggrank demo                                     see it work
    ggrank rank "a question" --file documents.txt   order documents
    ggrank models list                              what is here, what a download brings
    """


def _never_fail_to_print() -> None:
    """A console that is not UTF-8 shows ``?`` for what it lacks, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Warnings for people: no file name and source line of ggrank's own code."""

    def show(message: Warning | str, *_where: object, **_file: object) -> None:
        click.echo(f"Warning: {' '.join(str(message).split())}", err=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
