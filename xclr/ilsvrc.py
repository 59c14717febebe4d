"""ImageNet's folders and lists as Kaggle packs them: where they lie, and whose pictures those of a flat val are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from xclr.errors import DataError
from xclr.files import TRAIN
from xclr.synsets import SYNSET

SOLUTION = "LOC_val_solution.csv"
TOPS = ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", "CLS-LOC")  # the folders of train and val, below Kaggle's or one in it
ABOVE = 3  # folders between Kaggle's lists and its pictures
SHOWN = 3  # files named in a message


def base_of(exists: Callable[[str], bool]) -> str:
    """What the names of train and val begin with: "" or "ILSVRC/Data/CLS-LOC/" and so on; "" where there are none."""
    return next((f"{top}/" for top in TOPS if not exists(TRAIN) and exists(f"{top}/{TRAIN}")), "")


def is_unpacked(root: Path) -> bool:
    """Whether a folder holds train, at whatever of these places."""
    return any((root / top / TRAIN).is_dir() for top in ("", *TOPS))


def list_of(name: str, base: str, exists: Callable[[str], bool]) -> str | None:
    """A list that lies beside train and val or at most ABOVE folders over them, "../" where that is above the root."""
    parts = base.split("/")[:-1]
    places = ["".join(f"{each}/" for each in parts[: len(parts) - up]) for up in range(min(ABOVE, len(parts)) + 1)]
    places += ["../" * (up - len(parts)) for up in range(len(parts) + 1, ABOVE + 1)]
    return next((place + name for place in places if exists(place + name)), None)


def solution(text: str, path: Path) -> dict[str, str]:
    """The synset of each picture of val, by the stem of its file; raises DataError for a line that has none."""
    found = {}
    for line, each in enumerate(text.splitlines(), start=1):
        picture, _, boxes = each.strip().partition(",")
        synset = boxes.partition(" ")[0]
        if not picture or picture == "ImageId":
            continue
        if not SYNSET.fullmatch(synset):
            raise DataError(f"{path}: line {line} has no synset: {each!r}"[:300], "a line is: ImageId,wnid x y x y ...")
        found[picture] = synset
    return found


def sort_flat(files: Iterable[str], synsets: Mapping[str, str], path: Path) -> dict[str, str]:
    """The files of a flat val by their names in class folders, <wnid>/<file>; raises DataError for one not in `path`"""
    found, lost = {}, []
    for file in files:
        if synset := synsets.get(file.rpartition(".")[0]):
            found[f"{synset}/{file}"] = file
        else:
            lost.append(file)
    if lost:
        first = ", ".join(sorted(lost)[:SHOWN]) + (", ..." if len(lost) > SHOWN else "")
        raise DataError(
            f"{path} has no line for {len(lost):,} pictures of val: {first}",
            f"put Kaggle's whole {SOLUTION} there, and keep only pictures of val there, ILSVRC2012_val_00000001.JPEG",
        )
    return found


def no_solution(val: Path) -> DataError:
    """The error for a flat val whose pictures have no labels."""
    return DataError(
        f"{val} has no folders of classes, and no {SOLUTION} lies beside or above it",
        f"put Kaggle's {SOLUTION} into {val.parent}, or sort val into a folder a synset",
    )
