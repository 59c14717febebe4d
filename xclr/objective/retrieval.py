"""Retrieval from a modern Hopfield network, as CLOOB uses it before its loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from xclr.objective.targets import at_least_float32


def retrieve(queries: Tensor, stored: Tensor, *, scale: float) -> Tensor:
    """What a Hopfield network that stores some rows retrieves for others, normalised.

    U = normalise(softmax(scale queries stored^T) stored)

    queries: [b, d]. stored: [B, d], unit rows. Returns [b, d] in float32 or wider, with gradient to both. This is
    attention, whose fused kernels hold no [b, B] matrix. Source: arXiv 2110.11316, equation 5.
    """
    dtype = at_least_float32(queries, stored)
    with torch.autocast(queries.device.type, enabled=False):
        patterns = stored.to(dtype)[None, None]
        found = F.scaled_dot_product_attention(queries.to(dtype)[None, None], patterns, patterns, scale=scale)
    return F.normalize(found[0, 0], dim=1)
