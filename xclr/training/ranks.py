"""Where a process stands: its rank among how many, and the device it computes on."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from xclr.objective import world_and_rank


@dataclass(frozen=True)
class Place:
    """One rank of a training."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def here(cls) -> Place:
        """This process: its GPU is that of LOCAL_RANK, where there is one."""
        world, rank = world_and_rank()
        return cls(rank, world, here())


def here() -> torch.device:
    """The device of this process: its own GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")
