"""What `xclr plan --json` says of every named recipe and source, pinned: names of outputs change on purpose alone.

`python -m tests.golden.test_plans` writes the pinned file anew, where outputs change on purpose.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.cluster import load_cluster
from infra.plan import plan
from tests.kit import trees
from xclr.recipe import Recipe, load_recipe, parse_recipe, recipe_names
from xclr.store import Store

PINNED = Path(__file__).with_name("plans.json")
WHEN_NS = 1_600_000_000_000_000_000  # when every file of a case was changed, as far as its name goes
EVERY_SUITE = ["linear", "knn", "imagenet", "real", "imagenet9", "objectnet", "mit-states", "few-shot", "zero-shot"]
EVERY_SUITE += ["retrieval", "finetune"]
OBJECTIVES = ["simclr", "supcon", "clip", {"name": "clip", "text": "frozen"}, "xclr", "cwcl", "cloob", "softclip"]
GRAPHS = ["class_captions", "class", "augmentation", "random_class", "random_pair", "knn"]


def write(path: Path, content: str | bytes = b"x") -> Path:
    """A file whose name, size and time of change are the same everywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def roots(folder: Path) -> dict[str, str]:
    """The published data sets as planning sees them: names and sizes, without pictures."""
    found = trees.every(folder)
    for path in folder.rglob("*"):
        if path.suffix.lower() in {".jpeg", ".png", ".jpg"}:
            write(path)
    return found


def table(folder: Path) -> dict[str, Any]:
    """A CSV that names files."""
    for name in ("dog", "cat"):
        write(folder / f"{name}.png")
    path = write(folder / "mine.csv", "caption,image,kind\na dog,dog.png,dog\na cat,cat.png,cat\n")
    return {"source": "table", "path": str(path), "label_column": "kind"}


def unlabelled(folder: Path) -> dict[str, Any]:
    """The same without classes."""
    return {name: each for name, each in table(folder).items() if name != "label_column"}


def class_folders(folder: Path) -> dict[str, Any]:
    """A folder for each class."""
    for name in ("train/dog/a", "train/cat/b", "val/dog/c", "val/cat/d"):
        write(folder / f"{name}.png")
    return {"source": "folder", "path": str(folder)}


def wds(folder: Path) -> dict[str, Any]:
    """A mirror's tar."""
    folder.mkdir(parents=True)
    with tarfile.open(folder / "00000.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    return {"source": "wds", "path": str(folder)}


def conceptual(source: str, line: str) -> Callable[[Path], dict[str, Any]]:
    """A table of Conceptual Captions."""
    return lambda folder: {"source": source, "path": str(write(folder / "x.tsv", line))}


def imagenet(folder: Path) -> dict[str, Any]:
    """Kaggle's folders."""
    return {"source": "imagenet", "path": roots(folder)["imagenet"]}


SOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "emoji": lambda folder: {"source": "emoji", "limit": 400},
    "table": table,
    "unlabelled": unlabelled,
    "folder": class_folders,
    "wds": wds,
    "cc3m": conceptual("cc3m", "a dog\thttp://host/a.jpg\n"),
    "cc12m": conceptual("cc12m", "http://host/a.jpg\ta dog\n"),
    "imagenet": imagenet,
}
LABELLED = {"emoji", "table", "folder", "imagenet"}


def recipe_of(case: str, folder: Path) -> Recipe:
    """A named recipe, or one over a source with every suite, objective and graph that it can serve."""
    model = str(write(folder / "model" / "weights").parent)
    kind, name = case.split(" ")
    data = SOURCES[name](folder / "data") if name in SOURCES and name != "emoji" else None
    evaluate = {"roots": roots(folder / "sets")}
    if kind == "recipe":
        changes = [f"embed.model={model}"]
        if data is not None:
            changes += [f"data.path={data['path']}", f"evaluate={json.dumps(evaluate)}"]
        return load_recipe(name, changes)
    graphs = GRAPHS if name in LABELLED else ["augmentation", "random_pair", "knn"]
    own = [{"name": "xclr", "graph": {"source": each}} for each in graphs]
    raw = {
        "name": name,
        "data": data or SOURCES[name](folder),
        "embed": {"model": model},
        "objectives": [*OBJECTIVES, *own],
        "seeds": [1],
        "evaluate": evaluate | {"suites": EVERY_SUITE},
    }
    return parse_recipe(raw, where=f"{name}.yaml")


def planned(case: str, folder: Path) -> list[list[str]]:
    """Stage and the start of its digest, as `xclr plan --json` prints them."""
    recipe = recipe_of(case, folder)
    for path in folder.rglob("*"):
        os.utime(path, ns=(WHEN_NS, WHEN_NS))
    return [[each.stage, each.digest[:8]] for each in plan(recipe, Store(folder / "home"), load_cluster("local"))]


CASES = [*(f"recipe {name}" for name in recipe_names()), *(f"source {name}" for name in SOURCES)]


@pytest.mark.parametrize("case", CASES)
def test_a_plan_names_every_output_as_it_was_pinned(case: str, tmp_path: Path) -> None:
    assert planned(case, tmp_path) == json.loads(PINNED.read_text())[case]


if __name__ == "__main__":
    from tempfile import mkdtemp

    PINNED.write_text(
        json.dumps({case: planned(case, Path(mkdtemp())) for case in CASES}).replace("]], ", "]],\n") + "\n"
    )
