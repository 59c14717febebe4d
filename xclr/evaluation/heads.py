"""Linear heads on frozen features: softmax classifiers for many settings at once, and ridge for many labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from xclr.errors import DataError, anew

ENOUGH = 30  # rows held out in all, by which settings are told apart
SMALLEST = 1e-12  # probability that counts: products with denormal ones made a step five times slower
ALPHAS = (0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
CHUNK = 4096  # rows that are converted, or whose logits are computed, at once
TOLERANCE = 1e-4  # of the largest slope at which L-BFGS ends, in its coordinates
HISTORY = 10  # steps that L-BFGS remembers
Solver = Literal["sgd", "lbfgs", "ridge"]


@dataclass(frozen=True)
class HeadConfig:
    """The settings that compete for a linear head, and how each is fitted.

    `solver` sgd and lbfgs minimise the cross-entropy, ridge the squared error to one-hot targets; the learning rates,
    epochs, steps, batch_size and momentum are of sgd, the iterations of lbfgs. `curvature` stands for the softmax's
    p (1 - p) in the preconditioner 1 / (curvature * variance + weight_decay). With 0.02 a learning rate of 0.1 is
    stable for the largest curvature there is, 0.5: 0.1 * 0.5 / 0.02 < 2 * 1.9.
    """

    solver: Solver = "sgd"
    learning_rates: tuple[float, ...] = (0.01, 0.03, 0.1)
    weight_decays: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    epochs: int = 20
    refit_epochs: int = 60  # of the chosen setting: closer to the optimum
    min_steps: int = 300
    batch_size: int = 512
    momentum: float = 0.9
    iterations: int = 100  # at most, of each weight decay
    curvature: float = 0.02
    held_out: float = 0.1  # of the training rows, for the choice
    crossed: bool = False  # chosen on as many splits as hold out ENOUGH rows in all
    seed: int = 0

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Every (learning rate, weight decay); the rate is 0 for solvers without one."""
        return list(product(self.learning_rates if self.solver == "sgd" else (0.0,), self.weight_decays))


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
    """A fitted softmax classifier: classes int64 [C], weight [d, C] and bias [C] on standardised features.

    Features [n, d] may be of any precision; `batch` of them are converted and multiplied at once.
    """

    classes: Tensor
    standardise: Standardiser
    weight: Tensor
    bias: Tensor
    learning_rate: float
    weight_decay: float

    def logits(self, features: Tensor, batch: int = CHUNK) -> Tensor:
        """Logits float32 [n, C] of features [n, d], in the order of `classes`."""
        return torch.cat(list(self._parts(features, batch)))

    def ranked(self, features: Tensor, k: int, batch: int = CHUNK) -> Tensor:
        """The min(k, C) most likely classes of each row, best first, int64 [n, min(k, C)]."""
        k = min(k, len(self.classes))
        return self.classes[torch.cat([part.topk(k, dim=1).indices for part in self._parts(features, batch)])]

    def predict(self, features: Tensor, batch: int = CHUNK) -> Tensor:
        """The most likely class of each row, int64 [n]."""
        return self.classes[torch.cat([part.argmax(1) for part in self._parts(features, batch)])]

    def only(self, classes: Tensor) -> LinearHead:
        """The same head that chooses among some classes alone; those it does not know are left out."""
        kept = torch.isin(self.classes, classes)
        return replace(self, classes=self.classes[kept], weight=self.weight[:, kept], bias=self.bias[kept])

    def _parts(self, features: Tensor, batch: int) -> Iterator[Tensor]:
        for part in _split(features, batch):
            yield self.standardise(part.float()) @ self.weight + self.bias


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


def save_head(head: LinearHead, path: Path) -> None:
    """Write a head's tensors and numbers."""
    flat = {name: value for name, value in vars(head).items() if name != "standardise"}
    torch.save(flat | vars(head.standardise), path)


def load_head(path: Path) -> LinearHead:
    """Read what save_head wrote, to the CPU and without pickles; raises DataError for a file that holds no head."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    wanted = {*LinearHead.__dataclass_fields__, *Standardiser.__dataclass_fields__} - {"standardise"}
    if not isinstance(stored, dict) or stored.keys() != wanted:
        raise DataError(f"{path} does not hold a linear head", anew(path.parent))
    return LinearHead(standardise=Standardiser(stored.pop("mean"), stored.pop("scale")), **stored)


def _split(rows: Tensor, size: int = CHUNK) -> Iterator[Tensor]:
    """Parts of so many rows; of none, one part of none."""
    for start in range(0, max(1, len(rows)), size):
        yield rows[start : start + size]


class _Rows(NamedTuple):
    """Some rows of features that may be too many to convert at once."""

    features: Tensor  # [N, d] of any precision
    rows: Tensor  # int64 [n]

    def parts(self, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
        """Up to CHUNK of the rows, and their features."""
        for rows in _split(self.rows):
            yield rows, self.features[rows].to(dtype)

    def standardiser(self) -> Standardiser:
        """Mean and deviation in float64; a deviation below a thousandth of the average one is rounding noise."""
        n = len(self.rows)
        mean = torch.stack([part.sum(0) for _, part in self.parts(torch.float64)]).sum(0) / n
        squares = torch.stack([(part - mean).square().sum(0) for _, part in self.parts(torch.float64)]).sum(0)
        deviation = (squares / n).sqrt()
        floor = 1e-3 * deviation.mean()
        return Standardiser(mean, deviation.clamp(min=float(floor)) if floor > 0 else torch.ones_like(deviation))


class _Principal(NamedTuple):
    """Standardised features in their principal axes, with a column of ones for the bias."""

    x: Tensor  # float32 [n, r + 1], r = min(n, d)
    target: Tensor  # int64 [n]: places of the classes
    variance: Tensor  # [r + 1]: the mean square of each column
    standardise: Standardiser
    axes: Tensor  # [d, r]


def fit_linear(features: Tensor, labels: Tensor, *, config: HeadConfig | None = None) -> LinearHead:
    """A softmax classifier, its learning rate and weight decay chosen on splits of the training data.

    Minimises mean_i [-log softmax(x_i W + b)_{y_i}] + weight_decay / 2 * ||W||^2, or for ridge the mean of
    ||x_i W + b - onehot(y_i)||^2 / 2 in place of the cross-entropy, for every pair of settings; takes the pair with
    the best held-out accuracy (ties: the lowest loss), and fits it again on all rows. There is one split, or with
    `config.crossed` several where one holds out few rows, at most 1 / config.held_out (Monte Carlo cross-validation).
    features [n, d] in float16 or float32, of which one copy in float32 is made, on the device where they are; labels
    int64 [n]. Deterministic for a seed. Raises DataError for fewer than two rows.
    """

    config = config or HeadConfig()
    classes, index = torch.unique(labels, return_inverse=True)
    faults = np.zeros((len(config.pairs), 2))
    for number in range(splits_for(len(labels), config)):
        out = held_out(labels, fraction=config.held_out, seed=config.seed + number)
        heads = _fit(_Rows(features, (~out).nonzero()[:, 0]), index, classes, config.pairs, config)
        test = _Rows(features, out.nonzero()[:, 0])
        faults += [_fault(head, test, index) for head in heads]
    best = min(range(len(faults)), key=lambda place: tuple(faults[place]))
    config = replace(config, epochs=config.refit_epochs)
    all_ = _Rows(features, torch.arange(len(features), device=features.device))
    return _fit(all_, index, classes, [config.pairs[best]], config)[0]


def splits_for(rows: int, config: HeadConfig) -> int:
    """How many splits of so many rows the settings are chosen on."""
    if not config.crossed or rows < 2:
        return 1
    return min(math.ceil(ENOUGH / max(1, round(config.held_out * rows))), round(1 / config.held_out))


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


def _fault(head: LinearHead, test: _Rows, index: Tensor) -> tuple[float, float]:
    """What the choice minimises: the error rate, then the cross-entropy; both infinite for a head that diverged."""
    wrong = loss = 0.0
    for rows, part in test.parts(torch.float32):
        logits = head.logits(part)
        wrong += float((logits.argmax(1) != index[rows]).double().sum())
        loss += float(F.cross_entropy(logits, index[rows], reduction="sum"))
    return (wrong / len(test.rows), loss / len(test.rows)) if math.isfinite(loss) else (math.inf, math.inf)


def _fit(
    data: _Rows, index: Tensor, classes: Tensor, pairs: Sequence[tuple[float, float]], config: HeadConfig
) -> list[LinearHead]:
    """One head for each (learning rate, weight decay), fitted together; index [N] are the places of the classes."""
    if config.solver == "ridge":
        return _fit_ridge(data, index, classes, pairs)
    principal = _principal(data, index)
    solve = _descend if config.solver == "sgd" else _minimise
    weights = solve(principal, len(classes), pairs, config)
    return [
        LinearHead(classes, principal.standardise, principal.axes @ each[:-1], each[-1], rate, decay)
        for (rate, decay), each in zip(pairs, weights.unbind(1), strict=True)
    ]


def _principal(data: _Rows, index: Tensor) -> _Principal:
    """The one copy of the features, filled, then rotated in place, a part at a time.

    Fewer rows than features vary along no more axes than rows; the others, where no weight would move, are left out.
    """
    wide = data.standardiser()
    standardise = Standardiser(wide.mean.float(), wide.scale.float())
    n, d = len(data.rows), data.features.shape[1]
    x = torch.ones(n, d + 1, device=data.features.device)
    for own, (_, part) in zip(_split(x), data.parts(torch.float32), strict=True):
        own[:, :d] = standardise(part)
    variance, axes = _axes(x[:, :d])
    r = len(variance)
    for own in _split(x):
        own[:, :r] = own[:, :d] @ axes
    x[:, r] = 1
    variance = torch.cat([variance, torch.ones_like(x[0, :1])])
    return _Principal(x[:, : r + 1], index[data.rows], variance, standardise, axes)


def _axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variances [r] and principal axes [d, r] of x [n, d], r = min(n, d)."""
    n, d = x.shape
    if n < d:
        _, lengths, axes = torch.linalg.svd(x, full_matrices=False)
        return lengths.square() / n, axes.T
    squares = torch.zeros(d, d, dtype=torch.float64, device=x.device)
    for part in _split(x):
        squares += part.T @ part
    variance, axes = torch.linalg.eigh(squares / n)
    return variance.clamp(min=0).float(), axes.float()


def _decay(weight_decay: float | Tensor, like: Tensor) -> Tensor:
    """A weight decay for each row of `like` [r + 1, ...], none for the bias."""
    decay = weight_decay * torch.ones_like(like)
    decay[-1] = 0
    return decay


def _descend(data: _Principal, n_classes: int, pairs: Sequence[tuple[float, float]], config: HeadConfig) -> Tensor:
    """Preconditioned momentum SGD with a cosine schedule -> weights [r + 1, H, C] of H pairs; one GEMM a step.

    In the principal axes the loss is close to separable, so that dividing each axis' step by its curvature reaches
    the optimum in 20 epochs; plain SGD and Adam ended 5 and 9 points short of it (emoji features, 95 classes).
    """
    x, heads = data.x, len(pairs)
    rates, decays = x.new_tensor(pairs).T.view(2, 1, -1, 1)
    decay = _decay(decays, x.new_empty(x.shape[1], heads, 1))
    scale = rates / (config.curvature * data.variance.view(-1, 1, 1) + decay)  # [r + 1, H, 1]
    weights = x.new_zeros(x.shape[1], heads, n_classes)
    velocity = torch.zeros_like(weights)
    batches = _batches(len(x), config)
    for step, rows in enumerate(batches):
        batch, target = x[rows], data.target[rows]
        error = _error(batch @ weights.flatten(1), target, heads)
        velocity.mul_(config.momentum).addcmul_(decay, weights)
        velocity.flatten(1).addmm_(batch.T, error, alpha=1 / len(rows))
        weights.addcmul_(scale, velocity, value=-0.5 - 0.5 * math.cos(math.pi * step / len(batches)))
    return weights


def _error(logits: Tensor, target: Tensor, heads: int) -> Tensor:
    """softmax - onehot for logits [b, H * C] of H heads."""
    error = F.threshold(torch.softmax(logits.view(len(target), heads, -1), dim=-1), SMALLEST, 0.0, inplace=True)
    error[torch.arange(len(target)), :, target] -= 1
    return error.flatten(1)


def _batches(n: int, config: HeadConfig) -> list[Tensor]:
    """The rows of every step: each epoch a permutation of 0..n-1."""
    generator = torch.Generator().manual_seed(config.seed)
    steps = -(-n // config.batch_size)
    epochs = max(config.epochs, -(-config.min_steps // steps))
    return [rows for _ in range(epochs) for rows in torch.randperm(n, generator=generator).chunk(steps)]


def _minimise(data: _Principal, n_classes: int, pairs: Sequence[tuple[float, float]], config: HeadConfig) -> Tensor:
    """L-BFGS on all rows for each weight decay, from the strongest on, each from the one before -> [r + 1, H, C]."""
    weights = data.x.new_zeros(data.x.shape[1], n_classes)
    found: dict[float, Tensor] = {}
    for weight_decay in sorted({decay for _, decay in pairs}, reverse=True):
        found[weight_decay] = weights = _minimum(data, weights, weight_decay, config)
    return torch.stack([found[decay] for _, decay in pairs], dim=1)


def _minimum(data: _Principal, start: Tensor, weight_decay: float, config: HeadConfig) -> Tensor:
    """The weights [r + 1, C] of one weight decay; coordinates are divided by the root of their curvature."""
    decay = _decay(weight_decay, data.x[0]).unsqueeze(1)
    scale = (config.curvature * data.variance.unsqueeze(1) + decay).rsqrt()
    place = start / scale
    search = torch.optim.LBFGS(
        [place],
        max_iter=config.iterations,
        history_size=HISTORY,
        tolerance_grad=TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def objective() -> float:
        weights = place * scale
        loss, gradient = _cross_entropy(data.x, data.target, weights)
        place.grad = scale * (gradient + decay * weights)
        return loss + float((decay * weights.square()).sum()) / 2

    search.step(objective)  # type: ignore[no-untyped-call]
    return place * scale


def _cross_entropy(x: Tensor, index: Tensor, weights: Tensor) -> tuple[float, Tensor]:
    """The mean cross-entropy of rows x [n, r + 1] and its gradient [r + 1, C]."""
    loss, gradient = 0.0, torch.zeros_like(weights)
    for batch, target in zip(_split(x), _split(index), strict=True):
        logits = batch @ weights
        loss += float(F.cross_entropy(logits, target, reduction="sum"))
        gradient.addmm_(batch.T, _error(logits, target, 1))
    return loss / len(x), gradient / len(x)


def fit_ridge(features: Tensor, targets: Tensor, *, alphas: Sequence[float] = ALPHAS, seed: int = 0) -> RidgeHead:
    """Ridge regression of T labels at once, its alpha chosen by squared error on a split of the training data.

    Minimises ||X W + c - Y||^2 + alpha ||W||^2 in closed form for every alpha, X the standardised features [n, d],
    Y targets [n, T] in {0, 1}, then fits the chosen alpha again on all rows. Raises DataError for fewer than two rows.
    """
    targets = targets.double()
    out = held_out(torch.zeros_like(targets[:, 0]), fraction=0.1, seed=seed)
    heads = _ridge(_Rows(features, (~out).nonzero()[:, 0]), targets.__getitem__, alphas)
    best = min(heads, key=lambda head: float((head.scores(features[out]) - targets[out]).square().mean()))
    return _ridge(_Rows(features, torch.arange(len(features))), targets.__getitem__, [best.alpha])[0]


def _ridge(data: _Rows, targets: Callable[[Tensor], Tensor], alphas: Sequence[float]) -> list[RidgeHead]:
    """One head for each alpha from one eigendecomposition: W = V (S + alpha)^-1 V^T X^T Y, in float64.

    `targets` gives those of some rows, [b, T].
    """
    standardise = data.standardiser()
    mean = torch.stack([targets(rows).sum(0) for rows in _split(data.rows)]).sum(0) / len(data.rows)
    moments, squares = torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for rows, part in data.parts(torch.float64):
        x = standardise(part)
        squares, moments = squares + x.T @ x, moments + x.T @ (targets(rows) - mean)
    values, axes = torch.linalg.eigh(squares)
    values, moments = values.clamp(min=0), axes.T @ moments  # [d], [d, T]
    return [RidgeHead(standardise, axes @ (moments / (values + alpha).unsqueeze(1)), mean, alpha) for alpha in alphas]


def _fit_ridge(data: _Rows, index: Tensor, classes: Tensor, pairs: Sequence[tuple[float, float]]) -> list[LinearHead]:
    """Least squares on one-hot targets; a weight decay is alpha / n."""

    def onehot(rows: Tensor) -> Tensor:
        return F.one_hot(index[rows], len(classes)).double()

    fitted = _ridge(data, onehot, [decay * len(data.rows) for _, decay in pairs])
    return [
        LinearHead(
            classes,
            Standardiser(each.standardise.mean.float(), each.standardise.scale.float()),
            each.weight.float(),
            each.intercept.float(),
            *pair,
        )
        for pair, each in zip(pairs, fitted, strict=True)
    ]
