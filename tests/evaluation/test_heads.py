import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge

from xclr.errors import DataError
from xclr.evaluation.heads import HeadConfig, fit_linear, fit_ridge, held_out


def digits():
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    x, y = data.data[order].astype(np.float32), data.target[order].astype(np.int64)
    return (
        torch.from_numpy(x[:1200]),
        torch.from_numpy(y[:1200]),
        torch.from_numpy(x[1200:]),
        torch.from_numpy(y[1200:]),
    )


def many_classes(n=6000, d=64, classes=95, seed=0):
    """Overlapping classes with unequal sizes on strongly correlated, rectified features."""
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.ones(classes))
    label = rng.choice(classes, size=n, p=share)
    latent = rng.normal(size=(classes, 24))[label] + rng.normal(size=(n, 24))
    x = np.maximum(latent @ (rng.normal(size=(24, d)) / 5) + 0.3 * rng.normal(size=(n, d)), 0).astype(np.float32)
    half = n // 2
    return (*map(torch.from_numpy, (x[:half], label[:half], x[half:], label[half:])),)


def accuracy(predicted, target):
    return float((predicted == target).double().mean())


@pytest.mark.parametrize("data", [digits, many_classes])
def test_linear_head_is_as_accurate_as_sklearn_at_its_best_strength(data):
    x, y, test_x, test_y = data()
    head = fit_linear(x, y)
    standard = head.standardise(x).numpy()
    peer = LogisticRegression(C=1 / (head.weight_decay * len(x)), max_iter=2000).fit(standard, y.numpy())
    expected = accuracy(torch.from_numpy(peer.predict(head.standardise(test_x).numpy())), test_y)
    assert accuracy(head.predict(test_x), test_y) == pytest.approx(expected, abs=0.005)


def test_one_fixed_setting_reaches_sklearns_objective():
    x, y, _, _ = digits()
    decay = 1e-3
    head = fit_linear(x, y, config=HeadConfig(weight_decays=(decay,)))
    standard = head.standardise(x)
    peer = LogisticRegression(C=1 / (decay * len(x)), max_iter=2000, tol=1e-8).fit(standard.numpy(), y.numpy())

    def objective(weight, bias):
        loss = torch.nn.functional.cross_entropy(standard @ weight + bias, y)
        return float(loss + decay / 2 * weight.square().sum())

    best = objective(torch.from_numpy(peer.coef_.T).float(), torch.from_numpy(peer.intercept_).float())
    assert best <= objective(head.weight, head.bias) + 1e-6
    assert objective(head.weight, head.bias) == pytest.approx(best, rel=0.02)


def test_the_choice_prefers_strong_decay_on_noise_and_weak_decay_on_clean_data():
    x, y, _, _ = digits()
    config = HeadConfig(learning_rates=(0.03,), weight_decays=(1e-4, 10.0))
    assert fit_linear(x, y, config=config).weight_decay == 1e-4
    noisy = torch.cat([x[:, :4], torch.randn(len(x), 400, generator=torch.Generator().manual_seed(0))], dim=1)
    assert fit_linear(noisy[:300], (y[:300] > 4).long(), config=config).weight_decay == 10.0


def test_linear_head_is_a_function_of_its_seed():
    x, y, test_x, _ = digits()
    x, y = x[:300], y[:300]
    once, again = fit_linear(x, y), fit_linear(x, y)
    assert torch.equal(once.logits(test_x), again.logits(test_x))
    other = fit_linear(x, y, config=HeadConfig(seed=1))
    assert not torch.equal(once.logits(test_x), other.logits(test_x))


def test_classes_keep_their_numbers_and_rank_best_first():
    x, y, test_x, _ = digits()
    head = fit_linear(x[:400], 10 * y[:400] + 3)
    assert head.classes.tolist() == list(range(3, 100, 10))
    ranked = head.ranked(test_x, 5)
    assert ranked.shape == (len(test_x), 5)
    assert torch.equal(ranked[:, 0], head.predict(test_x))
    assert head.ranked(test_x, 50).shape == (len(test_x), 10)


def test_constant_and_huge_features_do_no_harm():
    x, y, test_x, test_y = digits()
    more = torch.full((len(x), 2), 1e4)
    head = fit_linear(torch.cat([x * 1e3, more], 1), y)
    shifted = torch.cat([test_x * 1e3, torch.full((len(test_x), 2), 1e4) + 1], 1)
    assert accuracy(head.predict(shifted), test_y) == pytest.approx(
        accuracy(fit_linear(x, y).predict(test_x), test_y), abs=0.01
    )


def test_one_class_and_two_rows_can_be_fitted_and_one_row_cannot():
    assert fit_linear(torch.eye(3), torch.full((3,), 7)).predict(torch.eye(3)).tolist() == [7, 7, 7]
    assert fit_linear(torch.eye(2), torch.tensor([4, 5])).predict(torch.eye(2)).tolist() == [4, 5]
    with pytest.raises(DataError, match="1 training"):
        fit_linear(torch.eye(1), torch.tensor([0]))


@given(st.lists(st.integers(0, 5), min_size=2, max_size=80), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_held_out_rows_are_a_share_that_leaves_every_class_a_row(labels, seed):
    values = torch.tensor(labels)
    mask = held_out(values, fraction=0.1, seed=seed)
    assert 1 <= int(mask.sum()) <= max(1, round(0.1 * len(labels)))
    assert torch.equal(mask, held_out(values, fraction=0.1, seed=seed))
    if len(set(labels)) < len(labels):
        assert set(values[~mask].tolist()) == set(labels)


def test_held_out_rows_are_spread_over_the_classes():
    labels = torch.arange(4).repeat_interleave(100)
    chosen = labels[held_out(labels, fraction=0.1, seed=0)]
    assert torch.bincount(chosen).tolist() == [10, 10, 10, 10]


@pytest.mark.parametrize("alpha", [0.1, 30.0])
def test_ridge_is_sklearns_closed_form(alpha):
    x, y, test_x, _ = digits()
    targets = torch.nn.functional.one_hot(y, 10).bool()
    head = fit_ridge(x, targets, alphas=[alpha])
    peer = Ridge(alpha=alpha).fit(head.standardise(x.double()).numpy(), targets.double().numpy())
    expected = peer.predict(head.standardise(test_x.double()).numpy())
    np.testing.assert_allclose(head.scores(test_x).numpy(), expected, atol=1e-8)


def test_ridge_chooses_its_alpha_on_held_out_training_rows():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(120, 100, generator=generator)
    targets = torch.randint(0, 2, (120, 3), generator=generator)
    assert fit_ridge(noise, targets, alphas=(0.1, 1e5)).alpha == 1e5
    x, y, _, _ = digits()
    assert fit_ridge(x, torch.nn.functional.one_hot(y), alphas=(0.1, 1e5)).alpha == 0.1
