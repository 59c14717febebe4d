"""Queries against a queue of keys: beside a peer, by hand, and at their limits."""

import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss

from tests.kit.batches import unit_rows
from xclr.objective import Draws, Queued, contrastive, mix_negatives, moco_loss, own_and_queue, ressl_loss, with_mixed

B, K, D, TAU = 6, 15, 5, 0.2
NOBODY = torch.zeros(B, K, dtype=torch.bool)


@pytest.fixture
def queued():
    queries, keys, queue = unit_rows(B, D, seed=0), unit_rows(B, D, seed=1), unit_rows(K, D, seed=2)
    return Queued(queries.requires_grad_(), keys, queue, NOBODY)


def draws_of(b=B, among=4, pairs=7, with_query=3, seed=0):
    torch.manual_seed(seed)
    return Draws.make(b, among, pairs, with_query, torch.device("cpu"))


def test_moco_has_the_value_and_gradient_of_lightlys_loss_with_a_memory_bank(queued):
    peer = NTXentLoss(temperature=TAU, memory_bank_size=(K, D))
    queued = queued._replace(keys=queued.keys.float(), queue=queued.queue.float())
    x = queued.queries.detach().float().requires_grad_()
    peer.memory_bank.bank = queued.queue.clone()
    expected = peer(x, queued.keys.requires_grad_())
    loss = moco_loss(own_and_queue(queued._replace(queries=F.normalize(x)), temperature=TAU))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, x)[0] for each in (loss, expected)))


def test_a_key_of_the_own_picture_is_no_negative(queued):
    own = NOBODY.clone()
    own[2, 3] = own[2, 7] = own[4, 0] = True
    logits = own_and_queue(queued._replace(own=own), temperature=TAU)
    assert logits.isfinite().sum(1).tolist() == [16, 16, 14, 16, 15, 16]
    expected = []
    for i in range(B):
        rest = queued.queue[~own[i]]
        own_row = torch.cat([queued.keys[i][None], rest]) @ queued.queries[i] / TAU
        expected.append(own_row.logsumexp(0) - own_row[0])
    torch.testing.assert_close(moco_loss(logits), torch.stack(expected).mean())


def test_two_by_hand():
    """Orthogonal keys: the own key at cosine 1, one negative at 0 and one at -1."""
    queue = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    one = torch.tensor([[1.0, 0.0]])
    queued = Queued(one, one, queue, torch.zeros(1, 2, dtype=torch.bool))
    loss = moco_loss(own_and_queue(queued, temperature=0.5))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2) + math.exp(-4)), rel=1e-6)
    found, targets = ressl_loss(queued, temperature=1.0, target_temperature=0.5)
    assert targets[0].tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(2))], rel=1e-6)
    by_hand = targets[0, 0] * math.log(1 + math.exp(-1)) + targets[0, 1] * (1 + math.log(1 + math.exp(-1)))
    assert found.item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_ressl_is_its_formula_in_value_and_gradient(queued):
    loss, targets = ressl_loss(queued, temperature=0.1, target_temperature=0.04)
    shares = (queued.keys @ queued.queue.T / 0.04).softmax(1)
    expected = F.cross_entropy(queued.queries @ queued.queue.T / 0.1, shares)
    torch.testing.assert_close(targets, shares)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, queued.queries)[0] for each in (loss, expected)))


def test_ressl_of_equal_networks_and_temperatures_is_the_entropy_of_its_targets(queued):
    own = NOBODY.clone()
    own[1, 1:9] = True
    same = queued._replace(keys=queued.queries.detach(), own=own)
    loss, targets = ressl_loss(same, temperature=0.1, target_temperature=0.1)
    torch.testing.assert_close(loss, torch.special.entr(targets).sum(1).mean())
    assert targets[1, 1:9].abs().max() == 0
    torch.testing.assert_close(targets.sum(1), torch.ones(B, dtype=torch.float64))


def test_mixed_negatives_are_those_of_their_paper(queued):
    own = NOBODY.clone()
    nearest = (queued.queries @ queued.queue.T).argmax(1)
    own[torch.arange(B), nearest] = True
    draws = draws_of()
    mixed = mix_negatives(queued._replace(own=own), hardest=4, draws=draws)
    assert mixed.shape == (B, 10, D) and not mixed.requires_grad
    torch.testing.assert_close(mixed.norm(dim=2), torch.ones(B, 10, dtype=torch.float64))
    for i in range(B):
        alike = queued.queue @ queued.queries[i]
        ranked = alike.argsort(descending=True)[1:5]  # the nearest is of the own picture
        for s in range(7):
            a = draws.share[i, s]
            both = a * queued.queue[ranked[draws.first[i, s]]] + (1 - a) * queued.queue[ranked[draws.second[i, s]]]
            torch.testing.assert_close(mixed[i, s], F.normalize(both, dim=0))
        for t in range(3):
            c = draws.query_share[i, t] / 2
            both = c * queued.queries[i] + (1 - c) * queued.queue[ranked[draws.third[i, t]]]
            torch.testing.assert_close(mixed[i, 7 + t], F.normalize(both, dim=0))


def test_a_negative_mixed_with_the_query_is_nearer_to_the_negative(queued):
    draws = draws_of(pairs=0, with_query=200)
    mixed = mix_negatives(queued, hardest=4, draws=draws)
    near = queued.queue[(queued.queries @ queued.queue.T).topk(4).indices].take_along_dim(draws.third[:, :, None], 1)
    to_query = torch.einsum("bd,bmd->bm", queued.queries, mixed)
    assert (to_query <= (mixed * near).sum(2) + 1e-12).all() and to_query.max() > 0.5


def test_mochi_without_mixed_negatives_is_moco_and_with_them_has_their_gradient_too(queued):
    logits = own_and_queue(queued, temperature=TAU)
    mixed = mix_negatives(queued, hardest=4, draws=draws_of())
    none = mix_negatives(queued, hardest=4, draws=draws_of(pairs=0, with_query=0))
    for negatives, counts in ((mixed, False), (none, True)):
        same = with_mixed(logits, queued.queries, negatives, temperature=TAU, counts=torch.tensor(counts))
        assert torch.equal(moco_loss(same), moco_loss(logits))
    loss = moco_loss(with_mixed(logits, queued.queries, mixed, temperature=TAU, counts=torch.tensor(True)))
    every = torch.cat([queued.keys[:, None], queued.queue.expand(B, K, D), mixed], 1)
    targets = torch.zeros(B, K + 11, dtype=torch.float64)
    targets[:, 0] = 1
    expected = contrastive(torch.einsum("bd,bmd->bm", queued.queries, every) / TAU, targets)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, queued.queries)[0] for each in (loss, expected)))


def test_a_ranks_draws_are_those_of_one_process():
    whole, part = draws_of(), draws_of().of(torch.tensor([4, 1]))
    assert all(torch.equal(own, every[[4, 1]]) for own, every in zip(part, whole, strict=True))
    assert 0 <= whole.share.min() < whole.share.max() <= 1 and whole.first.max() == 3
