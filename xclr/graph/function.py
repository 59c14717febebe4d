"""The user's own function that makes a graph: found without being run, and loaded from its file, not from a cache."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from xclr.environment import setting
from xclr.errors import RecipeError

Function = Callable[..., Any]


def find_module(function: str, folder: Path, home: Path) -> Path:
    """The file of the module of MODULE:FUNCTION, in a folder, else in one of PYTHONPATH; runs no code.

    Raises RecipeError where there is none, where it defines no such function, and for one in HOME: what runs made is
    data.
    """
    module, _, name = function.partition(":")
    folders = [folder, *(Path(each) for each in (setting("PYTHONPATH") or "").split(os.pathsep) if each)]
    below = Path(*module.split(".")).with_suffix(".py")
    path = next((each / below for each in folders if (each / below).is_file()), None)
    if path is None:
        raise RecipeError(
            f"graph.function: there is no {below} in {folder.absolute()}, nor below PYTHONPATH",
            "put it beside the recipe, or give its folder as graph.path",
        )
    if path.resolve().is_relative_to(home.resolve()):
        raise RecipeError(f"graph.function: {path} lies in {home}, from which no code is run", "keep it outside HOME")
    try:
        defined = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError) as error:
        raise RecipeError(f"graph.function: {path} is not Python: {error}", "mend it") from error
    if name not in {each.name for each in defined if isinstance(each, ast.FunctionDef)}:
        raise RecipeError(f"graph.function: {path} defines no function {name}", f"write def {name}(rows, captions)")
    return path


@contextmanager
def loaded(function: str, path: Path) -> Iterator[Function]:
    """The function of a module's file as it is now; it may import what lies beside the module, within the block."""
    module, _, name = function.partition(":")
    made = ModuleType(module)
    made.__file__, made.__package__ = str(path), module.rpartition(".")[0]
    before, root = sys.modules.get(module), str(path.parents[module.count(".")])
    sys.path.insert(0, root)
    sys.modules[module] = made
    try:
        exec(compile(path.read_bytes(), path, "exec"), made.__dict__)  # noqa: S102 - the user's own
        yield getattr(made, name)
    finally:
        sys.path.remove(root)
        del sys.modules[module]
        if before is not None:
            sys.modules[module] = before
