"""Names that stand for several files: braces as Bash and WebDataset expand them, and globs."""

from __future__ import annotations

from pathlib import Path

SPECIAL = frozenset("{}*?[]")


def paths_of(path: Path) -> list[Path]:
    """What is at a path; where nothing is and the name has braces or wildcards, what these stand for, sorted.

    A name that braces spell out is among them whether or not it is there, but where none is there there are no paths.
    """
    if path.exists():
        return [path]
    root = root_of(path)
    if root == path:
        return []
    found = sorted({each for name in _expanded(str(path.relative_to(root))) for each in _matched(root, name)})
    return found if any(each.exists() for each in found) else []


def root_of(path: Path) -> Path:
    """The folder from which on names have braces or wildcards; a path that has none is its own."""
    if path.exists():
        return path
    special = [each for each in (path, *path.parents) if not SPECIAL.isdisjoint(each.name)]
    return special[-1].parent if special else path


def start_of(path: Path) -> Path:
    """The folder that the names of files at a path start at: itself, or the one it lies in."""
    root = root_of(path)
    return root if root.is_dir() else root.parent


def _expanded(name: str) -> list[str]:
    """With its braces expanded; as it is where one is not closed."""
    if "{" not in name:
        return [name]
    from braceexpand import braceexpand

    try:
        return list(braceexpand(name, escape=False))
    except ValueError:
        return [name]


def _matched(root: Path, name: str) -> list[Path]:
    return list(root.glob(name)) if not SPECIAL.isdisjoint(name) else [root / name]
