"""What the tests of the adapters share: texts, and a Python without any network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUERY = "How long may I keep cooked rice in the fridge?"
TEXTS = [
    "Uncooked white rice keeps for years in a dry, dark cupboard.",
    "Cooked rice keeps three to four days in the refrigerator, in a closed box.",
    "Rinse rice until the water runs clear, then cook it with twice its volume of water.",
    "A refrigerator should be set to 4 degrees Celsius or a little below.",
    "The Mekong delta grows about half of Vietnam's rice.",
    "Potatoes should not lie beside onions.",
]

# Every Python that finds it on its path imports it: looking up a name or connecting is an error, and shown.
NO_NETWORK = """\
import os, socket
def refuse(*args, **options):
    os.write(2, f"network: {args}".encode())
    raise OSError("no network in this test")
socket.getaddrinfo = socket.socket.connect = socket.socket.connect_ex = refuse
"""


def run_without_network(home: Path, *arguments: str | Path) -> list[str]:
    """The lines that Python prints, in a home of its own, so that no settings of this machine count."""
    home.mkdir(exist_ok=True)
    (home / "sitecustomize.py").write_text(NO_NETWORK, "utf-8")
    paths = os.pathsep.join([str(home), str(ROOT / "src")])
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=home,
        env={**os.environ, "HOME": str(home), "PYTHONPATH": paths},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def shown_in_docs(title: str) -> str:
    """The first Python block of a section of docs/integrations.md."""
    page = (ROOT / "docs" / "integrations.md").read_text("utf-8")
    return page.split(f"\n## {title}\n")[1].split("```python\n")[1].split("```")[0]
