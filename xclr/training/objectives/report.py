"""What the tracker shows of targets and embeddings."""

from __future__ import annotations

import torch
from torch import Tensor

from xclr.objective import TargetRows, default_block

SPREAD_ROWS = 1024  # of which uniformity looks at all pairs


def target_report(targets: TargetRows, positive: Tensor, candidates: int) -> dict[str, Tensor]:
    """Mean entropy of the target rows, and their mean mass on each anchor's positive column; block by block."""
    entropy = mass = torch.zeros((), device=positive.device)
    block = default_block(candidates, positive.device)
    for start in range(0, len(positive), block):
        rows = targets(slice(start, min(start + block, len(positive))))
        rows = rows / rows.sum(dim=1, keepdim=True)
        entropy = entropy + torch.special.entr(rows).sum()
        mass = mass + rows.gather(1, positive[start : start + block, None]).sum()
    return {"target_entropy": entropy / len(positive), "positive_mass": mass / len(positive)}


def spread_report(first: Tensor, second: Tensor) -> dict[str, Tensor]:
    """Mean squared distance of positives, and log mean exp(-2 d^2) over pairs of anchors (arXiv 2005.10242).

    first, second: [b, d] unit rows; both are of this rank's rows only.
    """
    alignment = (first - second).square().sum(dim=1).mean()
    distances = torch.pdist(first[:SPREAD_ROWS])
    return {"alignment": alignment, "uniformity": distances.square().mul(-2).exp().mean().log()}
