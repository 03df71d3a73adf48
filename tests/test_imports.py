"""`import ggrank` is cheap: the command line, network and llama.cpp are loaded when they are used."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import ggrank

HEAVY = ("click", "httpx", "httpx2", "huggingface_hub", "llama_cpp", "numpy", "tokenizers")


def modules_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(answer.stdout.split())


def test_importing_ggrank_loads_nothing_heavy() -> None:
    assert modules_after("import ggrank") & set(HEAVY) == set()


def test_loading_a_model_class_loads_neither_command_line_nor_network() -> None:
    loaded = modules_after("from ggrank import Llama")
    assert loaded & {"click", "httpx", "httpx2", "huggingface_hub"} == set()


@pytest.mark.parametrize("name", ggrank.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(ggrank, name) is not None


def test_the_version_is_that_of_the_package() -> None:
    assert ggrank.__version__ == version("ggrank")


def test_a_plain_text_does_not_wait_for_tokenizers() -> None:
    plain = "from ggrank import Llama; llama = Llama.load('all-minilm-l6-v2'); llama.embed('plain text')"
    assert "tokenizers" not in modules_after(plain)
    assert "tokenizers" in modules_after(f"{plain}; llama.embed('na\u00efve')")
