"""What is known of a data set that models are judged on: its pictures, their labels and what these stand for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xclr.errors import DataError
from xclr.evaluation.datasets.tree import AGAIN, Tree
from xclr.files import SUFFIXES

if TYPE_CHECKING:
    import pyarrow as pa

ITEMS, CLASSES, MAPPING = "items.parquet", "classes.parquet", "mapping.json"
SHOWN = 3  # names in a message
Class = tuple[str, str | None]  # as a caption would call it, and its synset of WordNet


class DatasetLayout(NamedTuple):
    """How a data set's files must lie, and where they come from."""

    expected: str
    obtain: str


@dataclass(frozen=True)
class Benchmark:
    """A data set's pictures (schema.ITEMS) and its classes, in the order of the labels.

    `labels` are the classes' own where they are not 0, 1, 2 and so on: a part of ImageNet keeps the numbers that its
    classes have among the 1,000. `mapping` leads from ImageNet's classes to these, -1 for none; it is empty where the
    labels are ImageNet's or have nothing to do with them.
    """

    items: pa.Table
    classes: tuple[Class, ...]
    mapping: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()


def write(benchmark: Benchmark, out: Path, about: Mapping[str, Any]) -> tuple[str, ...]:
    """Write items.parquet, classes.parquet and, for a mapping, mapping.json (a list); returns the files' names."""
    import pyarrow as pa

    from xclr import schema

    columns = {
        "label": benchmark.labels or range(len(benchmark.classes)),
        "name": [name for name, _ in benchmark.classes],
        "synset": [synset for _, synset in benchmark.classes],
    }
    schema.write(benchmark.items, out / ITEMS, schema.ITEMS, about)
    schema.write(pa.table(columns, schema=schema.CLASSES), out / CLASSES, schema.CLASSES, about)
    if not benchmark.mapping:
        return ITEMS, CLASSES
    (out / MAPPING).write_text(json.dumps(benchmark.mapping))
    return ITEMS, CLASSES, MAPPING


def items(
    names: Sequence[str],
    splits: Sequence[str],
    targets: Sequence[Sequence[int]],
    attributes: Sequence[int] | None = None,
) -> pa.Table:
    """The table of pictures: names, splits, lists of targets and attributes of n rows, numbered from 0."""
    import pyarrow as pa

    from xclr import schema

    columns = {
        "row_id": range(len(names)),
        "name": names,
        "split": splits,
        "targets": targets,
        "attribute": pa.nulls(len(names), pa.int64()) if attributes is None else attributes,
    }
    return pa.table(columns, schema=schema.ITEMS)


@contextmanager
def explaining(layout: DatasetLayout) -> Iterator[None]:
    """Add to the remedy of a DataError how the files must lie and where to obtain them."""
    try:
        yield
    except DataError as error:
        if layout.obtain in error.remedy:
            raise
        raise DataError(error.message, f"{error.remedy}; expected: {layout.expected}; {layout.obtain}") from error


def placed(tree: Tree, part: str, *tops: str) -> str:
    """What the names begin with: "", or "top/" where `part` lies in a folder `top` of the archive or in the only one.

    Raises DataError where it lies in none.
    """
    only = tree.folders()
    for top in ("", *tops, *(only if len(only) == 1 else ())):
        prefix = f"{top}/" if top else ""
        if tree.exists(prefix + part):
            return prefix
    raise DataError(f"{tree.root / part} is missing", AGAIN)


def pictures_below(tree: Tree, folder: str) -> list[str]:
    """The sorted names of the pictures below a folder."""
    return [name for name in tree.files(folder) if name.lower().endswith(ENDINGS)]


ENDINGS = tuple(sorted(SUFFIXES))


def by_folder(tree: Tree, part: str) -> dict[str, list[str]]:
    """The pictures of each folder below `part`; raises DataError where there are no folders."""
    found = {each: pictures_below(tree, f"{part}/{each}") for each in tree.folders(part)}
    if not found:
        raise DataError(f"{tree.root / part} has no folders", "put the pictures of each class into a folder")
    return found


def json_of(tree: Tree, name: str) -> Any:  # noqa: ANN401 - what a file holds
    """The content of a JSON file; raises DataError for one that is missing or no JSON."""
    try:
        return json.loads(tree.read(name))
    except (ValueError, RecursionError) as error:  # which those of decoding are too
        raise DataError(f"{tree.root / name} is not JSON: {error}", AGAIN) from error


def table_of(tree: Tree, name: str, kind: type) -> dict[str, Any]:
    """A JSON file that maps names to values of one type; raises DataError for any other."""
    found = json_of(tree, name)
    if not isinstance(found, dict) or not found or not all(type(value) is kind for value in found.values()):
        raise DataError(f"{tree.root / name} does not map names to {kind.__name__}", AGAIN)
    return found


def text_of(tree: Tree, name: str) -> str:
    """The content of a text file; raises DataError for one that is missing or not UTF-8."""
    try:
        return tree.read(name).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{tree.root / name} is not UTF-8 text: {error}", AGAIN) from error


def partial(where: Path, what: str) -> DataError:
    """The error for data of which a part is not there."""
    return DataError(f"{where} is partial: {what}", AGAIN)


def few(names: Sequence[str]) -> str:
    """How many there are, and the first ones."""
    return f"{len(names)} ({', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''})"
