"""Makes an environment for ggrank: ``python scripts/setup_env.py VENV SET``.

VENV is a folder such as ``.venv``. SET names a lock under ``requirements/``: ``run`` (what ggrank
needs), ``test`` (and what its tests and linters need), ``integrations`` (and the frameworks that it has
adapters for), ``parity`` (and torch with the original models) or ``bench`` (and the libraries that it is
measured beside). ``make`` calls this before every command; usually there is nothing to do, which takes a
tenth of a second and no pip.

A stamp in the environment lists its contents. It is removed before anything changes and written when
everything is done, so after an interruption the next run starts over; only the llama-cpp-python wheel,
which takes long, is cached (``llama_wheel.py``). Standard library only.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 10):  # noqa: UP036  # macOS's own python3 is 3.9: a sentence, not a traceback
    sys.exit("ggrank needs Python 3.10 or newer; this is " + sys.version.split()[0])

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llama_wheel
import toolchain
from llama_wheel import ROOT, SetupError

INCLUDED = {
    "run": {"run"},
    "test": {"run", "test"},
    "integrations": {"run", "integrations"},
    "parity": {"run", "parity"},
    "bench": {"run", "bench"},
}
"""The sets that an environment holds once it was made for one of them."""

CHOICES = ("CMAKE_ARGS", "CC", "CXX", "LLAMA_CPP_PIP_ARGS", "LLAMA_CPP_WHEEL")
"""Variables that choose another llama-cpp-python. One that is set must be what the environment was
made with; one that is not set is no wish: `make test` goes on with what `make demo CC=clang` made."""

MARKER = "made-by-ggrank"
STAMP = "ggrank-stamp.json"
LOG = "setup.log"
LOG_LINES_SHOWN = 30


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2 or arguments[1] not in INCLUDED:
        print(f"usage: setup_env.py VENV {{{'|'.join(INCLUDED)}}}", file=sys.stderr)
        return 2
    try:
        set_up(Path(arguments[0]).absolute(), arguments[1])
    except SetupError as error:
        print(f"ggrank: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ggrank: interrupted; the next make starts over", file=sys.stderr)
        return 130
    return 0


def set_up(venv: Path, name: str) -> None:
    """Brings the environment to where it holds set ``name``, by as little work as that takes."""
    stamp = read_stamp(venv)
    if holds(stamp, name, python=venv_python(venv)):
        return
    started, target = time.monotonic(), "demo" if name == "run" else name
    current = is_current(stamp, python=venv_python(venv))
    if not current:
        llama_wheel.check_obtainable(target=target)
    (venv / STAMP).unlink(missing_ok=True)
    if not current:
        create(venv)
        stamp = {"base": base_identity(), "choices": choices(), "sets": []}
    environment = Environment(venv)
    if name not in stamp["sets"]:
        environment.install_locked(name)
    if not stamp["sets"]:
        environment.install_llama_cpp()
    environment.install_ggrank()
    sets = sorted({*stamp["sets"], *INCLUDED[name]})
    write_stamp(venv, {**stamp, "sets": sets, "project": project_identity()})
    say(f"{venv.name} is ready ({time.monotonic() - started:.0f} s)")


def say(message: str) -> None:
    print(f"ggrank: {message}", flush=True)


# -- what an environment is and was


def base_identity() -> str:
    """What an environment is made from. Where this changes, nothing in it can be trusted."""
    parts = [sys.version, os.path.realpath(sys.executable), str(ROOT)]
    parts += [toolchain.cpu_identity(toolchain.read_cpuinfo())]
    parts += [path.read_text("utf-8") for path in sorted((ROOT / "requirements").glob("*.lock"))]
    return digest(*parts)


def project_identity() -> str:
    """What the installed ggrank is made from: its metadata, since its code is used where it lies."""
    return digest((ROOT / "pyproject.toml").read_text("utf-8"))


def choices() -> dict[str, str]:
    return {name: os.environ[name] for name in CHOICES if os.environ.get(name)}


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def is_current(stamp: Mapping[str, Any], *, python: Path) -> bool:
    """Whether the environment can be built upon: same Python, place, CPU and locks, and no other wish."""
    if stamp.get("base") != base_identity() or not python.exists():
        return False
    return all(stamp["choices"].get(name) == value for name, value in choices().items())


def holds(stamp: Mapping[str, Any], name: str, *, python: Path) -> bool:
    """Whether there is nothing to do."""
    current = is_current(stamp, python=python)
    return current and name in stamp["sets"] and stamp.get("project") == project_identity()


def read_stamp(venv: Path) -> dict[str, Any]:
    try:
        stamp = json.loads((venv / STAMP).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv: Path, stamp: Mapping[str, Any]) -> None:
    temporary = venv / f"{STAMP}.new"
    temporary.write_text(json.dumps(stamp, indent=1), "utf-8")
    temporary.replace(venv / STAMP)


def venv_python(venv: Path) -> Path:
    return venv / "Scripts" / "python.exe" if sys.platform == "win32" else venv / "bin" / "python"


# -- making one


def create(venv: Path) -> None:
    """An empty environment in place of whatever setup left there; a folder of somebody else's stays."""
    if venv.exists() and any(venv.iterdir()) and not (venv / MARKER).exists():
        raise SetupError(f"{venv} is there, and was not made by make: move it away first")
    say(f"making {venv.name} with Python {sys.version.split()[0]}")
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir(parents=True, exist_ok=True)
    (venv / MARKER).write_text("Made by scripts/setup_env.py, which also removes it.\n", "utf-8")
    made = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
    if made.returncode != 0:
        raise SetupError(explain_no_venv(made.stdout + made.stderr))


def explain_no_venv(output: str) -> str:
    version = "python{}.{}".format(*sys.version_info[:2])
    if importlib.util.find_spec("ensurepip") is None or "ensurepip is not" in output:
        return f"{version} here cannot make environments. On Debian and Ubuntu: apt install {version}-venv"
    return f"{version} -m venv failed:\n{output.strip()}"


class Environment:
    """An environment to install into. Everything that pip prints goes to its log."""

    def __init__(self, venv: Path) -> None:
        self.python = venv_python(venv)
        self.log = venv / LOG
        self.scratch = venv / "wheels"

    def install_locked(self, name: str) -> None:
        """The packages of a lock, each with the hash that the lock has for it."""
        say(f"installing what requirements/{name}.lock lists")
        lock = ROOT / "requirements" / f"{name}.lock"
        self.pip(["install", "--no-deps", "--require-hashes", "--requirement", str(lock)])
        if name in ("parity", "bench"):  # in no lock, since its build differs by platform: CONTRIBUTING.md
            self.pip(["install", "--requirement", str(lock.with_name("torch.lock"))])

    def install_llama_cpp(self) -> None:
        """A llama-cpp-python that starts here."""
        while True:
            shutil.rmtree(self.scratch, ignore_errors=True)
            self.scratch.mkdir()
            wheel = llama_wheel.get_wheel(self.pip, scratch=self.scratch, say=say)
            self.pip(["install", "--no-deps", "--no-index", "--force-reinstall", str(wheel)])
            if not (failure := self.import_failure()):
                break
            if not llama_wheel.forget(wheel):
                raise SetupError(f"{wheel.name} does not start here:\n{failure}")
        shutil.rmtree(self.scratch, ignore_errors=True)

    def import_failure(self) -> str:
        """What importing llama_cpp prints when it fails; a wheel from another system shows here."""
        command = [str(self.python), "-I", "-c", "import llama_cpp"]
        answer = subprocess.run(command, capture_output=True, text=True)
        return "" if answer.returncode == 0 else answer.stderr.strip() or f"exit code {answer.returncode}"

    def install_ggrank(self) -> None:
        """This checkout, used where it lies; then proof that what is installed fits together."""
        self.pip(["install", "--no-deps", "--editable", str(ROOT)])
        self.pip(["check"])

    def pip(self, arguments: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Runs pip; when it fails, the error shows the end of the log."""
        command = [str(self.python), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
        variables = {**os.environ, **(variables or {})}
        variables.pop("PYTHONPATH", None)  # what is found there would count as installed
        with self.log.open("a", encoding="utf-8") as log:
            print(f"\n$ {' '.join(command)}", file=log, flush=True)
            done = subprocess.run(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=variables)
        if done.returncode != 0:
            raise SetupError(f"pip {arguments[0]} failed:\n{self.last_lines()}\nThe whole log: {self.log}")

    def last_lines(self) -> str:
        """The end of what the last command wrote."""
        output = self.log.read_text("utf-8", errors="replace").rpartition("\n$ ")[2]
        return "\n".join(f"    {line}" for line in output.splitlines()[1:][-LOG_LINES_SHOWN:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
