"""The tests' own order: what several modules use is in tests/kit, and no test module is a library."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.kit.groups import GROUPS

TESTS = Path(__file__).parent


def imported(path: Path) -> set[str]:
    """Modules that a file imports, whole names; of `from a import b` both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
    return names


def test_no_test_module_is_imported():
    modules = {".".join(path.relative_to(TESTS.parent).with_suffix("").parts) for path in TESTS.rglob("test_*.py")}
    found = {path: imported(path) & modules for path in TESTS.rglob("*.py")}
    assert {str(path): names for path, names in found.items() if names} == {}


def test_every_module_of_the_kit_is_used():
    files = [*TESTS.rglob("*.py"), *(TESTS.parent / "docs").rglob("*.py")]
    used = set().union(*map(imported, files))
    kit = {f"tests.kit.{path.stem}" for path in (TESTS / "kit").glob("*.py")} - {"tests.kit.__init__"}
    assert kit <= used


def test_groups_are_of_files_that_there_are():
    assert [path for path in GROUPS if not (TESTS.parent / path).exists()] == []
