"""Rows for jobs, and jobs in processes of their own that can be stopped, for the tests of `ggrank.jobs`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from command_line import ENVIRONMENT

WORDS = [
    "the",
    "llama",
    "grazes",
    "on",
    "a",
    "high",
    "cold",
    "plain",
    "and",
    "looks",
    "down",
    "at",
    "a",
    "town",
]


def text(i: int) -> str:
    """A text of 3 to 16 words, each text another."""
    return f"{i} " + " ".join(WORDS[: 3 + i * 7 % 12])


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any] | bytes]) -> Path:
    """Rows as JSON lines; bytes are a line as it is."""
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def start(*args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """``ggrank`` in a process of its own, which Ctrl-C reaches even where the tests' shell turned it off."""
    return _popen("-m", "ggrank", *args, **options)


def _popen(*args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    def restore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**ENVIRONMENT, "GGRANK_CACHE_DIR": os.environ["GGRANK_CACHE_DIR"]},
        preexec_fn=restore,
        **options,
    )


def piped(stdin: str, *args: str | Path) -> tuple[int, str, str]:
    """``ggrank`` in a process of its own behind a real pipe: its exit code, stdout and stderr."""
    child = start(*args, stdin=subprocess.PIPE)
    stdout, stderr = child.communicate(stdin.encode())
    return child.returncode, stdout.decode(), stderr.decode()


STOPPING = """
    import os, signal, sys
    from pathlib import Path
    from ggrank.cli import main
    folder, most = Path(sys.argv.pop(1)), int(sys.argv.pop(1))
    fsync = os.fsync
    def stopping_fsync(number):
        fsync(number)
        if folder.exists() and len(list(folder.glob("part-*"))) >= most:
            os.fsync = fsync
            os.kill(os.getpid(), signal.SIGSTOP)
    os.fsync = stopping_fsync
    main()
"""


def start_stopping(folder: Path, most: int, *args: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """As `start`; once so many shards are there it stops, as SIGSTOP does. So it is never done, however fast
    it is, before it is killed or told to `go_on`. With 0 it stops at its first file.
    """
    return _popen("-c", textwrap.dedent(STOPPING), folder, str(most), *args, **options)


def go_on(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Lets it run to its end, wherever it stops meanwhile. Returns what it wrote to stdout and stderr."""
    while child.poll() is None:
        child.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    return child.communicate()


def n_shards(folder: Path) -> int:
    """Shards that are done."""
    return len(list(folder.glob("part-*")))


def wait_for_shards(child: subprocess.Popen[bytes], folder: Path, n: int) -> None:
    """Returns when so many shards are done, or when nothing more comes."""
    deadline = time.monotonic() + 1200
    while n_shards(folder) < n and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a job's folder but its lock, by name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "_lock"}
