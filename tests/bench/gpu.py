"""What one GPU makes of trainings, losses, graphs and embeddings, beside plain ways to do the same.

`python -m tests.bench.gpu [SECTION ...] [--device cpu]`: the sections of infra.doctor.ratios, all without names.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator

import torch

from infra.doctor.ratios import SECTIONS
from tests.bench.measure import Figure, tell


def figures(device: torch.device, names: list[str]) -> Iterator[Figure]:
    """Of the sections, as they come."""
    for name in names or SECTIONS:
        for each in SECTIONS[name](device):
            yield Figure(each.name, each.ours, each.peer, each.bar, each.unit)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    if unknown := set(given.names) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}: there are {', '.join(SECTIONS)}")
    device = torch.device(given.device)
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
    print(f"{card}, torch {torch.__version__}", flush=True)
    tell(figures(device, given.names))


if __name__ == "__main__":
    main()
