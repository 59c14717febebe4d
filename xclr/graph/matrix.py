"""Similarities of all classes, from a file of the user's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.lib.format import read_array

from xclr.errors import DataError
from xclr.graph import check
from xclr.graph.check import Numbers
from xclr.graph.columns import EDGE, numbers, places, read_table


class ClassMatrix(NamedTuple):
    """Similarities of all classes [C, C], and how many classes of others the file has."""

    similarity: Numbers
    others: int


def read_matrix(path: Path, names: Sequence[str]) -> ClassMatrix:
    """Read the similarities of the classes of these names: a .npy in their order, or Parquet by name, in any order.

    Parquet has a row a pair, src, dst and sim, where one direction is enough; or a row and a column for each class, and
    its name in the one column of text. Raises DataError naming the first class or pair that is missing or stands twice.
    """
    if path.suffix == ".npy":
        return ClassMatrix(_read_array(path, len(names)), 0)
    _check_once(names, "the data have")
    table = read_table(path)
    return (_of_pairs if set(EDGE) <= set(table.column_names) else _of_columns)(table, names)


def _read_array(path: Path, classes: int) -> Numbers:
    try:
        with path.open("rb") as stream:
            found = read_array(stream, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no array of NumPy: {error}", "write it with numpy.save, as numbers") from error
    if found.shape != (classes, classes) or found.dtype.kind not in "biuf":
        raise DataError(
            f"{path} has {found.dtype} of shape {list(found.shape)}, and the data have {classes} classes",
            "give a number for each pair of classes, in the order of classes.parquet, or Parquet with their names",
        )
    return np.asarray(found, dtype=np.result_type(found.dtype, np.float32))


def _of_pairs(table: pa.Table, names: Sequence[str]) -> ClassMatrix:
    order = pa.array(names)
    src, dst = (places(table[end], order) for end in ("src", "dst"))
    known = (src >= 0) & (dst >= 0)

    def called(label: int) -> str:
        return f"class {names[label]!r}"

    pairs = check.distinct(src[known], dst[known], numbers(table["sim"])[known], called)
    matrix, there = np.eye(len(names), dtype=np.float32), np.eye(len(names), dtype=np.bool_)
    for one, other in ((pairs.src, pairs.dst), (pairs.dst, pairs.src)):
        matrix[one, other] = pairs.sim
        there[one, other] = True
    missing = np.argwhere(~there).tolist()
    if missing:
        raise DataError(
            f"{called(missing[0][0])} with {called(missing[0][1])} is missing, as are {len(missing) // 2:,} pairs of "
            f"{len(names)} classes in all",
            "give every pair of classes, 0 where they are not alike, by the names in classes.parquet",
        )
    others = {each for end in ("src", "dst") for each in table[end].unique().to_pylist()} - set(names)
    return ClassMatrix(matrix, len(others))


def _of_columns(table: pa.Table, names: Sequence[str]) -> ClassMatrix:
    texts = [name for name in table.column_names if pa.types.is_string(table[name].type)]
    if len(texts) != 1:
        raise DataError(
            f"a table with a row a class has one column of text, its name, and this one has {len(texts)}",
            "give it so, or a row a pair: src, dst, sim",
        )
    own = table[texts[0]].to_pylist()
    _check_once([str(each) for each in own], "the table has")
    for what, found in (("row", own), ("column", table.column_names)):
        if missing := sorted(set(names) - set(found)):
            raise DataError(
                f"class {missing[0]!r} has no {what}, as {len(missing):,} of {len(names)} classes",
                "give every class, by its name in classes.parquet",
            )
    place = {name: row for row, name in enumerate(own)}
    rows = [place[name] for name in names]
    matrix = np.stack([numbers(table[name])[rows] for name in names], axis=1)
    return ClassMatrix(matrix, len(own) - len(names))


def _check_once(names: Sequence[str], where: str) -> None:
    """Raise DataError where two classes have one name."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{where} two classes {twice[0]!r}", "rename one, or give a .npy in the order of the classes")
