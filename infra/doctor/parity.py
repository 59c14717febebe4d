"""Do gathered candidates have the single process's values and gradient here?

`python -m infra.doctor.parity WORLD DEVICE` says so.

DEVICE is cpu (gloo) or cuda (nccl, one GPU a process). Prints Parity as JSON.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from xclr.objective import gather_rows

ROWS, WIDTH = 8, 16  # of each process
WITHIN_S = 45


class Parity(BaseModel):
    """Largest differences to one process that holds all rows: of gathered values, and of the gradient."""

    model_config = ConfigDict(frozen=True)
    world: int
    device: str
    values: float
    gradient: float

    @property
    def holds(self) -> bool:
        """True when gathering copies exactly, and the gradient is the same but for rounding."""
        return self.values == 0 and self.gradient < 1e-5


class Site(NamedTuple):
    """Where the processes meet and leave their tensors."""

    folder: str
    world: int
    device: str


def compare(world: int, device: str) -> Parity:
    """Run the check on `world` processes of this machine; raises RuntimeError for a device that there is not."""
    torch.device(device)
    with tempfile.TemporaryDirectory() as folder:
        place = Site(folder, world, device)
        mp.start_processes(_on_rank, (place,), nprocs=world, start_method="spawn")  # type: ignore[attr-defined, no-untyped-call]
        ranks = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(world)]
    return parity(ranks, device)


def parity(ranks: list[Mapping[str, Tensor]], device: str) -> Parity:
    """Compare what each rank gathered and its gradient with one process that holds all rows."""
    rows = inputs(len(ranks)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(rows, rows), rows)
    values = max(float((each["gathered"] - rows.detach()).abs().max()) for each in ranks)
    theirs = torch.cat([each["gradient"] for each in ranks]) / len(ranks)  # the mean over processes, as DDP takes it
    difference = float((theirs - gradient).abs().max())
    return Parity(world=len(ranks), device=device, values=values, gradient=difference)


def inputs(world: int) -> Tensor:
    """The rows of all processes."""
    return torch.randn(world * ROWS, WIDTH, generator=torch.Generator().manual_seed(0))


def loss(anchors: Tensor, candidates: Tensor) -> Tensor:
    """A mean over anchors to which every candidate matters."""
    return torch.logsumexp(anchors @ candidates.T / WIDTH, 1).mean()


def _on_rank(rank: int, place: Site) -> None:
    on_gpu = place.device == "cuda"
    device = torch.device(place.device, rank) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        f"file://{place.folder}/meeting",
        rank=rank,
        world_size=place.world,
        timeout=timedelta(seconds=WITHIN_S),
    )
    own = inputs(place.world)[rank * ROWS : (rank + 1) * ROWS].to(device).requires_grad_()
    gathered = gather_rows(own)
    (gradient,) = torch.autograd.grad(loss(own, gathered), own)
    torch.save({"gathered": gathered.detach().cpu(), "gradient": gradient.cpu()}, f"{place.folder}/{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    print(compare(int(sys.argv[1]), sys.argv[2]).model_dump_json())
