"""A training that does not learn is noticed; one that cannot learn any more is ended, a control never."""

from __future__ import annotations

import math

import pytest
import torch

from tests.kit.home import TRAIN, build
from tests.kit.stages import no_progress
from xclr.errors import JobError
from xclr.recipe import CLIPConfig, load_recipe
from xclr.training import fit, open_batches, watch
from xclr.training.loop import with_unlearned
from xclr.training.watch import FOR_STEPS, NOTICES, Watch, read_notices, signs

WARMUP, EVERY = 100, 50
FINE = {"train/unlearned": 0.5, "train/uniformity": -2.0, "train/temperature": 0.05}
CASES = {
    "nothing is learned": {"train/unlearned": 0.995},
    "the same features": {"train/uniformity": 0.0},
    "lower limit of 1": {"train/temperature": 1.0},
    "upper limit of 100": {"train/temperature": 0.01},
}
DEAD = {"the same features", "lower limit of 1"}


def watching(stop_dead: bool = False, most: float | None = 100.0) -> Watch:
    return Watch(signs(most), WARMUP, stop_dead)


def show(watcher: Watch, metrics: dict[str, float], start: int, stop: int) -> list[tuple[int, str]]:
    """What is said at which of the logged steps from start to stop."""
    return [(step, each) for step in range(start, stop + 1, EVERY) for each in watcher(step, FINE | metrics)]


@pytest.mark.parametrize("words", CASES)
def test_what_holds_five_hundred_steps_after_the_warm_up_is_said_once_with_its_remedy(words):
    watcher = watching()
    said = show(watcher, CASES[words], EVERY, 2000)
    ((step, notice),) = said
    assert step == WARMUP + EVERY + FOR_STEPS
    assert words in notice and f"from step {WARMUP + EVERY} to {step}" in notice and "; " in notice


@pytest.mark.parametrize("words", CASES)
def test_one_better_step_begins_the_count_anew(words):
    watcher = watching()
    assert not show(watcher, CASES[words], EVERY, 600)
    assert not watcher(650, FINE)
    ((step, _),) = show(watcher, CASES[words], 700, 2000)
    assert step == 700 + FOR_STEPS


@pytest.mark.parametrize("words", CASES)
def test_only_what_cannot_recover_is_ended(words):
    watcher = watching(stop_dead=True)
    if words in DEAD:
        with pytest.raises(JobError, match=words) as caught:
            show(watcher, CASES[words], EVERY, 2000)
        assert "train.stop_dead=false" in caught.value.remedy and "lower" in caught.value.remedy
    else:
        assert len(show(watcher, CASES[words], EVERY, 2000)) == 1


def test_a_fixed_temperature_is_no_scale_at_its_limit():
    assert not show(watching(most=None), {"train/temperature": 1.0}, EVERY, 2000)


@pytest.mark.parametrize("entropy", [0.0, 2.0])
def test_unlearned_is_one_at_chance_and_nought_where_the_targets_are_met(entropy):
    chance = math.log(64)
    for share in (0.0, 0.25, 1.0, 1.2):
        loss = entropy + share * (chance - entropy)
        metrics = with_unlearned({"train/loss": loss, "train/target_entropy": entropy}, chance)
        assert metrics["train/unlearned"] == pytest.approx(share)
    flat = {"train/loss": chance, "train/target_entropy": chance}
    assert with_unlearned(flat, chance) == flat, "targets that ask for nothing are met by constant features"


@pytest.fixture
def idle(home, monkeypatch):
    """Fit CLIP whose pictures are all one to its head; what holds for ten steps is noticed."""
    monkeypatch.setattr(watch, "FOR_STEPS", 10)
    batches = open_batches(home.paths["captions"], home.paths["images"], TRAIN, 0)
    assert TRAIN.epochs * batches.steps_per_epoch == 16

    def run(out, *, stop_dead, progress=no_progress):
        config = TRAIN.model_copy(update={"stop_dead": stop_dead, "learning_rate": 1e-9, "checkpoint_every": 1})
        model = build(CLIPConfig(), home.paths, config)
        for parameter in model.objective.towers.head.parameters():
            torch.nn.init.zeros_(parameter)
        return fit(config, batches, model, out, progress)

    return run


@pytest.mark.slow
def test_a_notice_stands_in_the_log_beside_the_spool_and_in_the_stats(idle, tmp_path, capsys):
    stats, log = idle(tmp_path, stop_dead=False), capsys.readouterr().out
    notices = read_notices(tmp_path).splitlines()
    assert [words for words in CASES if any(words in each for each in notices)] == list(CASES)[:2]
    assert stats["notices"].splitlines() == notices
    assert all(log.count(f"warning: {each}") == 1 for each in notices)


def test_a_dead_training_is_ended(idle, tmp_path):
    with pytest.raises(JobError, match="all pictures have the same features, from step 2 to 12"):
        idle(tmp_path, stop_dead=True)


def test_a_resumed_training_knows_what_was_seen_before(idle, tmp_path):
    def stop(step, steps):
        if step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        idle(tmp_path, stop_dead=False, progress=stop)
    (tmp_path / NOTICES).unlink()
    stats = idle(tmp_path, stop_dead=False)
    assert "from step 2 to 12" in stats["notices"] and read_notices(tmp_path) == stats["notices"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "simclr"])
def test_clip_learns_with_the_optimisers_of_the_cc_recipes(home, tmp_path, name):
    """CLIP's own, and LARS as for the others, by whose peak rate of 3.2 its scale once fell to nothing in ten steps."""
    recipe = load_recipe("cc3m")
    theirs = next(each for each in recipe.objectives if each.name == name).trained(recipe.train)
    rate = {"learning_rate": theirs.peak_rate, "lr_rule": "absolute"}  # of their batch
    like_cc = {key: getattr(theirs, key) for key in ("optimizer", "betas", "weight_decay", "warmup_fraction")} | rate
    network = {"width": 8, "image_size": 24, "projector_hidden": 128, "projector_out": 64}
    config = TRAIN.model_copy(update=like_cc | network | {"batch_size": 64, "epochs": 24, "checkpoint_every": 1000})
    batches = open_batches(home.paths["captions"], home.paths["images"], config, 0)
    stats = fit(config, batches, build(CLIPConfig(), home.paths, config), tmp_path, no_progress)
    assert stats["train/loss"] < 0.9 * math.log(64) and stats["train/unlearned"] < 0.9
    assert 0.01 < stats["train/temperature"] < 1
