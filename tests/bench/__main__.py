"""Print one JSON line a figure, then a table with the bars; one thread, medians of rounds in turn.

`python -m tests.bench [losses] [embedding] [graphs] [training] [loader] [download] [probes] [sweeps] [scale]`:
else all.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import ctypes
import sys

import torch

from tests.bench import download, embedding, graphs, loader, losses, probes, scale, sweeps, training
from tests.bench.measure import tell

ROWS = {
    "losses": losses, "embedding": embedding, "graphs": graphs, "training": training, "loader": loader,
    "download": download, "probes": probes, "sweeps": sweeps, "scale": scale,
}  # fmt: skip


def keep_memory() -> None:
    """Have glibc keep what is freed, so that neither side pays page faults that the other one's sizes cause (10%)."""
    for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        ctypes.CDLL(None).mallopt(option, 1 << 30)


def main(names: list[str]) -> None:
    keep_memory()
    torch.set_num_threads(1)
    tell(figure for name in names or ROWS for figure in ROWS[name].figures())


if __name__ == "__main__":
    main(sys.argv[1:])
