"""Optimisers and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from xclr.recipe import TrainConfig
from xclr.training.objectives.scale import LearnedScale

MOMENTUM = 0.9
TRUST = 1e-3


def spare_dynamo() -> None:
    """Let optimisers be built without torch._dynamo and sympy, whose import takes 2 to 3 s of a training's start.

    torch keeps these calls out of what it compiles, which here is a forward pass alone. Where another torch has no
    `__wrapped__` there, nothing changes.
    """
    for name in ("add_param_group", "zero_grad", "state_dict", "load_state_dict"):
        plain = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if plain is not None:
            setattr(plain, "__dynamo_disable", plain)


class AdamW(torch.optim.AdamW):
    """torch's, whose step asks torch._dynamo for nothing."""

    step = torch.no_grad()(getattr(torch.optim.AdamW.step, "__wrapped__", torch.optim.AdamW.step))


class SGD(torch.optim.SGD):
    """torch's, in the same way; its momenta are zeros from the beginning.

    A first step that is refused would leave momenta that nobody has written.
    """

    step = torch.no_grad()(getattr(torch.optim.SGD.step, "__wrapped__", torch.optim.SGD.step))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Note weights, and make their momenta."""
        super().add_param_group(param_group)
        for weight in self.param_groups[-1]["params"]:
            self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose steps are scaled, tensor by tensor, to the size of the weights.

    g' = g + decay w;  where `trust` is set: g' *= trust |w| / (|g| + decay |w| + eps), unless |w| or |g| is 0;
    m = momentum m + g';  w -= lr m. Groups: params, lr, momentum, weight_decay, trust (None: plain momentum).
    Source: arXiv 1708.03888. The rate is outside of the momentum, as in vicreg, lightly and solo-learn; SimCLR's own
    code (arXiv 2002.05709) has it inside, which is the same while the rate stays, and another path while it rises.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, *, eps: float = 1e-8) -> None:
        super().__init__(params, {"lr": lr, "momentum": MOMENTUM, "weight_decay": 0.0, "trust": TRUST, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step along the gradients, all tensors of a group at once; nothing is read back from the device.

        Where the tensor `found_inf` is set and is 1, nothing changes.
        """
        for group in self.param_groups:
            weights = [each for each in group["params"] if each.grad is not None]
            if weights:
                self._move(weights, [each.grad for each in weights], group)

    def _move(self, weights: list[Tensor], slopes: list[Tensor], group: Mapping[str, Any]) -> None:
        gradients = list(torch._foreach_add(slopes, weights, alpha=group["weight_decay"]))
        if group["trust"] is not None:
            torch._foreach_mul_(gradients, _trust_ratios(weights, slopes, group))
        for weight in weights:
            if "momentum" not in self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        momenta: list[Tensor | None] = [self.state[weight]["momentum"] for weight in weights]
        sgd(
            weights, gradients, momenta, fused=True, found_inf=getattr(self, "found_inf", None), weight_decay=0.0,
            momentum=group["momentum"], lr=group["lr"], dampening=0.0, nesterov=False, maximize=False,
        )  # fmt: skip


def _trust_ratios(weights: list[Tensor], slopes: list[Tensor], group: Mapping[str, Any]) -> list[Tensor]:
    size, slope = (torch.stack(list(torch._foreach_norm(each))) for each in (weights, slopes))
    ratio = group["trust"] * size / (slope + group["weight_decay"] * size + group["eps"])
    return list(torch.where((size > 0) & (slope > 0), ratio, 1.0).unbind())


class Descent(NamedTuple):
    """An optimiser and its highest learning rate."""

    optimizer: torch.optim.Optimizer
    peak: float


def build_descents(model: nn.Module, config: TrainConfig) -> tuple[Descent, ...]:
    """The optimiser of the networks, and AdamW without decay for each learned scale, at the scale's own rate.

    LARS would move a scale by plain momentum at a rate that is made for whole tensors.
    """
    spare_dynamo()
    scales = [each for each in model.modules() if isinstance(each, LearnedScale)]
    adams = (AdamW([each.log], lr=each.learning_rate, weight_decay=0.0, fused=True) for each in scales)
    own = (Descent(adam, scale.learning_rate) for adam, scale in zip(adams, scales, strict=True))
    return Descent(build_optimizer(model, config), config.peak_rate), *own


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, SGD with momentum or LARS, of all but learned scales.

    Biases and norms (fewer than two dimensions) are neither decayed nor scaled by LARS.
    """
    scales = {id(each.log) for each in model.modules() if isinstance(each, LearnedScale)}
    trained = [each for each in model.parameters() if each.requires_grad and id(each) not in scales]
    groups: list[dict[str, Any]] = [
        {"params": [each for each in trained if each.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
    ]
    rate = config.peak_rate
    if config.optimizer == "lars":
        groups[1]["trust"] = None
        return LARS(groups, lr=rate)
    if config.optimizer == "sgd":
        return SGD(groups, lr=rate, momentum=MOMENTUM, fused=True)
    return AdamW(groups, lr=rate, betas=config.betas, fused=True)


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The networks' rate at a step."""
    return config.peak_rate * schedule(step, steps, config)


def schedule(step: int, steps: int, config: TrainConfig) -> float:
    """A step's share of the highest rate: linear warm-up, then a cosine to config.final_learning_rate at `steps`."""
    warmup = warmup_steps(steps, config)
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    last = min(1.0, config.final_learning_rate / config.peak_rate)
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup_steps(steps: int, config: TrainConfig) -> int:
    """Steps with rising rate, at least one."""
    return max(1, round(steps * config.warmup_fraction))
