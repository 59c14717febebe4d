"""The loss: time against the plain form and the matrix products alone, and peak memory in a fresh process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.bench.measure import Figure, compare
from xclr.objective import default_block, xclr_loss, xclr_loss_from_embeddings


def unit(rows: int, width: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def inputs(views: int) -> tuple[Tensor, Tensor]:
    return unit(views, 128, 0).requires_grad_(), unit(views, 384, 1)


def blockwise(z: Tensor, e: Tensor) -> None:
    xclr_loss_from_embeddings(z, e).backward()


def plain(z: Tensor, e: Tensor) -> None:
    xclr_loss(z, e @ e.T).backward()


def products(z: Tensor, e: Tensor) -> None:
    """The products that any exact form needs, block by block: both Gram matrices and two for the gradient."""
    z, block, gradient = z.detach(), default_block(len(z), z.device), torch.zeros_like(z)
    logits, targets = torch.empty(2, block, len(z))
    for start in range(0, len(z), block):
        rows = slice(start, start + block)
        torch.mm(z[rows], z.T, out=logits)
        torch.mm(e[rows], e.T, out=targets)
        gradient[rows].addmm_(logits, z)
        gradient.addmm_(logits.T, z[rows])


FORMS: dict[str, Callable[[Tensor, Tensor], None]] = {"blockwise": blockwise, "plain": plain}


def peak_mb(form: str, views: int) -> float:
    """What the loss and its gradient add to the peak of a fresh process."""
    command = [sys.executable, "-m", "tests.bench.losses", form, str(views)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory_kb(name: str) -> int:
    (line,) = (each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(name))
    return int(line.split()[1])


def figures() -> Iterator[Figure]:
    for views, time_bar, memory_bar in ((4096, 0.50, 0.08), (8192, 0.45, 0.05)):
        z, e = inputs(views)
        of = f"{views} views"
        ours, theirs, floor = (partial(form, z, e) for form in (blockwise, plain, products))
        yield compare(f"loss, block-wise / plain, {of}", ours, theirs, time_bar)
        yield compare(f"loss, block-wise / its matrix products, {of}", ours, floor, 1.35)
        peaks = peak_mb("blockwise", views), peak_mb("plain", views)
        yield Figure(f"loss, block-wise / plain, {of}", *peaks, memory_bar, "peak MB")


def main() -> None:
    form, views = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    FORMS[form](*inputs(64))  # code and buffers that every process has
    z, e = inputs(views)
    z.grad = torch.zeros_like(z)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew; getrusage's is inherited from the parent
    before = memory_kb("VmRSS")
    FORMS[form](z, e)
    print((memory_kb("VmHWM") - before) / 1024)


if __name__ == "__main__":
    main()
