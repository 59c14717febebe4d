"""What a training says of itself on logged steps."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from xclr.training.ranks import Rank

WORKERS, RANK = ("read", "decode", "cut"), ("copy", "compute")  # who does what of a batch of photographs


class Meter:
    """Times and losses since the last reading; numbers that ranks differ in are averaged over them on reading.

    `spent` is where the loader counts the seconds that each part of its work takes those who do it.
    """

    def __init__(self, batch_size: int, place: Rank, spent: dict[str, float]) -> None:
        self.batch_size, self.place, self.spent = batch_size, place, spent
        self.steps, self.since, self.waited_s = 0, time.perf_counter(), 0.0
        self.losses, self.counted = torch.zeros((), device=place.device), 0

    def wait(self, seconds: float) -> None:
        """Count time that was spent waiting for data."""
        self.waited_s += seconds

    def add(self, loss: Tensor) -> None:
        """Count a step."""
        self.steps += 1
        self.counted += 1
        self.losses += loss

    def read(self, report: Mapping[str, Tensor]) -> dict[str, float]:
        """The step's report as means over ranks, and speed and waiting since the last reading; all ranks call it."""
        now = time.perf_counter()
        elapsed = max(now - self.since, 1e-9)
        named = dict(zip(report, averaged(torch.stack([each.float() for each in report.values()])), strict=True))
        speed = {"images_per_s": self.steps * self.batch_size / elapsed, "data_wait": self.waited_s / elapsed}
        if self.spent:
            speed |= {name: seconds / elapsed for name, seconds in self.spent.items()}
            speed["compute"] = 1 - speed["data_wait"]
        self.steps, self.since, self.waited_s = 0, now, 0.0
        self.spent.clear()
        found = named | speed | memory(self.place.device) | utilisation(self.place.device)
        return {f"train/{name}": value for name, value in found.items()}

    def mean_loss(self) -> float:
        """Mean loss over steps and ranks since the last call; all ranks call it."""
        (mean,) = averaged((self.losses / max(self.counted, 1))[None])
        self.losses, self.counted = torch.zeros_like(self.losses), 0
        return mean


def narrow_place(metrics: Mapping[str, float]) -> str | None:
    """What a training on photographs waits for: of those who are busier, workers or rank, what takes them longest."""
    shares = {name: metrics.get(f"train/{name}") for name in (*WORKERS, *RANK)}
    known = {name: share for name, share in shares.items() if share is not None}
    if len(known) < len(shares):
        return None
    busier = max((WORKERS, RANK), key=lambda some: sum(known[name] for name in some))
    return max(busier, key=known.__getitem__)


def averaged(values: Tensor) -> list[float]:
    """Means over ranks."""
    if dist.is_initialized():
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return [float(each) for each in values.tolist()]


def memory(device: torch.device) -> dict[str, float]:
    """The most memory that this rank has held, GB: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return {"memory_gb": torch.cuda.max_memory_allocated(device) / 1e9}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"memory_gb": most / 1e9}


def utilisation(device: torch.device) -> dict[str, float]:
    """How busy this rank's GPU is, 0 to 1, as NVML says it; nothing without a GPU."""
    if device.type != "cuda":
        return {}
    return {"gpu_utilisation": torch.cuda.utilization(device) / 100}
