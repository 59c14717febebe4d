"""Random but reproducible batches: projections, caption embeddings and classes of two views."""

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode


def unit_rows(n, d, *, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=generator, dtype=torch.float64), dim=1).to(dtype)


def views(samples, d, *, seed=0, dtype=torch.float64):
    """z [2N, d] as a leaf, so that a gradient can be read from it."""
    return unit_rows(2 * samples, d, seed=seed, dtype=dtype).requires_grad_()


def captions(samples, d, *, seed=1, dtype=torch.float64):
    """e [2N, d]: both views share a caption; a common direction gives the mean cosine real captions have."""
    rows = unit_rows(samples, d, seed=seed, dtype=torch.float64)
    return F.normalize(rows + 0.6 * unit_rows(1, d, seed=seed + 1000), dim=1).repeat(2, 1).to(dtype)


def classes(samples, count, *, seed=2):
    """Labels [2N], both views alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(count, (samples,), generator=generator).repeat(2)


def value_and_gradient(loss, *leaves):
    """The loss as a number and its gradients with respect to the leaves."""
    return loss.item(), torch.autograd.grad(loss, leaves)


class Largest(TorchDispatchMode):
    """While active, notes the most elements any operation's result holds, in forward and in backward."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for each in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return out
