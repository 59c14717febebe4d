"""Linear heads on frozen features: logistic regression for many settings at once, and ridge for many labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, threshold

from xclr.errors import DataError

SMALLEST = 1e-12  # probability that counts: products with denormal ones made a step five times slower
ALPHAS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)


@dataclass(frozen=True)
class HeadConfig:
    """The settings that compete for a linear head, and the schedule on which each is fitted.

    `curvature` stands for the softmax's p (1 - p) in the preconditioner 1 / (curvature * variance + weight_decay).
    With 0.02 a learning rate of 0.1 is stable for the largest curvature there is, 0.5: 0.1 * 0.5 / 0.02 < 2 * 1.9.
    """

    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    weight_decays: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    epochs: int = 20
    refit_epochs: int = 60  # of the chosen setting: closer to the optimum
    min_steps: int = 300
    batch_size: int = 512
    momentum: float = 0.9
    curvature: float = 0.02
    held_out: float = 0.1  # of the training rows, for the choice
    seed: int = 0

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Every (learning rate, weight decay)."""
        return list(product(self.learning_rates, self.weight_decays))


@dataclass(frozen=True, eq=False)
class Standardiser:
    """x -> (x - mean) / scale, with mean [d] and scale [d] of the training features."""

    mean: Tensor
    scale: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Standardise features [n, d]."""
        return (features - self.mean) / self.scale


@dataclass(frozen=True, eq=False)
class LinearHead:
    """A fitted softmax classifier: classes int64 [C], weight [d, C] and bias [C] on standardised features."""

    classes: Tensor
    standardise: Standardiser
    weight: Tensor
    bias: Tensor
    learning_rate: float
    weight_decay: float

    def logits(self, features: Tensor) -> Tensor:
        """Logits [n, C] of features [n, d], in the order of `classes`."""
        return self.standardise(features) @ self.weight + self.bias

    def ranked(self, features: Tensor, k: int) -> Tensor:
        """The min(k, C) most likely classes of each row, best first, int64 [n, min(k, C)]."""
        return self.classes[self.logits(features).topk(min(k, len(self.classes)), dim=1).indices]

    def predict(self, features: Tensor) -> Tensor:
        """The most likely class of each row, int64 [n]."""
        return self.classes[self.logits(features).argmax(1)]


@dataclass(frozen=True, eq=False)
class RidgeHead:
    """A fitted linear score for each of T labels: weight [d, T] on standardised features and intercept [T]."""

    standardise: Standardiser
    weight: Tensor
    intercept: Tensor
    alpha: float

    def scores(self, features: Tensor) -> Tensor:
        """Scores float64 [n, T] of features [n, d]."""
        return self.standardise(features.double()) @ self.weight + self.intercept


def fit_linear(features: Tensor, labels: Tensor, *, config: HeadConfig | None = None) -> LinearHead:
    """Multinomial logistic regression, its learning rate and weight decay chosen on a split of the training data.

    Minimises mean_i [-log softmax(x_i W + b)_{y_i}] + weight_decay / 2 * ||W||^2 for every pair of settings at once,
    takes the pair with the best held-out accuracy (ties: the lowest loss), and fits it again on all rows.
    features float32 [n, d], labels int64 [n]; deterministic for a seed. Raises DataError for fewer than two rows.
    """
    config = config or HeadConfig()
    classes, index = torch.unique(labels, return_inverse=True)
    out = held_out(labels, fraction=config.held_out, seed=config.seed)
    heads = _fit(features[~out], index[~out], classes, config.pairs, config)
    best = min(heads, key=lambda head: _fault(head, features[out], index[out]))
    config = replace(config, epochs=config.refit_epochs)
    return _fit(features, index, classes, [(best.learning_rate, best.weight_decay)], config)[0]


def held_out(labels: Tensor, *, fraction: float, seed: int) -> Tensor:
    """A mask [n] of about fraction * n rows, at least one, spread over the classes of labels [n].

    No class loses its only row while another has two. Raises DataError for fewer than two rows.
    """
    n = len(labels)
    if n < 2:
        raise DataError(f"a head cannot be fitted to {n} training pictures", "use more data: raise data.limit")
    values = labels.cpu().numpy()
    order = np.random.default_rng(seed).permutation(n)
    order = order[np.argsort(values[order], kind="stable")]
    spare = order[1:][values[order][1:] == values[order][:-1]]  # all but one row of each class
    spare = spare if len(spare) else order
    count = min(max(1, round(fraction * n)), len(spare), n - 1)
    mask = np.zeros(n, dtype=np.bool_)
    mask[spare[np.arange(count) * len(spare) // count]] = True
    return torch.from_numpy(mask).to(labels.device)


def _fault(head: LinearHead, features: Tensor, index: Tensor) -> tuple[float, float]:
    """What the choice minimises: the error rate, then the cross-entropy."""
    logits = head.logits(features)
    loss = float(cross_entropy(logits, index))
    error = float((logits.argmax(1) != index).double().mean())
    return error, loss if math.isfinite(loss) else math.inf


def _standardiser(features: Tensor) -> Standardiser:
    """Mean and deviation of each feature; a deviation below a thousandth of the average one is rounding noise."""
    deviation, mean = torch.std_mean(features, dim=0, correction=0)
    floor = 1e-3 * deviation.mean()
    return Standardiser(mean, deviation.clamp(min=float(floor)) if floor > 0 else torch.ones_like(deviation))


def _fit(
    features: Tensor, index: Tensor, classes: Tensor, pairs: Sequence[tuple[float, float]], config: HeadConfig
) -> list[LinearHead]:
    """One head for each (learning rate, weight decay), all descended together."""
    standardise = _standardiser(features)
    x = standardise(features)
    variance, axes = torch.linalg.eigh((x.T @ x).double() / len(x))
    axes = axes.to(x)
    x = torch.cat([x @ axes, torch.ones_like(x[:, :1])], dim=1)  # principal axes, then the bias
    curvature = config.curvature * torch.cat([variance.clamp(min=0).to(x), torch.ones_like(x[0, :1])])
    weights = _descend(x, index, len(classes), curvature, pairs, config)
    return [
        LinearHead(classes, standardise, axes @ each[:-1], each[-1], rate, decay)
        for (rate, decay), each in zip(pairs, weights, strict=True)
    ]


def _descend(
    x: Tensor,
    index: Tensor,
    n_classes: int,
    curvature: Tensor,
    pairs: Sequence[tuple[float, float]],
    config: HeadConfig,
) -> Tensor:
    """Preconditioned momentum SGD with a cosine schedule on x [n, d + 1] -> weights [H, d + 1, C]; one GEMM a step.

    In the principal axes the loss is close to separable, so that dividing each axis' step by its curvature reaches
    the optimum in 20 epochs; plain SGD and Adam ended 5 and 9 points short of it (emoji features, 95 classes).
    """
    rates, decays = x.new_tensor(pairs).T.view(2, -1, 1, 1)
    decay = decays * torch.ones_like(curvature).view(1, -1, 1)
    decay[:, -1] = 0  # the bias
    scale = rates / (curvature.view(1, -1, 1) + decay)  # [H, d + 1, 1]
    weights = x.new_zeros(len(pairs), x.shape[1], n_classes)
    velocity = torch.zeros_like(weights)
    batches = _batches(len(x), config)
    for step, rows in enumerate(batches):
        batch, target = x[rows], index[rows]
        error = threshold(torch.softmax(batch @ weights, dim=-1), SMALLEST, 0.0)  # [H, b, C]
        error[:, torch.arange(len(rows)), target] -= 1
        gradient = (batch.T @ error).div_(len(rows)).add_(decay * weights)
        velocity.mul_(config.momentum).add_(gradient)
        weights -= scale * (0.5 + 0.5 * math.cos(math.pi * step / len(batches))) * velocity
    return weights


def _batches(n: int, config: HeadConfig) -> list[Tensor]:
    """The rows of every step: each epoch a permutation of 0..n-1."""
    generator = torch.Generator().manual_seed(config.seed)
    steps = -(-n // config.batch_size)
    epochs = max(config.epochs, -(-config.min_steps // steps))
    return [rows for _ in range(epochs) for rows in torch.randperm(n, generator=generator).chunk(steps)]


def fit_ridge(features: Tensor, targets: Tensor, *, alphas: Sequence[float] = ALPHAS, seed: int = 0) -> RidgeHead:
    """Ridge regression of T labels at once, its alpha chosen by squared error on a split of the training data.

    Minimises ||X W + c - Y||^2 + alpha ||W||^2 in closed form for every alpha, X the standardised features [n, d],
    Y targets [n, T] in {0, 1}, then fits the chosen alpha again on all rows. Raises DataError for fewer than two rows.
    """
    features, targets = features.double(), targets.double()
    out = held_out(torch.zeros_like(targets[:, 0]), fraction=0.1, seed=seed)
    heads = _ridge(features[~out], targets[~out], alphas)
    best = min(heads, key=lambda head: float((head.scores(features[out]) - targets[out]).square().mean()))
    return _ridge(features, targets, [best.alpha])[0]


def _ridge(features: Tensor, targets: Tensor, alphas: Sequence[float]) -> list[RidgeHead]:
    """One head for each alpha from one eigendecomposition: W = V (S + alpha)^-1 V^T X^T Y, in float64."""
    standardise = _standardiser(features)
    x = standardise(features)
    mean = targets.mean(0)
    squares, axes = torch.linalg.eigh(x.T @ x)
    moments = axes.T @ (x.T @ (targets - mean))  # [d, T]
    squares = squares.clamp(min=0)
    return [RidgeHead(standardise, axes @ (moments / (squares + alpha).unsqueeze(1)), mean, alpha) for alpha in alphas]
