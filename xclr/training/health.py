"""Whether a rank's device can be trusted: seconds before a training's first step, so that a night is not lost to it.

Memory keeps what is written to it, a product has its known value, and an all-reduce sums over all ranks. What fails is
a fault of the node and not of the training.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from xclr.environment import node_name
from xclr.errors import NodeError
from xclr.training.ranks import Rank

SHARE = 0.25  # of the memory that is free on a GPU
BLOCK = 1 << 26  # bytes that are written at once
PATTERNS = (0x55, 0xAA)
SIZE, TIMES = 512, 4  # of the matrices, whose entries are -1, 0 and 1, so that float32 holds every sum
REDUCED = 1 << 20  # numbers


def check_device(place: Rank) -> None:
    """Raise NodeError where a rank's device, or the way to the other ranks, is not in order; every rank calls it."""
    try:
        faults = [
            fault for fault in (memory_fault(place.device), product_fault(place.device), sum_fault(place)) if fault
        ]
    except RuntimeError as error:  # as CUDA and NCCL say it
        faults = [str(error).partition("\n")[0]]
    if faults:
        raise NodeError(
            f"{place.device} of rank {place.rank} on {node_name()} is not in order: {'; '.join(faults)}",
            "have the node looked at (nvidia-smi -q, dmesg); xclr retry trains elsewhere",
        )


def memory_fault(device: torch.device) -> str:
    """What is wrong with the device's memory: every pattern is read as it was written, in a share of what is free."""
    for pattern in PATTERNS:
        blocks = [torch.full((BLOCK,), pattern, dtype=torch.uint8, device=device) for _ in range(_blocks(device))]
        wrong = sum(int((block != pattern).sum()) for block in blocks)
        if wrong:
            return f"{wrong} of {len(blocks) * BLOCK} bytes of memory were read otherwise than written"
    return ""


def product_fault(device: torch.device) -> str:
    """What is wrong with its products: each entry is the one that the CPU finds in whole numbers."""
    left, right = _matrix(0), _matrix(1)
    known = (left.long() @ right.long()).to(torch.float32)
    for found in _products(left.to(device), right.to(device)):
        if wrong := int((found.cpu() != known).sum()):
            return f"{wrong} of {known.numel()} entries of a product are wrong"
    return ""


def sum_fault(place: Rank) -> str:
    """What is wrong with sums over all ranks."""
    if place.world == 1:
        return ""
    ranks = torch.full((REDUCED,), float(place.rank + 1), device=place.device)
    dist.all_reduce(ranks)
    wrong = int((ranks != place.world * (place.world + 1) / 2).sum())
    return f"{wrong} of {REDUCED} sums over {place.world} ranks are wrong" if wrong else ""


def _blocks(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, int(SHARE * free) // BLOCK)


def _matrix(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, (SIZE, SIZE), generator=generator, dtype=torch.float32)


def _products(left: Tensor, right: Tensor) -> Iterator[Tensor]:
    for _ in range(TIMES):
        yield left @ right
