"""Graphs that the user gives: read, checked and written once, as training opens them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numpy.lib.format import open_memmap

from xclr import schema
from xclr.artifact import sha256_file
from xclr.captions.shared import names_of
from xclr.captions.text import normalise
from xclr.errors import DataError
from xclr.graph import check
from xclr.graph.classes import read_classes, write_similarities
from xclr.graph.columns import EDGE, Column, numbers, places, read_table
from xclr.graph.embed import RowIds, read_captions
from xclr.graph.function import loaded
from xclr.graph.matrix import read_matrix
from xclr.graph.stages import OwnGraphConfig
from xclr.recipe import NamedBy
from xclr.stage import Produced, Progress, Stage

if TYPE_CHECKING:
    from scipy.sparse import coo_array

MOST_SQUARE = 20_000  # rows of which a function may give every pair: 1.6 GB
CHUNK = 1 << 16  # vectors that are normalised together
EITHER = "give a sparse matrix [n, n] of SciPy, a square array [n, n], or an array of vectors [n, d]"


def run(stage: Stage[OwnGraphConfig], out: Path, progress: Progress) -> Produced:
    """Stage "own_graph": captions, and what the user gives -> what training opens.

    matrix: graph_class.parquet and classes.parquet; edges: edges.parquet and nodes.parquet; python: these, matrix.npy,
    float32 [n, n], or vectors.npy, float16 [n, d]. Raises DataError that names the first rows or classes concerned
    where similarities are not finite, in [-1, 1], symmetric to 1e-5 and 1 on the diagonal, where some are missing, and
    where they are of other data.
    """
    config = stage.config
    for path, sha256 in zip(config.paths, config.sha256, strict=True):
        if not path.is_file() or sha256_file(path) != sha256:
            raise DataError(f"{path} has changed since it was planned", "run the recipe again, which plans anew")
    progress(0, 1)
    produced = SOURCES[config.source](stage, out)
    progress(1, 1)
    return produced


def own_matrix(stage: Stage[OwnGraphConfig], out: Path) -> Produced:
    """Similarities of all classes, as `read_matrix` reads them; classes that the data do not have are left out."""
    names = [name for name, _ in read_classes(stage)]
    found = read_matrix(stage.config.paths[0], names)
    similarity = check.square(found.similarity, lambda label: f"class {names[label]!r}")
    produced = write_similarities(stage, similarity, out)
    return produced._replace(stats=produced.stats | {"left_out": found.others})


def own_edges(stage: Stage[OwnGraphConfig], out: Path) -> Produced:
    """Pairs of rows, src, dst and sim in Parquet, by row id or by what the data call them; each holds both ways.

    Rows that are called the same are 1 alike, those without an edge alone. Edges of what the data do not have are left
    out, but for row ids, which must be some.
    """
    by, table = stage.config.by, read_table(stage.config.paths[0], EDGE)
    names, rows = row_names(stage.inputs["captions"].path, by)
    src, dst = (rows_called(table[end], names, rows, by) for end in ("src", "dst"))
    known = (src >= 0) & (dst >= 0)
    if len(known) and not known.any():
        raise DataError(
            f"no edge is of these data: the first is between {table['src'][0]} and {table['dst'][0]}",
            f"src and dst must hold the {by} of rows, or graph.by say what they hold",
        )

    def called(row: int) -> str:
        return f"row {row}" if names is None else f"{by} {names[row].as_py()!r}"

    pairs = check.distinct(src[known], dst[known], numbers(table["sim"])[known], called)
    nodes = np.arange(rows) if names is None else rows_called(names, names, rows, by)
    nodes = np.where(nodes < 0, np.arange(rows), nodes)
    stats = {"left_out": len(known) - int(known.sum())}
    return _write_pairs(stage, pairs, nodes, out, stats)


def own_function(stage: Stage[OwnGraphConfig], out: Path) -> Produced:
    """What a function makes of all row ids, int64 [n], and captions, a list of n strings: function(rows, captions).

    It gives the similarities as a sparse matrix [n, n] of SciPy, in which a pair that stands in one direction holds in
    both and one that does not stand is 0, or as a square array [n, n], of at most 20,000 rows; or it gives an array of
    vectors [n, d], and the similarities are their cosines.
    """
    assert stage.config.function is not None
    captions = read_captions(stage.inputs["captions"].path / "captions.parquet", ("row_id", "caption"))
    n = captions.num_rows
    with loaded(stage.config.function, stage.config.paths[0]) as function:
        given = function(np.arange(n), captions["caption"].to_pylist())
    if hasattr(given, "tocoo"):
        given = given.tocoo()
        _check_shape(stage.config.function, given, n, n)
        return _write_sparse(stage, given, out)
    try:
        given = np.asarray(given)
    except (TypeError, ValueError) as error:
        raise DataError(f"{stage.config.function} gave no array: {error}", EITHER) from error
    _check_shape(stage.config.function, given, n)
    return _write_square(given, out) if given.shape[1] == n else _write_vectors(given, out)


def _check_shape(function: str, given: Any, *shape: int) -> None:  # noqa: ANN401
    """Raise DataError unless a matrix of numbers has these sizes."""
    if given.ndim != 2 or given.shape[: len(shape)] != shape or given.dtype.kind not in "biuf":
        raise DataError(
            f"{function} gave {type(given).__name__} {list(given.shape)} of {given.dtype} for {shape[0]} rows", EITHER
        )


def row_names(captions: Path, by: NamedBy) -> tuple[pa.Array[Any] | None, int]:
    """What the rows of a captions artifact are called [n], None where by their numbers, and how many there are.

    Raises DataError where they are not called anything.
    """
    table = read_captions(captions / "captions.parquet", ("row_id", "caption"))
    if by == "row":
        return None, table.num_rows
    named = table if by == "caption" else names_of(captions)
    if named is None or named[by].null_count == table.num_rows:
        raise DataError(
            f"the rows of these data have no {by}", "choose graph.by: caption or row, or set data.id_column"
        )
    return named[by].combine_chunks(), table.num_rows


def rows_called(given: Column, names: pa.Array[Any] | None, rows: int, by: NamedBy) -> RowIds:
    """The first of the rows [n] that has each given name [m], -1 where none has; raises DataError for no row id."""
    if names is None:
        return _row_ids(given, rows)
    if by == "caption":
        given = pa.array([each and normalise(str(each)) for each in given.to_pylist()], pa.string())
    return places(given, names)


def _row_ids(given: Column, rows: int) -> RowIds:
    if not pa.types.is_integer(given.type) or given.null_count:
        raise DataError(
            f"an edge's ends are {given.type} with {given.null_count} nulls, not row ids", "say what they are: graph.by"
        )
    ids = np.asarray(given.to_numpy(), dtype=np.int64)
    beyond = np.flatnonzero((ids < 0) | (ids >= rows))
    if len(beyond):
        raise DataError(
            f"edge {beyond[0]:,} has an end at row {ids[beyond[0]]:,}, and the data have rows 0 to {rows - 1:,}",
            "take the row ids of these very data, or give edges by id or caption: graph.by",
        )
    return ids


def _write_sparse(stage: Stage[OwnGraphConfig], given: coo_array, out: Path) -> Produced:
    given.sum_duplicates()
    src, dst = given.row.astype(np.int64), given.col.astype(np.int64)
    pairs = check.distinct(src, dst, given.data.astype(np.float64), lambda row: f"row {row}")
    return _write_pairs(stage, pairs, np.arange(given.shape[0]), out, {})


def _write_pairs(
    stage: Stage[OwnGraphConfig], pairs: check.Pairs, nodes: RowIds, out: Path, stats: Mapping[str, Any]
) -> Produced:
    about = {"digest": stage.digest, "config": stage.identity}
    schema.write(pa.table(pairs._asdict(), schema=schema.GRAPH_EDGES), out / "edges.parquet", schema.GRAPH_EDGES, about)
    rows = {"row_id": np.arange(len(nodes)), "node": nodes}
    schema.write(pa.table(rows, schema=schema.NODES), out / "nodes.parquet", schema.NODES, about)
    alone = int((~np.isin(nodes, np.concatenate([pairs.src, pairs.dst]))).sum())
    counts = {"rows": len(nodes), "edges": len(pairs.sim), "alone": alone}
    return Produced(("edges.parquet", "nodes.parquet"), counts | dict(stats))


def _write_square(given: npt.NDArray[Any], out: Path) -> Produced:
    if len(given) > MOST_SQUARE:
        raise DataError(f"a square of {len(given):,} rows is too large, above {MOST_SQUARE:,}", EITHER)
    given = given.astype(np.result_type(given.dtype, np.float32), copy=False)
    np.save(out / "matrix.npy", check.square(given, lambda row: f"row {row}"))
    return Produced(("matrix.npy",), {"rows": len(given)})


def _write_vectors(given: npt.NDArray[Any], out: Path) -> Produced:
    """Unit vectors in half precision, as those of captions."""
    vectors = open_memmap(out / "vectors.npy", mode="w+", dtype=np.float16, shape=given.shape)
    for start in range(0, len(given), CHUNK):
        part = given[start : start + CHUNK].astype(np.float64)
        norms = np.linalg.norm(part, axis=1, keepdims=True)
        without = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
        if len(without):
            raise DataError(
                f"the vector of row {start + without[0]:,} has no direction: it is zero or not finite",
                "mend its vector",
            )
        vectors[start : start + CHUNK] = part / norms
    vectors.flush()
    return Produced(("vectors.npy",), {"rows": len(given), "dim": given.shape[1]})


SOURCES: Mapping[str, Callable[[Stage[OwnGraphConfig], Path], Produced]] = {
    "matrix": own_matrix,
    "edges": own_edges,
    "python": own_function,
}
