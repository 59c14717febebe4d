"""Random numbers that depend on (seed, epoch, row, view) alone: rank and worker counts change no picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keyed_uniform(key: tuple[int, ...], rows: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1): float32 [b, count], a pure function of (key, row, column).

    splitmix64 over the mixed key (Steele, Lea and Flood, 2014).
    """
    with np.errstate(over="ignore"):
        state = np.zeros(1, dtype=np.uint64)
        for part in key:
            state = _mix(state + np.uint64(part % 2**64) * GOLDEN)
        per_row = _mix(state + rows.numpy().astype(np.uint64) * GOLDEN)
        columns = np.arange(1, count + 1, dtype=np.uint64) * GOLDEN
        bits = _mix(per_row[:, None] + columns[None, :])
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) / np.float32(2**24))


def epoch_order(seed: int, epoch: int, n: int) -> Tensor:
    """The order of n samples in an epoch: a permutation, LongTensor [n], a pure function of (seed, epoch, n)."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n))


def windowed_order(seed: int, epoch: int, shards: npt.NDArray[np.int64], window: int) -> npt.NDArray[np.int64]:
    """An order of samples in an epoch that reads from `window` shards at a time: int64 [n].

    The shards come in a random order; the samples of each `window` of them are shuffled together. shards: [n], where
    each sample lies. A pure function of its arguments.
    """
    rng = np.random.default_rng([seed, epoch])
    ids, starts = np.unique(np.sort(shards), return_index=True)
    by_shard = np.split(np.argsort(shards, kind="stable"), starts[1:])
    turn = rng.permutation(len(ids))
    windows = (turn[start : start + window] for start in range(0, len(turn), window))
    return np.concatenate([rng.permutation(np.concatenate([by_shard[each] for each in some])) for some in windows])


def _mix(bits: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
