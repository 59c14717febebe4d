"""Orders of an epoch in which pictures come together whose captions are neighbours in the kNN graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from xclr.errors import DataError
from xclr.graph import KnnGraph
from xclr.recipe import TrainConfig
from xclr.training.captions import CaptionsOf

Integers = npt.NDArray[np.int64]
Near = npt.NDArray[np.int32]  # of each of m nodes its neighbours, the nearest first; m pads, and has none: [m + 1, k]


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """The orders of a training, of whose pictures config.neighbourhoods come by neighbourhoods of the graph.

    A node of the graph is a caption; in an epoch a picture is where the caption is that the epoch shows.
    """

    near: Near
    node: Integers  # by row_id
    rows: Integers  # of the pictures [n]
    captions: CaptionsOf | None  # where pictures have several
    config: TrainConfig
    seed: int
    kept: dict[int, Integers] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        captions: Path,
        graph: Path | None,
        rows: Integers,
        several: CaptionsOf | None,
        config: TrainConfig,
        seed: int,
    ) -> Neighbourhoods | None:
        """Of pictures by their rows [n], from artifacts of captions and graph; None where no share is asked for.

        Raises DataError where there is no graph, or one of other captions.
        """
        if not config.neighbourhoods:
            return None
        if graph is None:
            raise DataError("train.neighbourhoods needs the graph", "give its artifact, or set train.neighbourhoods=0")
        stored = KnnGraph.open(graph / "graph_knn.parquet", captions / "captions.parquet")
        nodes, ids = stored.src.numpy(), stored.neighbours.ids.numpy()
        near = np.where(ids < 0, len(nodes), np.searchsorted(nodes, ids)).astype(np.int32)
        near = np.pad(near, ((0, 1), (0, 0)), constant_values=len(nodes))
        return cls(near, np.searchsorted(nodes, stored.firsts.numpy()), rows, several, config, seed)

    def order(self, epoch: int) -> Integers:
        """The order of the pictures in an epoch, a permutation [n]; that of one epoch is kept."""
        if epoch not in self.kept:
            order = near_order(self.seed, epoch, self.node[self._shown(epoch)], self.near, self.config)
            self.kept.clear()
            self.kept[epoch] = order
        return self.kept[epoch]

    def _shown(self, epoch: int) -> Integers:
        if self.captions is None:
            return self.rows
        return self.captions.drawn(self.seed, epoch, np.arange(len(self.rows))).numpy()


def near_order(seed: int, epoch: int, nodes: Integers, near: Near, config: TrainConfig) -> Integers:
    """An order of the pictures at nodes [n] in an epoch: a permutation [n], a pure function of its arguments.

    Groups of config.neighbourhood_size are put together by `grouped` until they have the share of config. Both they and
    the others come in a random order, and any stretch of the whole holds the share of the former.
    """
    rng = np.random.default_rng([seed, epoch])
    turn = rng.permutation(len(nodes))
    some, sizes = grouped(turn, nodes, near, round(config.neighbourhoods * len(nodes)), config.neighbourhood_size)
    dealt = rng.permutation(len(sizes))
    together = some[_stretches((np.cumsum(sizes) - sizes)[dealt], sizes[dealt])]
    alone = np.ones(len(nodes), dtype=bool)
    alone[some] = False
    return _spread(together, turn[alone[turn]])


def grouped(turn: Integers, nodes: Integers, near: Near, count: int, size: int) -> tuple[Integers, Integers]:
    """Some `count` of the pictures at nodes [n], group by group, and the sizes of the groups.

    In the order `turn` [n], a picture that no group has takes others into one: those of its own node, then those of its
    neighbours, nearest first, then those of theirs, until there are `size` or no more are left there. Each picture's
    neighbours are looked at once, O(n k) in all.
    """
    free = _Free(turn, nodes, len(near))
    sizes, left = list[int](), count
    for node in nodes[turn].tolist():
        if left == 0:
            break
        if free.left[node]:
            sizes.append(free.group(node, near, min(size, left)))
            left -= sizes[-1]
    return free.taken(), np.array(sizes, dtype=np.int64)


class _Free:
    """The pictures that no group has taken so far, by node, and those that one has."""

    def __init__(self, turn: Integers, nodes: Integers, number: int) -> None:
        self.by_node = turn[np.argsort(nodes[turn], kind="stable")]
        self.left = np.bincount(nodes, minlength=number)  # of each node
        self.next = np.cumsum(self.left) - self.left  # of each node, its first in by_node
        self.starts, self.counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]  # stretches of by_node

    def group(self, node: int, near: Near, size: int) -> int:
        """Take a group from a node on; how many there are."""
        front, room = np.array([node]), size
        while room and len(front):
            front, counts = self._take(front, room)
            room -= int(counts.sum())
            found = near[front].T.ravel()  # the nearest of all first
            found = found[self.left[found] > 0]
            front = found[np.sort(np.unique(found, return_index=True)[1])]
        return size - room

    def taken(self) -> Integers:
        """All that groups have taken, in the order in which they did."""
        return self.by_node[_stretches(np.concatenate(self.starts), np.concatenate(self.counts))]

    def _take(self, nodes: npt.NDArray[np.integer], room: int) -> tuple[npt.NDArray[np.integer], Integers]:
        """Take at most `room` pictures of nodes in their order; the nodes that gave some, and how many each."""
        total = np.cumsum(self.left[nodes])
        nodes = nodes[: np.searchsorted(total, room) + 1]
        counts = self.left[nodes]
        counts[-1] -= max(0, int(total[len(nodes) - 1]) - room)
        self.starts.append(self.next[nodes])
        self.counts.append(counts)
        self.next[nodes] += counts
        self.left[nodes] -= counts
        return nodes, counts


def _stretches(starts: Integers, counts: Integers) -> Integers:
    """The numbers start, ..., start + count - 1 of each, one after the other."""
    ends = np.cumsum(counts)
    return np.arange(counts.sum()) + np.repeat(starts - ends + counts, counts)


def _spread(first: Integers, second: Integers) -> Integers:
    """Both, each in its order and evenly over the whole."""
    places = [(np.arange(len(each)) + 0.5) / max(len(each), 1) for each in (first, second)]
    return np.concatenate([first, second])[np.argsort(np.concatenate(places), kind="stable")]
