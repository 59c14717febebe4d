"""The similarity graph a person looks at: the nearest neighbours of every distinct caption, as Parquet.

The nodes are cut into parts. A shard of the work compares two of them, or one with itself, and leaves the best
neighbours that each side has on the other; merged over all parts these are the graph's, whatever the order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from xclr import schema, shards
from xclr.errors import DataError
from xclr.graph.embed import RowIds, distinct, part_of, read_captions
from xclr.graph.knn import Joined, TopK, best_of, cross_join, merge_topk, self_join
from xclr.graph.stages import GraphKnnConfig
from xclr.stage import Produced, Progress, Stage

SAMPLE = 100_000  # pairs behind mean_similarity
NEAR_DUPLICATE = 0.95
SIDES = ("first", "second")  # of a pair of parts
Halves = npt.NDArray[np.float16]


class _Nodes(NamedTuple):
    """The distinct captions: their row ids, and where all captions' vectors are."""

    rows: RowIds
    stored: Halves  # [n, d], memory-mapped

    def vectors(self, *parts: slice) -> Tensor:
        """The vectors of some nodes, on the GPU where there is one."""
        rows = np.concatenate([self.rows[part] for part in parts])
        return torch.from_numpy(self.stored[rows]).to("cuda" if torch.cuda.is_available() else "cpu")


def run(stage: Stage[GraphKnnConfig], out: Path, progress: Progress) -> Produced:
    """Stage "graph": captions and embeddings -> graph_knn.parquet, whose ids are the row_id of distinct captions.

    Shards that are there already are not compared again. Raises DataError when k is not below the number of distinct
    captions.
    """
    config = stage.config
    nodes = _nodes(stage, config)
    if config.method == "approximate":
        from xclr.graph.approximate import approximate_join  # brings faiss

        joined, measured = approximate_join(nodes.stored, nodes.rows, config, progress)
        made = iter([(slice(0, len(nodes.rows)), joined)])
    else:
        _compare_missing(out, nodes, config, progress)
        made, measured = _merged(out, nodes, config), {}
    about = {"digest": stage.digest, "config": stage.identity, "measured": measured}
    stats = _write(out / "graph_knn.parquet", nodes, config, made, about)
    return Produced(("graph_knn.parquet",), {"method": config.method, **stats, **measured}, (shards.SHARDS,))


def run_shard(stage: Stage[GraphKnnConfig], out: Path, shard: int, progress: Progress) -> None:
    """Compare one pair of parts, for `run` to find."""
    config = stage.config
    _compare(out, shard, _nodes(stage, config), config, progress)


def _nodes(stage: Stage[GraphKnnConfig], config: GraphKnnConfig) -> _Nodes:
    columns = ("row_id", "dup_of")
    rows = distinct(read_captions(stage.inputs["captions"].path / "captions.parquet", columns))
    if config.k >= len(rows):
        raise DataError(
            f"graph.k {config.k} needs more than {len(rows)} distinct captions",
            f"--set graph.k={len(rows) - 1}" if len(rows) > 1 else "give at least two different captions",
        )
    return _Nodes(rows, np.load(stage.inputs["embeddings"].path / "vectors.npy", mmap_mode="r"))


def _compare_missing(out: Path, nodes: _Nodes, config: GraphKnnConfig, progress: Progress) -> None:
    """Make every shard that is not there."""
    n = len(nodes.rows)
    places = shards.parts(n, config.part)
    work = [_size(places[own], places[other]) for own, other in shards.pairs(len(places))]
    missing = shards.missing(out, len(work))
    done, total = sum(work) - sum(work[shard] for shard in missing), sum(work)
    for shard in missing:
        _compare(out, shard, nodes, config, part_of(progress, done, total))
        done += work[shard]
    progress(total, total)


def _size(own: slice, other: slice) -> int:
    """How many pairs of nodes two parts have."""
    rows, others = own.stop - own.start, other.stop - other.start
    return int(rows * (rows - 1) // 2 if own == other else rows * others)


def _compare(out: Path, shard: int, nodes: _Nodes, config: GraphKnnConfig, progress: Progress) -> None:
    places = shards.parts(len(nodes.rows), config.part)
    own, other = (places[part] for part in shards.pairs(len(places))[shard])
    size = _size(own, other)

    def tiles(done: int, total: int) -> None:
        progress(size * done // total, size)

    rows = own.stop - own.start
    if own == other:
        sides = [_within(nodes.vectors(own), config, tiles)]
    else:
        both = nodes.vectors(own, other)
        sides = list(cross_join(both, rows, config.k, block=config.block, cutoff=config.cutoff, progress=tiles))
    with shards.writing(shards.Shard(out, shard, size)) as folder:
        for name, side in zip(SIDES, sides, strict=False):
            _pack(folder / f"{name}.npz", side)


def _within(vectors: Tensor, config: GraphKnnConfig, progress: Any) -> Joined:  # noqa: ANN401
    """The neighbours of a part within itself, padded to k."""
    n, k = len(vectors), min(config.k, len(vectors) - 1)
    if k < 1:
        none = torch.empty(n, config.k)
        return Joined(TopK(none.long().fill_(-1), none.fill_(torch.nan)), torch.zeros(n, dtype=torch.int32))
    found, count = self_join(vectors, k, block=config.block, cutoff=config.cutoff, progress=progress)
    pads = (0, config.k - k)
    pad = torch.nn.functional.pad
    return Joined(TopK(pad(found.ids, pads, value=-1), pad(found.sims, pads, value=torch.nan)), count)


def _pack(path: Path, side: Joined) -> None:
    """Store neighbours without their pads, row after row."""
    ids, sims = (each.cpu().numpy() for each in side.neighbours)
    there = ids >= 0
    kept = there.sum(1).astype(np.int32)
    np.savez(path, kept=kept, ids=ids[there].astype(np.int32), sims=sims[there], counts=side.counts.cpu().numpy())


def _unpacked(path: Path, k: int, offset: int) -> Joined:
    """The inverse; ids become positions among all nodes."""
    with np.load(path) as stored:
        kept = stored["kept"]
        there = np.arange(k) < kept[:, None]
        ids, sims = np.full(there.shape, -1, np.int64), np.full(there.shape, np.nan, np.float32)
        ids[there] = stored["ids"].astype(np.int64) + offset
        sims[there] = stored["sims"]
        return Joined(TopK(torch.from_numpy(ids), torch.from_numpy(sims)), torch.from_numpy(stored["counts"]))


def _merged(out: Path, nodes: _Nodes, config: GraphKnnConfig) -> Iterator[tuple[slice, Joined]]:
    """The neighbours of each part among all nodes."""
    places = shards.parts(len(nodes.rows), config.part)
    pairs = shards.pairs(len(places))
    for part, at in enumerate(places):
        whole: Joined | None = None
        for shard, pair in enumerate(pairs):
            if part in pair:
                other = pair[1] if pair[0] == part else pair[0]
                side = SIDES[0] if pair[0] == part else SIDES[1]
                found = _unpacked(shards.folder(out, shard) / f"{side}.npz", config.k, places[other].start)
                whole = found if whole is None else _merge(whole, found)
        assert whole is not None
        yield at, whole


def _merge(a: Joined, b: Joined) -> Joined:
    return Joined(merge_topk(a.neighbours, b.neighbours), a.counts + b.counts)


def _write(
    path: Path, nodes: _Nodes, config: GraphKnnConfig, made: Iterator[tuple[slice, Joined]], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the graph part by part; returns numbers worth showing of it."""
    counts, nearest, near = [], [], []
    with schema.writing(path, schema.graph_knn(config.k), about) as part:
        for at, joined in made:
            found = cosines(joined.neighbours)
            part(table(nodes.rows, at, found, joined.counts))
            counts.append(joined.counts.cpu())
            nearest.append(found.sims[:, 0].cpu())
            near.append(near_duplicates(found, at.start))
    count, top1 = torch.cat(counts), torch.cat(nearest)
    return {
        "nodes": len(count),
        "edges": int(count.sum(dtype=torch.int64)) // 2,
        "mean_similarity": mean_similarity(nodes.stored, nodes.rows, seed=0),
        "median_top1": 0.0 if top1.isnan().all() else float(top1.nanmedian()),  # of those that have a neighbour
        "isolated": float(top1.isnan().float().mean()),
        "near_duplicates": len(np.unique(np.concatenate(near), axis=0)),
    }


def cosines(found: TopK) -> TopK:
    """Similarities clamped to [-1, 1], which half precision may leave by 1e-4, and ties ordered again."""
    return best_of(found.ids, found.sims.clamp(-1, 1), found.ids.shape[1])


def table(nodes: RowIds, at: slice, found: TopK, count: Tensor) -> pa.Table:
    """The graph_knn table of some nodes: positions among all nodes become their row_id; -1 stays."""
    k = found.ids.shape[1]
    ids = found.ids.cpu().numpy()
    dst = np.where(ids < 0, -1, nodes[ids]).astype(np.int64)
    columns = {
        "src": pa.array(nodes[at]),
        "dst": pa.FixedSizeListArray.from_arrays(pa.array(dst.reshape(-1)), k),
        "sim": pa.FixedSizeListArray.from_arrays(pa.array(found.sims.cpu().numpy().reshape(-1)), k),
        "count": pa.array(count.cpu().numpy()),
    }
    return pa.table(columns, schema=schema.graph_knn(k))


def mean_similarity(stored: Halves, rows: RowIds, seed: int) -> float:
    """Mean inner product of 100,000 random pairs of different rows of stored[rows]."""
    n = len(rows)
    rng = np.random.default_rng(seed)
    left = rng.integers(n, size=SAMPLE)
    right = (left + rng.integers(1, n, size=SAMPLE)) % n
    total = 0.0
    for start in range(0, SAMPLE, 10_000):
        at = slice(start, start + 10_000)
        a, b = (stored[rows[side[at]]].astype(np.float64) for side in (left, right))
        total += float((a * b).sum())
    return total / SAMPLE


def near_duplicates(found: TopK, first: int = 0) -> npt.NDArray[np.int64]:
    """Pairs [m, 2] of neighbours with similarity above 0.95, the smaller first; the rows start at `first`."""
    src, place = (found.sims > NEAR_DUPLICATE).nonzero(as_tuple=True)
    pairs = torch.stack([src + first, found.ids[src, place]], 1).sort(dim=1).values
    return np.unique(pairs.cpu().numpy(), axis=0)
