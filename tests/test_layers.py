"""Imports go only from left to right, and heavy packages stay in the rooms that need them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pncbayes

PACKAGE = Path(pncbayes.__file__).parent
ROOMS = ("photons", "physics", "hmm", "inference", "batch", "population", "report", "cli")
RANK = {room: rank for rank, room in enumerate(ROOMS)}
# Free to all, or above all.
UNRANKED = {"errors", "__init__", "__main__"}

ALLOWED_IN = {
    "matplotlib": {"report"},
    "mpl_toolkits": {"report"},
    "jax": {"hmm"},
    "jaxlib": {"hmm"},
    "numpyro": {"hmm", "inference"},
    "typer": {"cli"},
    # progress bars of long fits, besides what is printed
    "rich": {"inference", "report", "cli"},
    "pymc": {"inference", "batch", "population"},
    "nutpie": {"inference", "population"},
}
# The physics is written once over NumPy or PyTensor; it must not need PyTensor to be imported.
ONLY_IN_FUNCTIONS = {"physics": {"pytensor"}}
FORBIDDEN = {"photons": {"pytensor"}}


class Import(NamedTuple):
    """One import statement, resolved to a full dotted name."""

    module: str
    line: int
    in_function: bool


def imports_of(source: str) -> Iterator[Import]:
    """All imports of a module, with ``from a import b`` given as ``a.b``."""

    def walk(node: ast.AST, in_function: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(alias.name, child.lineno, in_function)
            elif isinstance(child, ast.ImportFrom):
                base = "." * child.level + (child.module or "")
                for alias in child.names:
                    yield Import(f"{base}.{alias.name}", child.lineno, in_function)
            is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from walk(child, in_function or is_function)

    yield from walk(ast.parse(source), False)


def room_of_module(path: Path) -> str:
    """The room a file of the package belongs to: its folder, or its own name at the top."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else path.stem


def room_of_import(module: str) -> str | None:
    """The room that an import reaches; None for other packages and what is free to all."""
    parts = module.split(".")
    if parts[0] != "pncbayes" or len(parts) == 1:
        return None
    # `from pncbayes import fit` reaches the room that the public name lives in.
    name = pncbayes._PUBLIC.get(parts[1], f"pncbayes.{parts[1]}")
    return name.split(".")[1]


def complaints(room: str, source: str) -> list[str]:
    """Everything that the imports of a module in `room` do against the rules."""
    found = []
    for module, line, in_function in imports_of(source):
        top = module.split(".")[0]
        target = room_of_import(module)
        if module.startswith("."):
            found.append(f"line {line}: relative import {module}")
        elif target in RANK and room in RANK and RANK[target] > RANK[room]:
            found.append(f"line {line}: {room} imports {module}, an arrow to the left")
        elif room in ALLOWED_IN.get(top, {room}) or (room == "__main__" and top == "typer"):
            if top in FORBIDDEN.get(room, set()):
                found.append(f"line {line}: {room} must not import {module}")
            if top in ONLY_IN_FUNCTIONS.get(room, set()) and not in_function:
                found.append(f"line {line}: {room} may import {module} inside functions only")
        else:
            allowed = ", ".join(sorted(ALLOWED_IN[top]))
            found.append(f"line {line}: only {allowed} may import {top}, not {room}")
    return found


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_from_left_to_right(path: Path) -> None:
    room = room_of_module(path)
    assert room in RANK or room in UNRANKED, f"{room} is not a room of DESIGN: add it to ROOMS"
    assert complaints(room, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("photons", "from pncbayes.physics.decay import decay"),
        ("photons", "def f():\n    import pncbayes.hmm.op"),
        ("physics", "from pncbayes import fit"),
        ("hmm", "from pncbayes import inference"),
        ("photons", "import pymc as pm"),
        ("photons", "def f():\n    import pytensor.tensor as pt"),
        ("physics", "import pytensor.tensor as pt"),
        ("physics", "if True:\n    from pymc import Model"),
        ("inference", "import jax.numpy as jnp"),
        ("inference", "def f():\n    from matplotlib import pyplot"),
        ("photons", "from . import stream"),
    ],
)
def test_a_wrong_arrow_is_found(room: str, source: str) -> None:
    assert len(complaints(room, source)) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("photons", "from pncbayes.errors import PhotonFileError"),
        ("photons", "from pncbayes.photons.stream import Photons"),
        ("physics", "def f():\n    import pytensor.tensor as pt"),
        ("inference", "from pncbayes import __version__, read"),
        ("report", "from matplotlib import pyplot as plt"),
        ("hmm", "import jax"),
    ],
)
def test_a_right_arrow_passes(room: str, source: str) -> None:
    assert complaints(room, source) == []
