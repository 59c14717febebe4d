"""Where a process stands among the ranks of a training, and what the ranks agree on."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from xclr.errors import JobError
from xclr.objective import world_and_rank

ROLL_CALL_S = 5
AGREED_EVERY = 2  # steps
LATE = "Timed out waiting"  # gloo, of an exchange within a step


@dataclass(frozen=True)
class Rank:
    """One rank of a training."""

    rank: int
    world: int
    device: torch.device

    @classmethod
    def here(cls) -> Rank:
        """This process; its device is the GPU of LOCAL_RANK, where there is one."""
        world, rank = world_and_rank()
        if torch.cuda.is_available():
            local = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
            return cls(rank, world, torch.device("cuda", local))
        return cls(rank, world, torch.device("cpu"))


def moved(values: Tensor, device: torch.device) -> Tensor:
    """The same on a device; what is on the CPU is not waited for, nor does it wait for what the device still does."""
    waits = device.type == "cuda" and values.device.type == "cpu"
    return (values.pin_memory() if waits else values).to(device, non_blocking=True)


class Road:
    """A way to a device for what is large: on a GPU beside its work, so that the step before hides it."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, values: Tensor) -> Tensor:
        """As `moved`."""
        if self.stream is None:
            return moved(values, self.device)
        with torch.cuda.stream(self.stream):
            there = moved(values, self.device)
        working = torch.cuda.current_stream(self.device)
        working.wait_stream(self.stream)
        there.record_stream(working)  # so that its memory is not given away before the work that reads it is done
        return there


class Boundary:
    """Where all ranks meet between two steps: they stop together, and one that does not come is named.

    Its messages go by gloo through the CPUs, so that a rank can wait for the others without waiting for its GPU.
    """

    def __init__(self, place: Rank, stuck_after_s: float) -> None:
        self.place, self.stuck_after_s = place, stuck_after_s
        if place.world > 1:
            self.talk, self.roll = self._group(), self._group()

    def agree(self, stop: bool, step: int) -> bool:
        """True when any rank wants to stop; ranks ask each other every AGREED_EVERY steps.

        Raises JobError when a rank does not come in time.
        """
        if self.place.world == 1:
            return stop
        if step % AGREED_EVERY:
            return False
        flag = torch.tensor([float(stop)])
        try:
            dist.all_reduce(flag, group=self.talk)
        except RuntimeError as error:
            raise self.late(step + 1) from error
        return bool(flag > 0)

    def late(self, step: int) -> JobError:
        """What to say when a rank does not come to a step, numbered from 1: which one, if those that came can tell."""
        return JobError(
            f"{self._missing()} did not come to step {step} within {self.stuck_after_s:g} s",
            "see the end of its log and its node; run the recipe again to go on from the last checkpoint",
        )

    def _group(self) -> dist.ProcessGroup:
        group = dist.new_group(backend="gloo", timeout=timedelta(seconds=self.stuck_after_s))
        assert isinstance(group, dist.ProcessGroup)  # this process is in it
        return group

    def _missing(self) -> str:
        """Call the roll, which only ranks that came answer; rank 0 hears who is missing."""
        try:
            dist.monitored_barrier(self.roll, timedelta(seconds=ROLL_CALL_S), wait_all_ranks=self.place.rank == 0)
        except RuntimeError as error:
            named = re.search(r"[Rr]anks? ((?:\d+(?:, )?)+) failed to pass", str(error))
            if named and self.place.rank == 0:
                return f"rank {named.group(1)}"
        return "a rank (rank 0's log names it)" if self.place.rank else "a rank"
