"""Jobs of one and two ranks that are killed, stopped, stuck or damaged go on as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.home import RECIPE, TRAIN, training_data
from xclr.job import FAILURE, RESULT, Failure
from xclr.recipe import TargetGraph, XCLRConfig
from xclr.spool import SPOOL, read_spool
from xclr.training import checkpoint
from xclr.training import stages as training_stages

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
CONFIG = TRAIN.model_copy(update={"epochs": 6, "checkpoint_every": 4, "stuck_after_s": 4})


@pytest.fixture(scope="module")
def stage(home):
    return training_stages.pretrain(
        RECIPE.model_copy(update={"train": CONFIG}), XCLRConfig(graph=TargetGraph()), 0, training_data(home.artifacts)
    )


def start(stage, out, world, attempt=0):
    """The ranks of a job, as processes."""
    out.mkdir(exist_ok=True)
    path = out / "stage.json"
    path.write_text(stage.to_json())
    ranks = []
    for rank in range(world):
        environment = os.environ | {
            "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "XCLR_THREADS": "1",
            "XCLR_RENDEZVOUS": f"file://{out}/.meeting-{attempt}", "GLOO_SOCKET_IFNAME": "lo",
        }  # fmt: skip
        log = (out / f"rank{rank}.log").open("a")
        command = [sys.executable, "-m", "xclr.job", str(path), str(out)]
        ranks.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
    return ranks


def said(out):
    """Lines of the spool so far."""
    path = out / SPOOL
    return path.read_bytes().count(b"\n") if path.exists() else 0


def until(ranks, out, step):
    """Wait until a step was logged."""
    deadline = time.monotonic() + 120
    while said(out) < step:
        assert time.monotonic() < deadline and ranks[0].poll() is None, (out / "rank0.log").read_text()
        time.sleep(0.002)


def finish(ranks):
    return [each.wait(timeout=120) for each in ranks]


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
        assert finish(start(stage, out, world)) == [0] * world, (out / "rank0.log").read_text()
        found[world] = losses(out)
    return found


@pytest.mark.parametrize("world", [1, 2])
def test_after_a_kill_at_a_random_step_the_losses_are_those_of_the_uninterrupted_job(stage, whole, tmp_path, world):
    step = random.SystemRandom().randrange(5, len(whole[world]) - 3)
    print(f"killed after step {step}")
    ranks = start(stage, tmp_path, world)
    until(ranks, tmp_path, step)
    for each in ranks:
        each.kill()
    finish(ranks)
    assert not (tmp_path / RESULT).exists()
    assert finish(start(stage, tmp_path, world, attempt=1)) == [0] * world, (tmp_path / "rank0.log").read_text()
    assert losses(tmp_path) == whole[world]


def test_two_ranks_are_continued_by_one_with_the_same_losses(stage, whole, tmp_path):
    ranks = start(stage, tmp_path, 2)
    until(ranks, tmp_path, 9)
    for each in ranks:
        each.kill()
    finish(ranks)
    assert finish(start(stage, tmp_path, 1, attempt=1)) == [0]
    found = losses(tmp_path)
    assert found[:30] == pytest.approx(whole[2][:30], rel=1e-5)
    assert found == pytest.approx(whole[2], rel=1e-4)  # AdamW lets rounding grow from step to step


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_to_one_rank_stops_all_after_a_checkpoint(stage, whole, tmp_path, number):
    ranks = start(stage, tmp_path, 2)
    until(ranks, tmp_path, 6)
    ranks[1].send_signal(number)
    assert finish(ranks) == [4, 4]
    assert not (tmp_path / FAILURE).exists() and not (tmp_path / RESULT).exists()
    left = checkpoint.latest(tmp_path / "checkpoints")
    assert left.step == said(tmp_path) < len(whole[2])
    assert finish(start(stage, tmp_path, 2, attempt=1)) == [0, 0]
    assert losses(tmp_path) == whole[2]


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(stage, whole, tmp_path):
    ranks = start(stage, tmp_path, 1)
    until(ranks, tmp_path, 13)
    ranks[0].kill()
    finish(ranks)
    newest = checkpoint.latest(tmp_path / "checkpoints")
    newest.path.write_bytes(newest.path.read_bytes()[:-100])
    assert finish(start(stage, tmp_path, 1)) == [0]
    assert f"{newest.path} is damaged" in (tmp_path / "rank0.log").read_text()
    assert losses(tmp_path) == whole[1]


@pytest.mark.parametrize("later_s", [0, 0.012])  # at the boundary of two steps, mostly, and within one
def test_a_stuck_rank_is_named_and_the_others_end(later_s, stage, tmp_path):
    ranks = start(stage, tmp_path, 2)
    until(ranks, tmp_path, 5)
    time.sleep(later_s)
    ranks[1].send_signal(signal.SIGSTOP)
    try:
        assert ranks[0].wait(timeout=60) == 1
    finally:
        ranks[1].kill()
    failure = Failure.model_validate(json.loads((tmp_path / FAILURE).read_text()))
    assert "rank 1 did not come to step" in failure.message and "within 4 s" in failure.message
    assert "last checkpoint" in failure.remedy
    assert checkpoint.latest(tmp_path / "checkpoints").step >= 4
