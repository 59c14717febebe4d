"""Optimisers and the schedule."""

import itertools

import pytest
import torch
from torch import nn

from tests.training.home import build
from xclr.recipe import CLIPConfig, TrainConfig
from xclr.training.optim import build_optimizer, learning_rate

STEPS = 100
CONFIG = TrainConfig(learning_rate=0.2, warmup_fraction=0.1)  # ten steps of warm-up


def test_the_rate_rises_linearly_to_its_peak():
    rates = [learning_rate(step, STEPS, CONFIG) for step in range(10)]
    assert rates == pytest.approx([0.2 * (step + 1) / 10 for step in range(10)])


@pytest.mark.parametrize(
    ("step", "share"),
    [(0, 0.1), (9, 1.0), (10, 1.0), (10 + 30, 0.75), (10 + 45, 0.5), (10 + 60, 0.25), (100, 0.0)],
    ids=["first", "end of warm-up", "start of cosine", "a third", "middle", "two thirds", "end"],
)
def test_the_rate_at(step, share):
    assert learning_rate(step, STEPS, CONFIG) == pytest.approx(0.2 * share, abs=1e-12)


def test_the_rate_falls_after_warm_up_and_stays_positive():
    rates = [learning_rate(step, STEPS, CONFIG) for step in range(10, STEPS)]
    assert all(a > b > 0 for a, b in itertools.pairwise(rates))


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert learning_rate(0, STEPS, CONFIG.model_copy(update={"warmup_fraction": 0.0})) == 0.2


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_trainings_have_a_rate(steps):
    assert all(0 < learning_rate(step, steps, CONFIG) <= 0.2 for step in range(steps))


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_vectors_and_scalars_are_not_decayed_and_matrices_are(home, name, kind):
    model = build(CLIPConfig(), home.paths)
    optimizer = build_optimizer(model, TrainConfig(optimizer=name, weight_decay=0.3))
    assert type(optimizer) is kind
    decay = {id(each): group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
    assert decay == {id(each): 0.3 if each.ndim >= 2 else 0.0 for each in model.parameters()}
    assert any(each.ndim == 0 for each in model.parameters())


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_step_without_gradient_shrinks_matrices_only(name):
    model = nn.Linear(3, 3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(model, TrainConfig(optimizer=name, weight_decay=0.5, learning_rate=0.1)).step()
    torch.testing.assert_close(model.weight.detach(), before["weight"] * (1 - 0.1 * 0.5))
    assert torch.equal(model.bias.detach(), before["bias"])


def test_frozen_parameters_are_left_alone():
    model = nn.Linear(3, 3)
    model.weight.requires_grad_(False)
    optimizer = build_optimizer(model, TrainConfig())
    assert [each for group in optimizer.param_groups for each in group["params"]] == [model.bias]
