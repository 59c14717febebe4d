"""An export is put in its place whole, and never over what somebody else made."""

from __future__ import annotations

import filecmp
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from secrets import token_hex

from xclr.errors import StoreError

COMPILED = "__pycache__"  # which importing preprocessing.py leaves there


def put(out: Path, write: Callable[[Path], Collection[str]], *, names: Collection[str], force: bool = False) -> None:
    """Let `write` fill a folder beside `out`, which is then renamed to it; what is there and the same stays.

    Raises StoreError where `out` is a file or holds files that no export writes (`names`), and, without `force`, where
    it holds another export.
    """
    _check(out, names)
    draft = out.with_name(f".{out.name}.{token_hex(8)}")
    try:
        draft.mkdir(parents=True)
        made = write(draft)
        if _names(out):
            if _same(draft, out, made):
                return
            if not force:
                raise StoreError(f"{out} holds another export", "--force replaces it, -o PATH names another folder")
        _exchange(draft, out)
    except OSError as error:
        raise StoreError(f"cannot write {out}: {error.strerror}", "name another folder: -o PATH") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check(out: Path, names: Collection[str]) -> None:
    if out.exists() and not out.is_dir():
        raise StoreError(f"{out} is a file", "an export is a folder: -o PATH")
    if foreign := sorted(_names(out) - set(names)):
        raise StoreError(f"{out} holds {foreign[0]}, which no export writes", "name another folder: -o PATH")


def _same(draft: Path, out: Path, made: Collection[str]) -> bool:
    return _names(out) == set(made) and filecmp.cmpfiles(draft, out, list(made), shallow=False)[0] == list(made)


def _exchange(draft: Path, out: Path) -> None:
    """Rename `draft` to `out`; what was there goes."""
    before = out.with_name(f".{out.name}.{token_hex(8)}")
    if out.exists():
        out.rename(before)
    draft.rename(out)
    shutil.rmtree(before, ignore_errors=True)


def _names(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()} - {COMPILED} if folder.is_dir() else set()
