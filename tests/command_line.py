"""Runs the command ``ggrank`` for tests: in this process, in one of its own, and on a terminal."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ggrank.cli import main

QUERY = "safe systems programming language"
RUST = "Rust is a systems programming language focused on safety and performance."
PARIS = "Paris is the capital and most populous city of France."
BANANAS = "Bananas are rich in potassium and easy to digest."
DOCUMENTS = [BANANAS, RUST, PARIS]
BUNDLED = "all-minilm-l6-v2"

# Nothing that the outside sets may change what is printed.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
    "PYTHONIOENCODING": "utf-8",
    "TERM": "xterm",
}


def ggrank(*args: str | Path, stdin: str | bytes | None = None) -> Result:
    """In this process; stdout is a pipe to the command."""
    return CliRunner().invoke(main, [str(arg) for arg in args], input=stdin)


def json_lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def process(*args: str | Path, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ggrank", *map(str, args)],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=600,
        env={**ENVIRONMENT, **variables},
    )


def on_terminal(*args: str, columns: int) -> str:
    """What a terminal of that width receives, colour codes included."""
    pty = pytest.importorskip("pty")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    child = subprocess.Popen(
        [sys.executable, "-m", "ggrank", *args],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    os.close(follower)
    received = b""
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:  # Linux says EIO when the other side is closed
            break
        if not block:
            break
        received += block
    os.close(leader)
    assert child.wait(600) == 0, received.decode()
    return received.decode("utf-8").replace("\r\n", "\n")


def plain(text: str) -> list[str]:
    """Lines without colour codes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines()
