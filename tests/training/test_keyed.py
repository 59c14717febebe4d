"""Random numbers that depend on their key and row alone."""

import itertools

import pytest
import torch
from scipy.stats import kstest

from xclr.training.keyed import epoch_order, keyed_uniform

KEY = (7, 3, 1)  # seed, epoch, view


def correlation(a, b):
    return torch.corrcoef(torch.stack((a.flatten(), b.flatten()))).abs()[0, 1].item()


def test_numbers_do_not_depend_on_how_the_rows_are_split():
    rows = torch.arange(1000)
    parts = [keyed_uniform(KEY, part, 20) for part in rows.split([1, 99, 400, 500])]
    assert torch.equal(torch.cat(parts), keyed_uniform(KEY, rows, 20))


def test_numbers_do_not_depend_on_the_order_of_the_rows():
    rows = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(keyed_uniform(KEY, rows, 20), keyed_uniform(KEY, torch.arange(1000), 20)[rows])


def test_a_column_does_not_depend_on_how_many_are_drawn():
    rows = torch.arange(50)
    assert torch.equal(keyed_uniform(KEY, rows, 3), keyed_uniform(KEY, rows, 20)[:, :3])


def test_the_state_of_the_global_generators_plays_no_part():
    torch.manual_seed(1)
    first = keyed_uniform(KEY, torch.arange(8), 4)
    torch.manual_seed(2)
    assert torch.equal(first, keyed_uniform(KEY, torch.arange(8), 4))


@pytest.mark.parametrize("shape", [(5_000, 20), (100_000, 1), (1, 100_000)], ids=["views", "one column", "one row"])
@pytest.mark.parametrize("key", [KEY, (0, 0, 0)], ids=["key", "zeros"])
def test_numbers_are_uniform_on_the_unit_interval(shape, key):
    u = keyed_uniform(key, torch.arange(shape[0]), shape[1])
    assert u.dtype == torch.float32 and u.shape == shape
    assert u.min() >= 0 and u.max() < 1
    assert kstest(u.double().flatten().numpy(), "uniform").pvalue > 1e-3


def test_over_many_keys_the_p_values_of_uniformity_are_uniform_themselves():
    """Sharper than one bound on each: neither too far from uniform nor too close."""
    drawn = [keyed_uniform((seed, epoch, 0), torch.arange(5_000), 4) for seed in range(3) for epoch in range(8)]
    p = [kstest(column.double().numpy(), "uniform").pvalue for u in drawn for column in u.T]
    assert kstest(p, "uniform").pvalue > 0.01


@pytest.mark.parametrize("other", [(8, 3, 1), (7, 4, 1), (7, 3, 0), (3, 7, 1), (7, 1, 3), (7,)])
def test_another_seed_epoch_or_view_gives_unrelated_numbers(other):
    rows = torch.arange(5_000)
    a, b = keyed_uniform(KEY, rows, 4), keyed_uniform(other, rows, 4)
    assert (a == b).float().mean() < 1e-3
    assert correlation(a, b) < 0.03


def test_neighbouring_seeds_epochs_views_rows_and_columns_never_share_numbers():
    """All keys of a short training from seed 0, where a weak mix would show first."""
    keys = itertools.product(range(3), range(4), range(2))
    drawn = torch.cat([keyed_uniform(key, torch.arange(40), 20).flatten() for key in keys])
    pairs = drawn.view(-1, 2).double()  # 24 bits each: two in a row name a place in the sequence
    assert len(pairs.unique(dim=0)) == len(pairs)


def test_columns_and_neighbouring_rows_are_uncorrelated():
    u = keyed_uniform(KEY, torch.arange(10_000), 20)
    off_diagonal = torch.corrcoef(u.T) - torch.eye(20)
    assert off_diagonal.abs().max() < 0.05
    assert correlation(u[1:], u[:-1]) < 0.02


@pytest.mark.parametrize("n", [1, 2, 257])
def test_an_epochs_order_is_a_permutation(n):
    order = epoch_order(0, 0, n)
    assert order.dtype == torch.int64
    assert order.sort().values.tolist() == list(range(n))


def test_an_epochs_order_is_fixed_by_seed_and_epoch():
    orders = {place: epoch_order(*place, 300) for place in itertools.product(range(3), range(3))}
    assert all(torch.equal(order, epoch_order(*place, 300)) for place, order in orders.items())
    assert all(not torch.equal(orders[a], orders[b]) for a, b in itertools.combinations(orders, 2))
