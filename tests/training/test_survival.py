"""Jobs of one and two ranks that are killed, stopped, stuck or damaged go on as if nothing had happened."""

import random
import signal
from dataclasses import replace

import pytest

from tests.kit.home import RECIPE, TRAIN, training_data
from tests.kit.ranks import Pause, Ranks, after_step
from xclr.job import FAILURE, RESULT, Failure
from xclr.recipe import TargetGraph, XCLRConfig
from xclr.training import checkpoint
from xclr.training import stages as training_stages
from xclr.training.loop import Learner
from xclr.training.ranks import Boundary
from xclr.training.spool import SPOOL, read_spool

pytestmark = pytest.mark.slow
CONFIG = TRAIN.model_copy(update={"epochs": 3, "checkpoint_every": 4, "neighbourhoods": 0.5, "neighbourhood_size": 8})


@pytest.fixture(scope="module")
def stage(home):
    return training_stages.pretrain(
        RECIPE.model_copy(update={"train": CONFIG}), XCLRConfig(graph=TargetGraph()), 0, training_data(home.artifacts)
    )


def with_train(stage, **changes):
    """The same with changes to its training."""
    train = stage.config.train.model_copy(update=changes)
    return replace(stage, config=stage.config.model_copy(update={"train": train}))


def losses(out):
    entries = [(entry.step, entry.metrics["train/loss"]) for entry in read_spool(out / SPOOL)]
    assert [step for step, _ in entries] == list(range(1, len(entries) + 1))
    return [loss for _, loss in entries]


@pytest.fixture(scope="module")
def whole(stage, tmp_path_factory):
    """The losses of uninterrupted jobs, by the number of ranks."""
    found = {}
    for world in (1, 2):
        out = tmp_path_factory.mktemp(f"whole{world}")
        finish(stage, out, world)
        found[world] = losses(out)
    return found


def finish(stage, out, world, attempt=0):
    """Run a job to its end."""
    assert Ranks(stage, out, world, attempt=attempt).codes() == [0] * world, (out / "rank0.log").read_text()


def kill_after(step, stage, out, world):
    """Run a job as far as a step, and kill its ranks."""
    ranks = Ranks(stage, out, world, pause=after_step(step))
    ranks.until_paused()
    ranks.kill()
    assert ranks.codes() == [-signal.SIGKILL] * world and not (out / RESULT).exists()


@pytest.mark.parametrize("world", [1, 2])
def test_after_a_kill_at_a_random_step_the_losses_are_those_of_the_uninterrupted_job(stage, whole, tmp_path, world):
    step = random.randrange(5, len(whole[world]))
    print(f"killed after step {step}")
    kill_after(step, stage, tmp_path, world)
    assert len(losses(tmp_path)) == step
    finish(stage, tmp_path, world, attempt=1)
    assert losses(tmp_path) == whole[world]


def test_two_ranks_are_continued_by_one_with_the_same_losses(stage, whole, tmp_path):
    kill_after(9, stage, tmp_path, 2)
    finish(stage, tmp_path, 1, attempt=1)
    found = losses(tmp_path)
    assert found[:12] == pytest.approx(whole[2][:12], rel=1e-5)
    assert found == pytest.approx(whole[2], rel=1e-4)  # AdamW lets rounding grow from step to step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_to_one_rank_stops_all_after_a_checkpoint(stage, whole, tmp_path, number):
    ranks = Ranks(stage, tmp_path, 2, pause=after_step(6))
    ranks.until_paused()
    ranks.send(1, number)
    ranks.send(0, signal.SIGCONT)
    assert ranks.codes() == [4, 4]
    assert not (tmp_path / FAILURE).exists() and not (tmp_path / RESULT).exists()
    left = checkpoint.latest(tmp_path / "checkpoints")
    assert left.step == len(losses(tmp_path)) < len(whole[2])
    finish(stage, tmp_path, 2, attempt=1)
    assert losses(tmp_path) == whole[2]


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(stage, whole, tmp_path):
    kill_after(10, stage, tmp_path, 1)
    newest = checkpoint.latest(tmp_path / "checkpoints")
    newest.path.write_bytes(newest.path.read_bytes()[:-100])
    finish(stage, tmp_path, 1, attempt=1)
    assert f"{newest.path} is damaged" in (tmp_path / "rank0.log").read_text()
    assert losses(tmp_path) == whole[1]


@pytest.mark.parametrize("where", [(Boundary, "agree"), (Learner, "step")], ids=["between steps", "within a step"])
def test_a_stuck_rank_is_named_and_the_others_end(where, stage, tmp_path):
    ranks = Ranks(with_train(stage, stuck_after_s=4), tmp_path, 2, pause=Pause(1, *where, 6))
    ranks.until_paused()
    assert ranks.code(0) == 1
    ranks.kill()
    failure = Failure.model_validate_json((tmp_path / FAILURE).read_text())
    assert "rank 1 did not come to step" in failure.message and "within 4 s" in failure.message
    assert "last checkpoint" in failure.remedy
    assert checkpoint.latest(tmp_path / "checkpoints").step == 4
