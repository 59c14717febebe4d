"""Training on two processes is training on one: the same losses, the same weights, one set of checkpoints."""

from functools import partial

import pytest
import torch

from tests.kit.home import TRAIN, build, make_home, one_thread
from tests.kit.ranks import run_on_ranks
from xclr.errors import RecipeError, Stopped
from xclr.recipe import CLIPConfig, XCLRConfig
from xclr.training import PictureBatches, checkpoint, train
from xclr.training.norm import SyncBatchNorm
from xclr.training.ranks import AGREED_EVERY

pytestmark = pytest.mark.slow
WORLD, STEPS = 2, 5
CONFIG = TRAIN.model_copy(update={"learning_rate": 1e-3, "epochs": 1})
BLOCKS = CONFIG.model_copy(update={"micro_batch": 4, "precision": "float16"})  # the losses are scaled too
TWICE = CONFIG.model_copy(update={"activation_checkpointing": True})
OBJECTIVES = {"xclr": XCLRConfig(), "clip": CLIPConfig(), "clip frozen": CLIPConfig(text="frozen")}


class FirstSteps(PictureBatches):
    """The beginning of an epoch, so that the run is short."""

    @property
    def steps_per_epoch(self):
        return STEPS


def never():
    return False


def open_batches(paths, config=CONFIG):
    return FirstSteps.open(paths["captions"], paths["images"], config, seed=0)


def trained(name, paths, out, should_stop=never, config=CONFIG):
    """The losses of all steps, the final weights and buffers."""
    model, losses = build(OBJECTIVES[name], paths, config), []
    train(
        config,
        open_batches(paths),
        model,
        out=out,
        resume=None,
        should_stop=should_stop,
        log=lambda step, metrics: losses.append(metrics["train/loss"]),
    )
    return {"loss": torch.tensor(losses, dtype=torch.float64), "state": model.state_dict(), "norms": norms(model)}


def norms(model):
    """How many normalisations go over all ranks."""
    return torch.tensor([isinstance(each, SyncBatchNorm) for each in model.modules()]).sum()


def on_a_rank(paths, folder, rank, world):
    results = {name: trained(name, paths, folder / f"{name} {rank}") for name in OBJECTIVES}
    results["twice"] = trained("xclr", paths, folder / f"twice {rank}", config=TWICE)
    results["blocks"] = trained("clip", paths, folder / f"blocks {rank}", config=BLOCKS)
    results["stopped"] = stopped(paths, folder / f"stopped {rank}", rank)
    results["refused"] = torch.tensor(refuses_an_odd_batch(paths, folder))
    return results


def stopped(paths, out, rank):
    """The second rank alone is asked to stop, after its third step; how often each was asked."""
    asked = []

    def should_stop():
        asked.append(rank)
        return rank == 1 and len(asked) == 3

    try:
        trained("xclr", paths, out, should_stop)
    except Stopped:
        return torch.tensor(len(asked))
    return torch.tensor(-1)


def refuses_an_odd_batch(paths, folder):
    config = CONFIG.model_copy(update={"batch_size": 31})
    model = build(XCLRConfig(), paths, config)
    data = open_batches(paths, config)
    try:
        train(config, data, model, out=folder, resume=None, should_stop=never, log=lambda step, metrics: None)
    except RecipeError as error:
        return "31 cannot be shared by 2" in str(error)
    return False


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home")).paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def ranks(paths, folder):
    return run_on_ranks(partial(on_a_rank, paths, folder), WORLD, folder)


@pytest.fixture(scope="module")
def single(paths, tmp_path_factory):
    out = tmp_path_factory.mktemp("single")
    with one_thread():
        return {name: trained(name, paths, out / name) for name in OBJECTIVES}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_those_of_one_process(ranks, single, name):
    expected = single[name]["loss"]
    assert len(expected) == STEPS and expected.std() > 1e-3
    for rank in ranks:
        torch.testing.assert_close(rank[name]["loss"], expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_final_weights_and_statistics_are_those_of_one_process(ranks, single, paths, name):
    expected, start = single[name]["state"], dict(build(OBJECTIVES[name], paths).named_parameters())
    assert min(rms(expected[key] - before) for key, before in start.items()) > 0
    assert max(rms(expected[key] - before) for key, before in start.items()) > 2e-3
    for rank in ranks:
        assert rank[name]["state"].keys() == expected.keys()
        for key, value in expected.items():
            assert rms(seen(key, rank[name]["state"][key]) - seen(key, value)) < 1e-4, key


def rms(difference):
    """Root mean square: AdamW takes a step along the rounding error of the odd weight without a gradient."""
    return difference.double().square().mean().sqrt().item()


def seen(key, weight):
    """A weight without the bias of attention's keys, whose gradients are all zero but for rounding."""
    if not key.endswith("in_proj_bias"):
        return weight
    queries, _, values = weight.chunk(3)
    return torch.cat((queries, values))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_weights_are_bitwise_equal_on_all_ranks(ranks, name):
    first, *others = (rank[name]["state"] for rank in ranks)
    for other in others:
        assert all(torch.equal(other[key], first[key]) for key in first)


def test_every_batchnorm_goes_over_all_ranks(ranks, single):
    for rank in ranks:
        assert rank["xclr"]["norms"] == single["xclr"]["norms"] > 5


@pytest.mark.parametrize("name", OBJECTIVES)
def test_only_the_first_rank_writes_checkpoints(ranks, folder, name):
    assert checkpoint.latest(folder / f"{name} 0" / "checkpoints").step == STEPS
    assert not (folder / f"{name} 1").exists()


def test_computing_activations_twice_on_two_ranks_changes_nothing(ranks):
    for rank in ranks:
        torch.testing.assert_close(rank["twice"], rank["xclr"], rtol=1e-6, atol=1e-7)


def test_block_by_block_all_ranks_take_the_same_steps(ranks):
    first, second = (rank["blocks"] for rank in ranks)
    assert all(torch.equal(second["state"][key], each) for key, each in first["state"].items())
    torch.testing.assert_close(first["loss"], ranks[0]["clip"]["loss"], rtol=0.2, atol=0)


def test_all_ranks_stop_together_when_one_is_asked_to(ranks, folder):
    """At the next boundary at which they ask each other, although it was asked once."""
    assert [int(rank["stopped"]) for rank in ranks] == [4, 4] and 4 % AGREED_EVERY == 0
    assert checkpoint.latest(folder / "stopped 0" / "checkpoints").step == 4


def test_a_batch_that_ranks_cannot_share_is_refused(ranks):
    assert all(rank["refused"] for rank in ranks)
