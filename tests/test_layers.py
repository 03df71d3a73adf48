"""Imports point downwards: every import in src/ggrank is checked, those inside functions too.

A module may import modules of lower layers and of its own package, nothing else of ggrank.
``TYPE_CHECKING`` blocks count as well: a type that flows upwards is an edge all the same.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "ggrank"

LAYERS: list[set[str]] = [
    {"errors"},
    {"types"},
    {"scoring", "rows", "gguf"},
    {"hub"},
    {"text"},
    {"engine"},
    {"loading"},
    {"llama"},
    {"remote"},
    {"jobs", "conversion"},
    {"search"},  # above jobs, whose Parquet files an index takes vectors from
    {"__init__"},  # the public names: only what uses the API takes them from here
    {"evaluation"},  # below cli, because `ggrank eval` shows what it finds
    {"server", "integrations", "compat"},
    {"cli"},  # above the server, which `ggrank serve` starts
    {"__main__"},
]
HEIGHT = {name: height for height, layer in enumerate(LAYERS) for name in layer}
MODULES = sorted(SOURCE.rglob("*.py"))


def unit_of(module: Path) -> str:
    """The name that has a layer: a module's own, or that of the package it lies in."""
    return module.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_names(module: Path) -> Iterator[str]:
    """Dotted names of everything that a module imports, at whatever depth of its code."""
    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve(module, node)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def resolve(module: Path, node: ast.ImportFrom) -> str:
    """The absolute name of what an import takes from; ``from . import x`` counts its dots upwards."""
    if not node.level:
        return node.module or ""
    package = ["ggrank", *module.relative_to(SOURCE).parent.parts]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def ggrank_imports(module: Path) -> set[str]:
    """The units of ggrank that a module imports; ``from ggrank import Llama`` is one of ``__init__``."""
    names = [name.split(".") for name in imported_names(module)]
    found = {parts[1] for parts in names if parts[0] == "ggrank" and len(parts) > 1}
    return {name if name in HEIGHT else "__init__" for name in found}


def units() -> set[str]:
    return {unit_of(module) for module in MODULES}


def test_every_module_has_a_layer() -> None:
    assert units() - set(HEIGHT) == set(), "give the new module a place in LAYERS"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(SOURCE)))
def test_imports_point_downwards(module: Path) -> None:
    unit = unit_of(module)
    not_lower = {name for name in ggrank_imports(module) - {unit} if HEIGHT[name] >= HEIGHT[unit]}
    assert not_lower == set(), f"{unit} may only import from lower layers"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(SOURCE)))
def test_only_the_engine_imports_llama_cpp(module: Path) -> None:
    imports = any(name.split(".")[0] == "llama_cpp" for name in imported_names(module))
    assert not imports or unit_of(module) == "engine"


IMPORTS_OF_EVERY_KIND = """\
import ggrank.hub
from ggrank import Llama
if TYPE_CHECKING:
    from ggrank.types import Ranking
def f():
    from ..server import app
"""


def test_the_walk_sees_relative_lazy_and_type_only_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "SOURCE", tmp_path)
    module = tmp_path / "cli" / "rank.py"
    module.parent.mkdir()
    module.write_text(IMPORTS_OF_EVERY_KIND)
    assert ggrank_imports(module) == {"hub", "__init__", "types", "server"}
