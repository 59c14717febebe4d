"""What `xclr doctor` says of the published data sets: there and whole, with how many pictures, or how to get them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow.compute as pc

from infra.finding import Finding
from xclr.errors import DataError
from xclr.evaluation.datasets import LAYOUTS, READERS, Benchmark, Tree, explaining

SHOWN = 3  # names in a finding


class _Checked(NamedTuple):
    finding: Finding
    benchmark: Benchmark | None = None


def check_datasets(roots: Mapping[str, Path]) -> Iterator[Finding]:
    """Every data set in turn, and whether ReaL's labels fit ImageNet where both are there; raises nothing."""
    found: dict[str, Benchmark] = {}
    for name in READERS:
        finding, benchmark = _checked(name, roots.get(name))
        yield finding
        if benchmark is not None and name in {"imagenet", "real"}:
            found[name] = benchmark
    if len(found) == 2:
        yield _check_relabelled(**found)


def check_dataset(name: str, root: Path | None) -> Finding:
    """A data set as its suites will read it; without a root, how it must lie and where to obtain it."""
    return _checked(name, root).finding


def _checked(name: str, root: Path | None) -> _Checked:
    check, layout = f"data set {name}", LAYOUTS[name]
    if root is None:
        remedy = f"set evaluate.roots.{name} to where it lies; expected: {layout.expected}; {layout.obtain}"
        return _Checked(Finding(check=check, state="optional", found="not given", remedy=remedy))
    try:
        with explaining(layout):
            benchmark = READERS[name].read(Tree.open(root))
    except DataError as error:
        return _Checked(Finding(check=check, state="wrong", found=error.message, remedy=error.remedy))
    found = f"{root}: {benchmark.items.num_rows:,} pictures, {_classes(benchmark):,} classes"
    return _Checked(Finding(check=check, state="ok", found=found), benchmark)


def _classes(benchmark: Benchmark) -> int:
    """How many classes there are; those that occur where the labels are of another data set."""
    return len(benchmark.classes) or len(pc.unique(pc.list_flatten(benchmark.items["targets"])))


def _check_relabelled(imagenet: Benchmark, real: Benchmark) -> Finding:
    """Every validation picture of ImageNet has an entry in ReaL."""
    val = imagenet.items.filter(pc.equal(imagenet.items["split"], "val"))["name"].to_pylist()
    known = set(real.items["name"].to_pylist())
    check, missing = "ReaL labels", [name for name in val if name.rpartition("/")[2] not in known]
    if not missing:
        return Finding(check=check, state="ok", found=f"one entry for each of {len(val):,} validation pictures")
    first = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
    return Finding(
        check=check, state="wrong", found=f"{len(missing):,} of {len(val):,} validation pictures have none: {first}",
        remedy=f"keep the pictures' published names, and {LAYOUTS['real'].obtain}",
    )  # fmt: skip
