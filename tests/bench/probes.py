"""Linear probes: a sweep of learning rates in one pass against as many loops, and their accuracy against sklearn's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from tests.bench.measure import Figure, compare
from tests.kit.features import drawn_emoji
from xclr.evaluation.heads import HeadConfig, Solver, fit_linear

RATES = tuple(np.geomspace(1e-3, 1e-1, 13).tolist())
EPOCHS, BATCH, DECAY = 10, 512, 1e-4
WIDTH = 32  # 256 features, as the emoji recipe's backbone has
SWEEP = HeadConfig(
    learning_rates=RATES, weight_decays=(DECAY,), epochs=EPOCHS, refit_epochs=EPOCHS, batch_size=BATCH, min_steps=1
)
SOLVERS: tuple[Solver, ...] = ("sgd", "lbfgs")


def loops(x: Tensor, y: Tensor) -> None:
    """A loop over a loader for each learning rate."""
    data, classes = TensorDataset(x, y), int(y.max()) + 1
    for rate in RATES:
        probe = nn.Linear(x.shape[1], classes)
        optimizer = torch.optim.SGD(probe.parameters(), lr=rate, momentum=SWEEP.momentum, weight_decay=DECAY)
        for _ in range(EPOCHS):
            for features, labels in DataLoader(data, batch_size=BATCH, shuffle=True):
                optimizer.zero_grad()
                cross_entropy(probe(features), labels).backward()
                optimizer.step()


def figures() -> Iterator[Figure]:
    """The sweep with all that fit_linear does: standardise, rotate, choose, fit again; the loops only train."""
    emoji = drawn_emoji(WIDTH)
    x = emoji.features[emoji.train]
    standard = (x - x.mean(0)) / x.std(0)
    for labels in (emoji.group, emoji.subgroup):
        y = labels[emoji.train]
        name = (
            f"13 learning rates at once, {len(x):,} x {x.shape[1]}, {int(y.max()) + 1} classes / 13 DataLoader probes"
        )
        yield compare(name, lambda y=y: fit_linear(x, y, config=SWEEP), lambda y=y: loops(standard, y), 0.30)
    for labels in (emoji.group, emoji.subgroup):
        yield from differences(emoji.features, labels, emoji.train)


def differences(features: Tensor, labels: Tensor, train: Tensor) -> Iterator[Figure]:
    """How far each solver's held-out accuracy is from that of sklearn at the strength that the solver chose."""
    x, y, unseen, truth = features[train], labels[train], features[~train], labels[~train]
    for solver in SOLVERS:
        head = fit_linear(x, y, config=HeadConfig(solver=solver))
        ours = float((head.predict(unseen) == truth).double().mean())
        peer = LogisticRegression(C=1 / (head.weight_decay * len(x)), max_iter=2000)
        peer.fit(head.standardise(x).numpy(), y.numpy())
        theirs = peer.score(head.standardise(unseen).numpy(), truth.numpy())
        name = f"{solver}, {int(labels.max()) + 1} classes: top-1 {ours:.2%}, sklearn's {theirs:.2%}; distance / bar"
        yield Figure(name, 100 * abs(ours - theirs), 0.2, 1.0, "points")
