"""``python -m ggrank``: the same as the command ``ggrank``."""

from __future__ import annotations

from ggrank.cli import main

if __name__ == "__main__":
    main(prog_name="python -m ggrank")
