"""What keeps a bad gradient from the weights: decided on the device, where a step waits for nothing, and told later."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from xclr.errors import JobError
from xclr.training.checkpoint import Checkpoint

EXPLODED, SETTLED = 1e4, 20  # gradient norm over its running mean; steps after which that mean means something


class Guard:
    """Refuses the first gradient that is not finite or explodes, and every one after it, until somebody reads that.

    Its numbers lie on the device and are the same on all ranks, as the norms are that it is given.
    """

    def __init__(self, device: torch.device, *, scaled: bool) -> None:
        """`scaled`: losses are scaled, so that a norm may overflow once in a while, which a smaller scale mends."""
        self.scaled = scaled
        self.usual = torch.zeros((), device=device)  # running mean of the norm
        self.seen = torch.zeros((), device=device)
        self.wrong = torch.tensor([0.0, math.nan, math.nan], device=device)  # step from 1, norm and loss; 0: none

    def refuse(self, norm: Tensor, loss: Tensor, step: int) -> Tensor:
        """1.0 where the step must leave everything as it is, else 0.0: a float32 scalar that optimisers take."""
        finite = norm.isfinite()
        overflown = ~finite & loss.isfinite() if self.scaled else torch.zeros_like(finite)
        exploded = finite & (self.seen >= SETTLED) & (norm > EXPLODED * self.usual)
        first = (~(finite | overflown) | exploded) & (self.wrong[0] == 0)
        self.wrong = torch.where(first, torch.stack((torch.full_like(norm, step + 1), norm, loss)), self.wrong)
        refused = overflown | (self.wrong[0] > 0)
        mean = torch.where(self.seen == 0, norm, 0.9 * self.usual + 0.1 * norm)
        self.usual, self.seen = torch.where(refused, self.usual, mean), self.seen + ~refused
        return refused.float()

    def check(self, saved: Checkpoint | None) -> None:
        """Wait for the device; raises JobError where a gradient was refused for good."""
        step, norm, loss = self.wrong.tolist()
        if step:
            what = "exploded" if math.isfinite(norm) else "is not finite"
            where = f"step {saved.step} is kept in {saved.path}" if saved else "no checkpoint was due before it"
            raise JobError(
                f"the gradient {what} at step {step:.0f}: norm {norm:.3g}, loss {loss:.3g}; {where}",
                "lower train.learning_rate, lengthen train.warmup_fraction or raise the temperature",
            )
