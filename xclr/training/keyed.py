"""Random numbers that depend on (seed, epoch, row, view) alone: rank and worker counts change no picture."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15


def keyed_uniform(key: tuple[int, ...], rows: Tensor, count: int) -> Tensor:
    """Uniform numbers in [0, 1): float32 [b, count], a pure function of (key, row, column), on the rows' device.

    splitmix64 over the mixed key (Steele, Lea and Flood, 2014); int64 wraps around as unsigned numbers do.
    """
    state = torch.zeros((), dtype=torch.int64)
    for part in key:
        state = _mix(state + _wrapped(part * GOLDEN))
    per_row = _mix(rows.long() * _wrapped(GOLDEN) + int(state))
    columns = torch.arange(1, count + 1, device=rows.device) * _wrapped(GOLDEN)
    bits = _mix(per_row[:, None] + columns)
    return _shifted(bits, 40).float().div_(2**24)


@lru_cache(maxsize=2)
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


def _mix(bits: Tensor) -> Tensor:
    bits = _shifted(bits, 30).bitwise_xor_(bits).mul_(_wrapped(0xBF58476D1CE4E5B9))
    bits = _shifted(bits, 27).bitwise_xor_(bits).mul_(_wrapped(0x94D049BB133111EB))
    return _shifted(bits, 31).bitwise_xor_(bits)


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Shifted to the right as unsigned numbers are."""
    return (bits >> by).bitwise_and_(2 ** (64 - by) - 1)


def _wrapped(number: int) -> int:
    """The signed number of 64 bits that has a number's lowest."""
    return (number + 2**63) % 2**64 - 2**63
