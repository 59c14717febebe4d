import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge

from tests.kit.features import drawn_emoji
from xclr.errors import DataError
from xclr.evaluation.heads import HeadConfig, fit_linear, fit_ridge, held_out, load_head, save_head, splits_for

SOLVERS = ["sgd", "lbfgs", "ridge"]


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


def emoji_groups():
    """8,593 pictures to train on and 3,524 others."""
    x, train, y, _ = drawn_emoji()
    return x[train], y[train], x[~train], y[~train]


def accuracy(predicted, target):
    return float((predicted == target).double().mean())


def same(one, other):
    """Whether two heads are equal, bit for bit."""
    tensors = [
        (each.classes, each.standardise.mean, each.standardise.scale, each.weight, each.bias) for each in (one, other)
    ]
    numbers = [(each.learning_rate, each.weight_decay) for each in (one, other)]
    return numbers[0] == numbers[1] and all(torch.equal(*pair) for pair in zip(*tensors, strict=True))


def peer_of(head, x, y, **options):
    """scikit-learn's classifier of the same strength on the same standardised features."""
    peer = LogisticRegression(C=1 / (head.weight_decay * len(x)), max_iter=2000, **options)
    return peer.fit(head.standardise(x).numpy(), y.numpy())


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_linear_head_is_within_two_tenths_of_a_point_of_sklearn_on_real_pictures(solver):
    x, y, test_x, test_y = emoji_groups()
    head = fit_linear(x, y, config=HeadConfig(solver=solver))
    expected = peer_of(head, x, y).score(head.standardise(test_x).numpy(), test_y.numpy())
    assert expected > 0.3
    assert accuracy(head.predict(test_x), test_y) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
@pytest.mark.parametrize("data", [digits, many_classes])
def test_linear_head_is_as_accurate_as_sklearn_at_its_best_strength(data, solver):
    x, y, test_x, test_y = data()
    head = fit_linear(x, y, config=HeadConfig(solver=solver))
    expected = peer_of(head, x, y).score(head.standardise(test_x).numpy(), test_y.numpy())
    assert accuracy(head.predict(test_x), test_y) == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize(
    ("solver", "gap", "rows"),
    [("sgd", 0.02, 1200), ("lbfgs", 0.0005, 1200), ("lbfgs", 0.0005, 40)],  # 40 are fewer than the 64 features
)
def test_one_fixed_setting_reaches_sklearns_objective(solver, gap, rows):
    x, y = (each[:rows] for each in digits()[:2])
    decay = 1e-3
    head = fit_linear(x, y, config=HeadConfig(solver=solver, weight_decays=(decay,)))
    standard, peer = head.standardise(x), peer_of(head, x, y, tol=1e-8)

    def objective(weight, bias):
        loss = torch.nn.functional.cross_entropy(standard @ weight + bias, y)
        return float(loss + decay / 2 * weight.square().sum())

    best = objective(torch.from_numpy(peer.coef_.T).float(), torch.from_numpy(peer.intercept_).float())
    assert best <= objective(head.weight, head.bias) + 1e-6
    assert objective(head.weight, head.bias) == pytest.approx(best, rel=gap)


def test_fewer_rows_than_features_are_fitted_as_if_there_were_more_axes():
    """Rows that repeat span no more, but are as many as the features, so that every axis is kept."""
    x, y, test_x, _ = digits()
    x, y = x[:50], y[:50]
    config = HeadConfig(solver="lbfgs", weight_decays=(1e-2,), iterations=500)
    few, many = fit_linear(x, y, config=config), fit_linear(x.repeat(2, 1), y.repeat(2), config=config)
    torch.testing.assert_close(few.logits(test_x), many.logits(test_x), atol=0.02, rtol=0)


def test_ridge_solver_is_least_squares_on_one_hot_targets():
    x, y, test_x, test_y = digits()
    head = fit_linear(x, y, config=HeadConfig(solver="ridge", weight_decays=(0.01,)))
    onehot = torch.nn.functional.one_hot(y, 10).double().numpy()
    peer = Ridge(alpha=0.01 * len(x)).fit(head.standardise(x).double().numpy(), onehot)
    expected = peer.predict(head.standardise(test_x).double().numpy())
    np.testing.assert_allclose(head.logits(test_x).numpy(), expected, atol=1e-4)
    assert accuracy(head.predict(test_x), test_y) > 0.9


@pytest.mark.parametrize(("solver", "rows"), [("sgd", 300), ("lbfgs", 300), ("ridge", 450)])
def test_the_choice_prefers_strong_decay_on_noise_and_weak_decay_on_clean_data(solver, rows):
    """Least squares are at their worst where there are as many rows as features."""
    x, y, _, _ = digits()
    config = HeadConfig(solver=solver, learning_rates=(0.03,), weight_decays=(1e-4, 10.0))
    assert fit_linear(x, y, config=config).weight_decay == 1e-4
    noisy = torch.cat([x[:, :4], torch.randn(len(x), 400, generator=torch.Generator().manual_seed(0))], dim=1)
    assert fit_linear(noisy[:rows], (y[:rows] > 4).long(), config=config).weight_decay == 10.0


@pytest.mark.parametrize("solver", SOLVERS)
def test_linear_head_is_a_function_of_its_seed(solver):
    x, y, _, _ = digits()
    x, y = x[:300], y[:300]
    config = HeadConfig(solver=solver, weight_decays=(1e-2,))
    assert same(fit_linear(x, y, config=config), fit_linear(x, y, config=config))
    if solver == "sgd":  # the others' seed is of the choice alone
        assert not same(fit_linear(x, y, config=config), fit_linear(x, y, config=replace(config, seed=1)))


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_choice_is_made_on_training_rows_that_no_candidate_saw(solver):
    """With held-out pictures of other classes, the good setting looks bad: it was not fitted to them."""
    x, y, _, _ = digits()
    x, y = x[:300], y[:300]
    config = HeadConfig(solver=solver, learning_rates=(0.03,), weight_decays=(1e-3, 1e3))
    out = held_out(y, fraction=config.held_out, seed=config.seed)
    assert (out.shape, int(out.sum())) == (y.shape, 30)
    assert fit_linear(x, y, config=config).weight_decay == 1e-3
    others = [next(row for row in (~out).nonzero()[:, 0] if y[row] == (label + 1) % 10) for label in y[out]]
    x[out] = x[torch.stack(others)]
    assert fit_linear(x, y, config=config).weight_decay == 1e3


@pytest.mark.parametrize("solver", SOLVERS)
def test_half_precision_features_are_read_as_they_are(solver):
    x, y, test_x, _ = digits()  # 0 to 16: whole numbers in both precisions
    config = HeadConfig(solver=solver, weight_decays=(1e-2,), epochs=2)
    half, full = (fit_linear(each, y, config=config) for each in (x.half(), x))
    assert same(half, full)
    assert torch.equal(half.logits(test_x.half()), full.logits(test_x))


def test_logits_of_parts_are_those_of_the_whole():
    x, y, test_x, _ = digits()
    head = fit_linear(x[:300], y[:300])
    whole = head.standardise(test_x) @ head.weight + head.bias
    for batch in (1, 100, 10_000):
        torch.testing.assert_close(head.logits(test_x.half(), batch=batch), whole)
        assert torch.equal(head.predict(test_x, batch=batch), head.classes[whole.argmax(1)])
    assert head.logits(test_x[:0]).shape == (0, 10)
    assert head.ranked(test_x[:0], 5).shape == (0, 5)


MEASURE = """
import torch
from xclr.evaluation.heads import HeadConfig, fit_linear
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
x = torch.empty(60_000, 128, dtype=torch.float16)
for part in x.split(8192):
    part.copy_(torch.randn(part.shape, generator=generator))
y = torch.randint(0, 10, (len(x),), generator=generator)
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
for solver in ("sgd", "lbfgs", "ridge"):
    config = HeadConfig(solver=solver, learning_rates=(0.03,), weight_decays=(1e-3,), epochs=1, refit_epochs=1,
                        min_steps=1, iterations=2)
    fit_linear(x[:5000], y[:5000], config=config)
    open("/proc/self/clear_refs", "w").write("5")
    before = kilobytes("VmRSS")
    fit_linear(x, y, config=config)
    print((kilobytes("VmHWM") - before) * 1024 / (4 * x.numel()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from /proc")
def test_big_features_are_never_copied_twice():
    """The memory that a fit takes beside 15 MB of float16 features, in copies of them in float32."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}  # what is freed leaves the process
    command = [sys.executable, "-c", MEASURE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    sgd, lbfgs, ridge = (float(line) for line in done.stdout.split())
    assert 0.9 < sgd < 1.7
    assert 0.9 < lbfgs < 1.7
    assert ridge < 1.2


def test_a_head_is_stored_without_pickles_and_comes_back_as_it_was(tmp_path):
    x, y, _, _ = digits()
    head = fit_linear(x[:300], y[:300])
    save_head(head, tmp_path / "head.pt")
    assert same(load_head(tmp_path / "head.pt"), head)
    assert all(isinstance(each, torch.Tensor | float) for each in torch.load(tmp_path / "head.pt").values())
    torch.save({"weight": head.weight}, tmp_path / "other.pt")
    with pytest.raises(DataError, match=r"other\.pt does not hold a linear head"):
        load_head(tmp_path / "other.pt")


def test_a_head_can_be_asked_about_some_classes_alone():
    x, y, test_x, _ = digits()
    head = fit_linear(x[:400], y[:400])
    few = head.only(torch.tensor([7, 2, 4, 99]))
    assert few.classes.tolist() == [2, 4, 7]
    torch.testing.assert_close(few.logits(test_x), head.logits(test_x)[:, [2, 4, 7]])
    assert few.ranked(test_x, 5).shape == (len(test_x), 3)


def test_classes_keep_their_numbers_and_rank_best_first():
    x, y, test_x, _ = digits()
    head = fit_linear(x[:400], 10 * y[:400] + 3)
    assert head.classes.tolist() == list(range(3, 100, 10))
    ranked = head.ranked(test_x, 5)
    assert ranked.shape == (len(test_x), 5)
    assert torch.equal(ranked[:, 0], head.predict(test_x))
    assert head.ranked(test_x, 50).shape == (len(test_x), 10)


@pytest.mark.slow
def test_constant_and_huge_features_do_no_harm():
    x, y, test_x, test_y = digits()
    more = torch.full((len(x), 2), 1e4)
    head = fit_linear(torch.cat([x * 1e3, more], 1), y)
    shifted = torch.cat([test_x * 1e3, torch.full((len(test_x), 2), 1e4) + 1], 1)
    assert accuracy(head.predict(shifted), test_y) == pytest.approx(
        accuracy(fit_linear(x, y).predict(test_x), test_y), abs=0.01
    )


def test_a_learning_rate_that_diverges_harms_no_other():
    x, y, test_x, test_y = digits()
    head = fit_linear(x, y, config=HeadConfig(learning_rates=(1e6, 0.03)))
    assert head.learning_rate == pytest.approx(0.03)
    assert accuracy(head.predict(test_x), test_y) > 0.94


def test_a_head_without_numbers_is_never_chosen_even_where_its_answer_is_right():
    x, _, _, _ = digits()
    rare = (torch.arange(400) % 50 == 0).long()  # the first class is the answer of both
    head = fit_linear(x[:400], rare, config=HeadConfig(learning_rates=(1e37, 0.03), weight_decays=(1.0,)))
    assert head.learning_rate == pytest.approx(0.03)


@pytest.mark.parametrize("solver", SOLVERS)
def test_one_class_and_two_rows_can_be_fitted_and_one_row_cannot(solver):
    config = HeadConfig(solver=solver)
    one = fit_linear(torch.eye(3), torch.full((3,), 7), config=config)
    assert one.predict(torch.eye(3)).tolist() == [7, 7, 7]
    two = fit_linear(torch.eye(2), torch.tensor([4, 5]), config=config)
    assert two.predict(torch.eye(2)).tolist() == [4, 5]
    with pytest.raises(DataError, match="1 training"):
        fit_linear(torch.eye(1), torch.tensor([0]), config=config)


def test_where_few_rows_are_held_out_the_choice_is_made_on_several_splits():
    config = HeadConfig(crossed=True)
    found = {rows: splits_for(rows, config) for rows in (2, 30, 137, 290, 500, 995, 50_000)}
    assert found == {2: 10, 30: 10, 137: 3, 290: 2, 500: 1, 995: 1, 50_000: 1}
    assert splits_for(30, HeadConfig()) == splits_for(1, config) == 1


def test_a_choice_on_several_splits_is_better_where_there_are_few_rows_and_the_same_where_there_are_many():
    """The mean accuracy on other rows of 20 draws of 60 rows, by the settings that either way chooses."""
    single = HeadConfig(solver="ridge", weight_decays=tuple(10.0 ** np.arange(-4, 3)), epochs=1)
    crossed = replace(single, crossed=True)
    right = {single: [], crossed: []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(4, 40)) * 0.5
        labels = torch.from_numpy(rng.integers(4, size=2_060))
        features = torch.from_numpy(centres[labels] + rng.normal(size=(2_060, 40))).float()
        for config, found in right.items():
            head = fit_linear(features[:60], labels[:60], config=replace(config, seed=seed))
            found.append((head.predict(features[60:]) == labels[60:]).double().mean().item())
    assert np.mean(right[crossed]) > np.mean(right[single]) + 0.01
    many = [fit_linear(features, labels, config=each) for each in (single, crossed)]
    assert torch.equal(many[0].weight, many[1].weight)


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
