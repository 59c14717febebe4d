"""Optimisers and the schedule."""

import itertools

import pytest
import torch
from lightly.utils import lars as peer
from torch import nn

from tests.kit.home import build
from xclr.recipe import CLIPConfig, CLOOBConfig, SimCLRConfig, TrainConfig
from xclr.training.optim import LARS, SGD, AdamW, build_descents, build_optimizer, learning_rate

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


def test_the_cosine_ends_at_the_last_rate_whatever_the_rule():
    config = CONFIG.model_copy(update={"final_learning_rate": 0.01, "lr_rule": "linear", "batch_size": 512})
    assert learning_rate(STEPS, STEPS, config) == pytest.approx(0.01)
    assert learning_rate(55, STEPS, config) == pytest.approx((0.4 + 0.01) / 2)
    assert learning_rate(9, STEPS, config) == pytest.approx(0.4)


def test_adamw_has_the_betas_of_the_config():
    optimizer = build_optimizer(nn.Linear(2, 2), TrainConfig(betas=(0.9, 0.98)))
    assert [group["betas"] for group in optimizer.param_groups] == [(0.9, 0.98)] * 2


def test_without_warm_up_the_first_step_has_the_peak_rate():
    assert learning_rate(0, STEPS, CONFIG.model_copy(update={"warmup_fraction": 0.0})) == 0.2


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_trainings_have_a_rate(steps):
    assert all(0 < learning_rate(step, steps, CONFIG) <= 0.2 for step in range(steps))


@pytest.mark.parametrize(("name", "kind"), [("adamw", AdamW), ("sgd", SGD), ("lars", LARS)])
def test_vectors_and_scalars_are_not_decayed_and_matrices_are(home, name, kind):
    model = build(CLIPConfig(), home.paths)
    optimizer = build_optimizer(model, TrainConfig(optimizer=name, weight_decay=0.3))
    assert type(optimizer) is kind
    decay = {id(each): group["weight_decay"] for group in optimizer.param_groups for each in group["params"]}
    others = [each for each in model.parameters() if each is not model.objective.scale.log]
    assert decay == {id(each): 0.3 if each.ndim >= 2 else 0.0 for each in others}


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
def test_a_learned_scale_has_adamw_at_a_rate_of_its_own_beside_every_optimiser(home, name):
    model = build(CLIPConfig(scale_learning_rate=0.02), home.paths)
    networks, own = build_descents(model, TrainConfig(optimizer=name, weight_decay=0.3, learning_rate=3.0))
    assert networks.peak == 3.0 and own.peak == 0.02 and type(own.optimizer) is AdamW
    (group,) = own.optimizer.param_groups
    assert (group["params"], group["weight_decay"]) == ([model.objective.scale.log], 0.0)
    moved = {id(each) for one in (networks, own) for group in one.optimizer.param_groups for each in group["params"]}
    assert moved == {id(each) for each in model.parameters()}
    before = model.objective.scale.log.item()
    model.objective.scale.log.grad = torch.tensor(50.0)
    own.optimizer.step()
    assert model.objective.scale.log.item() == pytest.approx(before - 0.02, rel=1e-4), "Adam's first step is its rate"


@pytest.mark.parametrize("config", [SimCLRConfig(), CLOOBConfig()])
def test_without_a_learned_scale_there_is_one_optimiser(home, config):
    assert len(build_descents(build(config, home.paths), TrainConfig())) == 1


@pytest.mark.parametrize("name", ["adamw", "sgd", "lars"])
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


@pytest.mark.parametrize("decay", [1e-6, 0.1])
def test_lars_takes_the_steps_of_lightlys(decay):
    """Which leaves both decay and trust out where the decay is 0, as for biases and norms."""
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(7, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizer = build_optimizer(ours, TrainConfig(optimizer="lars", learning_rate=0.3, weight_decay=decay))
    wide, narrow = ([each for each in theirs.parameters() if (each.ndim >= 2) == which] for which in (True, False))
    groups = [{"params": wide, "weight_decay": decay}, {"params": narrow, "weight_decay": 0.0}]
    theirs_stepper = peer.LARS(groups, lr=0.3, momentum=0.9, trust_coefficient=1e-3)
    for _ in range(6):
        pictures = torch.randn(16, 7)
        for model, stepper in ((ours, optimizer), (theirs, theirs_stepper)):
            stepper.zero_grad()
            model(pictures).square().mean().backward()
            stepper.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


def test_lars_trusts_without_decay_too_and_leaves_a_weight_of_zeros_its_plain_step():
    weight, zeros = nn.Parameter(torch.full((2, 2), 3.0)), nn.Parameter(torch.zeros(2, 2))
    optimizer = LARS([{"params": [weight, zeros]}], lr=1.0)
    weight.grad, zeros.grad = torch.full((2, 2), 5.0), torch.ones(2, 2)
    optimizer.step()
    torch.testing.assert_close(weight, torch.full((2, 2), 3.0 - 1e-3 * 6 / 10 * 5))  # |w| = 6, |g| = 10
    torch.testing.assert_close(zeros, -torch.ones(2, 2))


@pytest.mark.parametrize(("rule", "rate"), [("absolute", 0.075), ("linear", 0.3), ("sqrt", 2.4)])
def test_the_rule_says_what_the_rate_is_multiplied_by(rule, rate):
    config = TrainConfig(learning_rate=0.075, lr_rule=rule, batch_size=1024, warmup_fraction=0.0)
    assert config.rate == ("adamw 0.075" if rule == "absolute" else f"adamw {rate:g} (0.075, {rule})")
    assert config.peak_rate == learning_rate(0, STEPS, config) == pytest.approx(rate)
