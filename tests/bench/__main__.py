"""Print one JSON line a figure, then a table with the bars; one thread, medians of rounds in turn.

`python -m tests.bench [losses] [embedding] [graphs] [training] [loader] [download] [probes]`: all without names.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import ctypes
import sys

import torch
from rich.console import Console
from rich.table import Table

from tests.bench import download, embedding, graphs, loader, losses, probes, training

ROWS = {
    "losses": losses, "embedding": embedding, "graphs": graphs, "training": training, "loader": loader,
    "download": download, "probes": probes,
}  # fmt: skip


def keep_memory() -> None:
    """Have glibc keep what is freed, so that neither side pays page faults that the other one's sizes cause (10%)."""
    for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        ctypes.CDLL(None).mallopt(option, 1 << 30)


def main(names: list[str]) -> None:
    keep_memory()
    torch.set_num_threads(1)
    table = Table("figure", "unit", "ours", "peer", "ratio", "bar", "")
    for name in names or ROWS:
        for figure in ROWS[name].figures():
            print(figure.to_json(), flush=True)
            met = "met" if figure.ratio <= figure.bar else "not met"
            cells = (
                figure.unit,
                f"{figure.ours:.3f}",
                f"{figure.peer:.3f}",
                f"{figure.ratio:.3f}",
                f"<= {figure.bar:g}",
                met,
            )
            table.add_row(figure.name, *cells)
    Console(stderr=True, width=130).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
