"""The command ``ggrank``: how it starts, and every way in which it ends."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import ggrank as package
from command_line import (
    ENVIRONMENT,
    QUERY,
    RUST,
    ggrank,
    process,
)
from ggrank.cli import main


def test_help_loads_no_large_library() -> None:
    code = (
        "import sys\nfrom ggrank.cli import main\n"
        "for args in (['--help'], ['rank', '--help'], ['models', '--help'], ['doctor', '--help']):\n"
        "    try:\n        main(args)\n    except SystemExit as end:\n        assert end.code == 0\n"
        "heavy = {'numpy', 'llama_cpp', 'huggingface_hub', 'httpx', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def test_a_wrong_command_comes_with_the_nearest_one() -> None:
    done = process("rerank")
    assert done.returncode == 2
    assert "Did you mean 'rank'?" in done.stderr


def test_python_m_ggrank_is_the_same_command() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "ggrank")


@pytest.mark.parametrize("command", ["demo", "rank", "embed", "models", "doctor"])
def test_help_lists_every_command(command: str) -> None:
    assert f"\n  {command} " in ggrank("--help").output


@pytest.mark.parametrize(
    "args",
    [
        ["rank"],
        ["rank", QUERY, RUST, "--top-n", "0"],
        ["rank", QUERY, RUST, "--score", "percent"],
        ["rank", QUERY, "--file", "no/such/file.txt"],
        ["rank", QUERY, RUST, "--no-such-option"],
        ["embed", "a", "--output", "vectors.txt"],
        ["no-such-command"],
        ["models", "download"],
    ],
)
def test_wrong_usage_exits_with_2(args: list[str]) -> None:
    result = ggrank(*args)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_no_documents_on_a_terminal_is_wrong_usage() -> None:
    pty = pytest.importorskip("pty")
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "ggrank", "rank", QUERY],
        stdin=follower,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    os.close(leader)
    os.close(follower)
    assert done.returncode == 2
    assert "No documents" in done.stderr


def test_help_keeps_its_example_lines_apart() -> None:
    assert '\n  ggrank rank "a question" --file documents.txt ' in ggrank("--help").output
    assert '\n  ggrank rank "storing energy" "a battery" "a banana"\n' in ggrank("rank", "--help").output


def test_our_errors_are_one_line_and_exit_code_1() -> None:
    done = process("rank", QUERY, RUST, "--model", "no/such/model.gguf")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no such file on this system")
def test_a_file_that_cannot_be_read_is_one_line_and_exit_code_1() -> None:
    done = process("models", "verify", "/proc/self/mem")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "Error: a file: Input/output error\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_exits_with_130_and_says_nothing() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "ggrank", "rank", QUERY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        # A test run in the background ignores SIGINT, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdin is not None
    child.stdin.write(b"a line\n" * 200_000)  # more than a pipe holds: it is reading when this returns
    child.stdin.flush()
    child.send_signal(signal.SIGINT)
    out, error = child.communicate(timeout=600)
    assert (child.returncode, out, error) == (130, b"", b"")


def test_a_reader_that_stops_early_is_no_error() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "ggrank", "embed", "--file", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdin.write(b"a line\n" * 300)
    child.stdin.close()
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(600) == 0
    child.stderr.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device on this system")
@pytest.mark.parametrize("command", [("rank", "a", "b", "--json"), ("demo", "--table"), ("--help",)])
@pytest.mark.parametrize("where", ["/dev/full", "closed"])
def test_a_stdout_that_takes_nothing_is_one_line_and_exit_code_1(
    command: tuple[str, ...], where: str
) -> None:
    program = [sys.executable, "-m", "ggrank", *command]
    shell = ["sh", "-c", 'exec "$@" >&-' if where == "closed" else f'exec "$@" > {where}', "sh", *program]
    done = subprocess.run(shell, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Error: cannot write to stdout: " in done.stderr


def commands(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    """The words of every command."""
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from commands(found, *path, name)


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_no_line_of_a_command_s_help_is_wider_than_80_columns(path: tuple[str, ...]) -> None:
    lines = CliRunner().invoke(main, [*path, "--help"], terminal_width=80).output.splitlines()
    assert [line for line in lines if len(line) > 80] == []


ROOT = Path(package.__file__).parent
ONLY_FROM_PYTHON = {"compat", "integrations", "remote", "server"}


def raised_texts(module: Path) -> Iterator[str]:
    """The literal parts of every text that a module raises or warns with."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        call = node.exc if isinstance(node, ast.Raise) else node
        is_warning = isinstance(call, ast.Call) and ast.unparse(call.func) in ("warnings.warn", "warn_once")
        if isinstance(node, ast.Raise) or is_warning:
            for part in ast.walk(node):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield part.value


@pytest.mark.parametrize(
    "room", sorted(path.name for path in ROOT.iterdir() if path.name not in ONLY_FROM_PYTHON)
)
def test_errors_that_a_command_can_print_do_not_speak_python(room: str) -> None:
    modules = (ROOT / room).rglob("*.py") if (ROOT / room).is_dir() else [ROOT / room]
    texts = [text for module in modules if module.suffix == ".py" for text in raised_texts(module)]
    python = re.compile(r"(?<![-\w])[a-z_]+=|[a-z]\(\)|PoolingType\.")
    assert [text for text in texts if python.search(text) and "--where" not in text] == []
