"""Optimisers and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from xclr.recipe import TrainConfig

MOMENTUM = 0.9
TRUST = 1e-3


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose steps are scaled, tensor by tensor, to the size of the weights.

    g' = g + decay w;  where `trust` is set: g' *= trust |w| / (|g| + decay |w| + eps), unless |w| or |g| is 0;
    m = momentum m + g';  w -= lr m. Groups: params, lr, momentum, weight_decay, trust (None: plain momentum).
    Source: arXiv 1708.03888; the rate inside the momentum as in arXiv 2002.05709.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, *, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "momentum": MOMENTUM, "weight_decay": 0.0, "trust": TRUST, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients; nothing is read back from the device."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)

    def _move(self, weight: Tensor, group: Mapping[str, Any]) -> None:
        gradient = weight.grad.add(weight, alpha=group["weight_decay"]) if weight.grad is not None else weight
        if group["trust"] is not None:
            gradient *= _trust_ratio(weight, group)
        state = self.state[weight]
        if "momentum" in state:
            state["momentum"].mul_(group["momentum"]).add_(gradient)
        else:
            state["momentum"] = gradient
        weight.sub_(state["momentum"], alpha=group["lr"])


def _trust_ratio(weight: Tensor, group: Mapping[str, Any]) -> Tensor:
    size, slope = torch.linalg.vector_norm(weight), torch.linalg.vector_norm(weight.grad)
    ratio = group["trust"] * size / (slope + group["weight_decay"] * size + group["eps"])
    return torch.where((size > 0) & (slope > 0), ratio, 1.0)


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, SGD with momentum or LARS; biases, norms and scales (fewer than two dimensions) are neither decayed nor
    scaled by LARS."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [each for each in trained if each.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
    ]
    rate = peak_rate(config)
    if config.optimizer == "lars":
        groups[1]["trust"] = None
        return LARS(groups, lr=rate)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=MOMENTUM)
    return torch.optim.AdamW(groups, lr=rate, fused=True)


def peak_rate(config: TrainConfig) -> float:
    """The highest learning rate: config.learning_rate, times batch_size / 256 or sqrt(batch_size) by the rule."""
    factor = {"absolute": 1.0, "linear": config.batch_size / 256, "sqrt": math.sqrt(config.batch_size)}
    return config.learning_rate * factor[config.lr_rule]


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine to zero at `steps`."""
    peak, warmup = peak_rate(config), max(1, round(steps * config.warmup_fraction))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
