"""Training: stopped, resumed and crashed runs say and do what an uninterrupted one does."""

import dataclasses
import itertools
import math
import signal

import pytest
import torch
from safetensors.torch import load_file

from tests.kit.home import EXPORTED, RECIPE, TRAIN, build, training_data
from tests.kit.stages import no_progress
from xclr.errors import JobError, RecipeError, Stopped
from xclr.recipe import CLIPConfig, RandomConfig, SimCLRConfig, XCLRConfig
from xclr.training import CHECKPOINT, Checkpoint, Pretrainer, build_backbone, checkpoint, pretrain, train
from xclr.training import stages as training_stages
from xclr.training.guard import EXPLODED, SETTLED
from xclr.training.loop import Learner, precision_of
from xclr.training.ranks import Rank
from xclr.training.spool import SPOOL, read_spool
from xclr.training.stop import StopFlag

MIDDLE = 3  # steps of the first attempt


def never():
    return False


def stop_at(step):
    """True when asked for the given time, which is after that step of an attempt."""
    asked = itertools.count(1)
    return lambda: next(asked) == step


def attempt(config, batches, model, out, *, should_stop=never, resume=None):
    """Train and return the checkpoint and {step: metrics}."""
    said = {}
    done = train(
        config,
        batches,
        model,
        out=out,
        resume=resume,
        should_stop=should_stop,
        log=lambda step, metrics: said.update({step: metrics}),
    )
    return done, said


def losses(said):
    return {step: metrics["train/loss"] for step, metrics in said.items()}


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def steps(batches):
    return TRAIN.epochs * batches.steps_per_epoch


@pytest.mark.parametrize("objective", [SimCLRConfig(), CLIPConfig()], ids=lambda each: each.name)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
@pytest.mark.slow
def test_a_stopped_and_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    home, batches, steps, tmp_path, objective, optimizer
):
    config = TRAIN.model_copy(update={"optimizer": optimizer})
    whole, expected = attempt(config, batches, build(objective, home.paths, config), tmp_path / "whole")
    assert whole.step == steps and list(expected) == list(range(1, steps + 1))

    said = {}
    with pytest.raises(Stopped, match=f"after step {MIDDLE} of {steps}"):
        train(
            config,
            batches,
            build(objective, home.paths, config),
            out=tmp_path / "parts",
            resume=None,
            should_stop=stop_at(MIDDLE),
            log=lambda step, metrics: said.update({step: metrics}),
        )
    left = checkpoint.latest(tmp_path / "parts" / "checkpoints")
    assert left.step == MIDDLE and list(said) == list(range(1, MIDDLE + 1))

    other_weights = build(objective, home.paths, config, seed=99)  # all of it must come from the checkpoint
    done, more = attempt(config, batches, other_weights, tmp_path / "parts", resume=left)
    assert list(more) == list(range(MIDDLE + 1, steps + 1))
    assert losses(said | more) == losses(expected)
    assert [each["train/learning_rate"] for each in (said | more).values()] == [
        each["train/learning_rate"] for each in expected.values()
    ]
    torch.testing.assert_close(checkpoint.load(done)["model"], checkpoint.load(whole)["model"], rtol=0, atol=0)


def test_training_learns(home, batches, tmp_path):
    config = TRAIN.model_copy(update={"epochs": 6})
    _, said = attempt(config, batches, build(SimCLRConfig(), home.paths, config), tmp_path)
    values = list(losses(said).values())
    assert sum(values[-4:]) < sum(values[:4]) - 0.4


def test_metrics_have_the_names_and_values_of_the_tracker(home, batches, steps, tmp_path):
    _, said = attempt(TRAIN, batches, build(XCLRConfig(), home.paths), tmp_path)
    names = (
        "loss", "learning_rate", "epoch", "gradient_norm", "images_per_s", "data_wait", "memory_gb",
        "temperature", "target_entropy", "positive_mass", "alignment", "uniformity", "unlearned",
    )  # fmt: skip
    assert all(set(metrics) == {f"train/{name}" for name in names} for metrics in said.values())
    assert said[steps]["train/epoch"] == TRAIN.epochs
    assert said[batches.steps_per_epoch]["train/epoch"] == 1
    assert all(metrics["train/images_per_s"] > 0 for metrics in said.values())
    assert all(0 <= metrics["train/data_wait"] <= 1 for metrics in said.values())
    assert all(metrics["train/memory_gb"] > 0.05 and metrics["train/gradient_norm"] > 0 for metrics in said.values())


def test_metrics_are_said_at_the_interval_and_at_the_end(home, batches, steps, tmp_path):
    config = TRAIN.model_copy(update={"log_every": 3})
    _, said = attempt(config, batches, build(SimCLRConfig(), home.paths), tmp_path)
    assert list(said) == sorted({*range(3, steps + 1, 3), steps})


def test_intervals_of_logging_and_checkpoints_change_no_weight(home, batches, tmp_path):
    """They stay out of the digest."""
    often = TRAIN.model_copy(update={"log_every": 1, "checkpoint_every": 1})
    rarely = TRAIN.model_copy(update={"log_every": 100, "checkpoint_every": 100})
    states = [
        checkpoint.load(attempt(config, batches, build(SimCLRConfig(), home.paths), tmp_path / name)[0])["model"]
        for name, config in (("often", often), ("rarely", rarely))
    ]
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_checkpoints_are_written_at_their_interval_and_two_are_kept(home, batches, steps, tmp_path):
    config, seen = TRAIN.model_copy(update={"checkpoint_every": 2}), {}

    def log(step, metrics):
        found = checkpoint.latest(tmp_path / "checkpoints")
        seen[step] = found.step if found else 0

    train(
        config,
        batches,
        build(SimCLRConfig(), home.paths),
        out=tmp_path,
        resume=None,
        should_stop=never,
        log=log,
    )
    assert seen == {step: (step - 1) // 2 * 2 for step in range(1, steps + 1)}
    assert files(tmp_path) == ["checkpoints"] and 2 <= len(list((tmp_path / "checkpoints").glob("*.pt"))) <= 3


def test_a_stop_at_the_last_step_is_a_finished_training(home, batches, steps, tmp_path):
    done, _ = attempt(TRAIN, batches, build(SimCLRConfig(), home.paths), tmp_path, should_stop=stop_at(steps))
    assert done.step == steps and done.path.exists()


@pytest.mark.slow
def test_resuming_a_finished_training_does_nothing_more(home, batches, tmp_path):
    done, _ = attempt(TRAIN, batches, build(SimCLRConfig(), home.paths), tmp_path)
    again, said = attempt(TRAIN, batches, build(SimCLRConfig(), home.paths, seed=5), tmp_path, resume=done)
    assert again == done and said == {}


def test_a_loss_that_is_not_finite_ends_the_training_and_spoils_no_checkpoint(home, batches, tmp_path):
    config = TRAIN.model_copy(update={"optimizer": "sgd", "learning_rate": 1e30, "checkpoint_every": 1})
    said = {}
    with pytest.raises(JobError, match="not finite") as caught:
        train(
            config,
            batches,
            build(SimCLRConfig(), home.paths, config),
            out=tmp_path,
            resume=None,
            should_stop=never,
            log=lambda step, metrics: said.update({step: metrics}),
        )
    assert "learning_rate" in caught.value.remedy
    assert all(torch.tensor(metrics["train/loss"]).isfinite() for metrics in said.values())
    left = checkpoint.latest(tmp_path / "checkpoints")
    assert left is None or left.step == max(said)


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_names_its_step_and_the_kept_checkpoint(home, batches, tmp_path):
    """One bad batch after many good ones."""
    config = TRAIN.model_copy(update={"epochs": 4, "checkpoint_every": 10})
    with pytest.raises(JobError) as caught:
        attempt(config, Spoilt(batches, 25), build(SimCLRConfig(), home.paths, config), tmp_path)
    assert "is not finite at step 26" in caught.value.message and "step 20 is kept in" in caught.value.message
    left = checkpoint.latest(tmp_path / "checkpoints")
    assert left.step == 20 and str(left.path) in caught.value.message


def test_a_gradient_far_above_its_usual_norm_is_an_explosion(home, batches, tmp_path):
    learner = Learner.of(build(SimCLRConfig(), home.paths), TRAIN, Rank.here())
    batch, saved = batches.batch(0, 0, 1), Checkpoint(tmp_path / "step-000000007.pt", 7)
    for step in range(SETTLED):
        learner.step(batch, 0.0, step)
    learner.guard.check(saved)
    before = {key: value.clone() for key, value in learner.model.named_parameters()}
    learner.guard.usual /= 2 * EXPLODED
    for step in range(SETTLED, SETTLED + 3):
        learner.step(batch, 1.0, step)
    with pytest.raises(JobError, match=r"the gradient exploded at step 21: .*step 7 is kept in .*step-000000007.pt"):
        learner.guard.check(saved)
    assert all(torch.equal(value, before[key]) for key, value in learner.model.named_parameters())


class Spoilt:
    """Batches of which one has pictures that are no numbers."""

    def __init__(self, batches, step):
        self.batches, self.step = batches, step

    def __getattr__(self, name):
        return getattr(self.batches, name)

    def stream(self, start, stop, place, look):
        for step, batch in enumerate(self.batches.stream(start, stop, place, look), start=start):
            yield batch._replace(views=batch.views * math.nan) if step == self.step else batch


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.slow
def test_half_precision_trains_and_resumes_bit_for_bit(home, batches, steps, tmp_path, precision):
    """With float16 the scale of the loss is part of the checkpoint."""
    config = TRAIN.model_copy(update={"precision": precision, "learning_rate": 1e-3})

    def model(seed):
        made = build(SimCLRConfig(), home.paths, config, seed=seed)
        return Pretrainer(made.backbone, made.objective, precision_of(config))

    _, expected = attempt(config, batches, model(0), tmp_path / "whole")
    with pytest.raises(Stopped):
        attempt(config, batches, model(0), tmp_path / "parts", should_stop=stop_at(MIDDLE))
    left = checkpoint.latest(tmp_path / "parts" / "checkpoints")
    assert bool(checkpoint.load(left)["scaler"]) == (precision == "float16")
    _, more = attempt(config, batches, model(9), tmp_path / "parts", resume=left)
    assert losses(more) == {step: loss for step, loss in losses(expected).items() if step > MIDDLE}
    _, full = attempt(TRAIN, batches, build(SimCLRConfig(), home.paths), tmp_path / "full")
    assert losses(expected)[1] != losses(full)[1] == pytest.approx(losses(expected)[1], rel=0.01)


@pytest.mark.parametrize("stance", ["force_eager", pytest.param("default", marks=pytest.mark.soak)])  # a minute
@pytest.mark.slow
def test_a_compiled_backbone_trains_to_the_same_losses_and_saves_under_the_same_names(home, batches, tmp_path, stance):
    config = TRAIN.model_copy(update={"compile": True, "epochs": 1})
    model = build(SimCLRConfig(), home.paths, config)
    with torch.compiler.set_stance(stance):
        done, said = attempt(config, batches, model, tmp_path / "compiled")
    assert model._compiled_call_impl is not None
    plain, expected = attempt(
        TRAIN.model_copy(update={"epochs": 1}), batches, build(SimCLRConfig(), home.paths), tmp_path / "plain"
    )
    assert list(losses(said).values())[:4] == pytest.approx(list(losses(expected).values())[:4], rel=1e-3)
    assert checkpoint.load(done)["model"].keys() == checkpoint.load(plain)["model"].keys()


def test_data_without_a_whole_batch_are_an_error(home, batches, tmp_path):
    few = dataclasses.replace(batches, rows=batches.rows[:5])
    with pytest.raises(RecipeError, match="nothing to train"):
        attempt(TRAIN, few, build(SimCLRConfig(), home.paths), tmp_path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_raises_the_flag_and_the_handler_of_before_comes_back(number):
    before = signal.getsignal(number)
    with StopFlag() as flag:
        assert not flag()
        signal.raise_signal(number)
        assert flag() and flag() and flag.number == number
    assert signal.getsignal(number) == before


# The stage around the loop.


class CutError(Exception):
    """The end of a process in the middle of a step, as far as its files can tell."""


def stage_of(home, objective=None, **changes):
    recipe = RECIPE.model_copy(update={"train": TRAIN.model_copy(update=changes)})
    return training_stages.pretrain(recipe, objective or SimCLRConfig(), 0, training_data(home.artifacts))


def at(step, action):
    """A progress callback that acts once, at a step."""
    return lambda done, total: action() if done == step else None


def interrupt():
    raise CutError


def spooled(out):
    return [(entry.step, entry.metrics["train/loss"]) for entry in read_spool(out / SPOOL)]


def weights(out):
    return torch.load(out / CHECKPOINT, weights_only=True)["backbone"]


@pytest.fixture(scope="module")
def finished(home, tmp_path_factory):
    """An uninterrupted run of the stage: what it produced, its folder, its progress."""
    out, seen = tmp_path_factory.mktemp("finished"), []
    produced = pretrain.run(stage_of(home), out, lambda done, total: seen.append((done, total)))
    return produced, out, seen


def test_the_stage_leaves_the_backbone_and_a_spool(finished, steps):
    produced, out, seen = finished
    assert produced.files == (CHECKPOINT, *EXPORTED, SPOOL) and produced.scratch == ("checkpoints",)
    assert all((out / name).is_file() for name in produced.files)
    assert [step for step, _ in spooled(out)] == list(range(1, steps + 1))
    assert seen == [(step, steps) for step in range(1, steps + 1)]
    assert produced.stats["step"] == steps and produced.stats["train/loss"] == spooled(out)[-1][1]


def test_the_backbone_is_that_of_the_last_checkpoint_and_fits_a_fresh_one(finished):
    _, out, _ = finished
    state = checkpoint.load(checkpoint.latest(out / "checkpoints"))["model"]
    backbone, _ = build_backbone(TRAIN)
    backbone.load_state_dict(weights(out))
    assert all(torch.equal(value, state[f"backbone.{key}"]) for key, value in weights(out).items())


def test_the_export_beside_the_checkpoint_holds_its_backbone(finished):
    exported = load_file(finished[1] / "export" / "model.safetensors")
    torch.testing.assert_close(exported, dict(weights(finished[1])), rtol=0, atol=0)


@pytest.mark.slow
def test_running_the_stage_again_gives_the_same_weights(home, finished, tmp_path):
    pretrain.run(stage_of(home), tmp_path, no_progress)
    torch.testing.assert_close(weights(tmp_path), weights(finished[1]), rtol=0, atol=0)


def test_a_stage_stopped_by_sigterm_goes_on_and_says_no_step_twice(home, finished, steps, tmp_path):
    with pytest.raises(Stopped) as stopped:
        pretrain.run(stage_of(home), tmp_path, at(MIDDLE, lambda: signal.raise_signal(signal.SIGTERM)))
    assert stopped.value.number == signal.SIGTERM
    left = checkpoint.latest(tmp_path / "checkpoints")
    assert left.step == len(spooled(tmp_path)) == MIDDLE
    assert not (tmp_path / CHECKPOINT).exists()
    seen = []
    produced = pretrain.run(stage_of(home), tmp_path, lambda done, total: seen.append(done))
    assert seen == list(range(MIDDLE + 1, steps + 1))
    assert spooled(tmp_path) == spooled(finished[1])
    torch.testing.assert_close(weights(tmp_path), weights(finished[1]), rtol=0, atol=0)
    assert produced.stats["step"] == steps


def test_a_stage_that_crashed_after_its_checkpoint_says_no_step_twice(home, finished, tmp_path):
    stage = stage_of(home, checkpoint_every=2)
    with pytest.raises(CutError):
        pretrain.run(stage, tmp_path, at(MIDDLE + 2, interrupt))
    assert [step for step, _ in spooled(tmp_path)] == [1, 2, 3, 4, 5]
    assert checkpoint.latest(tmp_path / "checkpoints").step == 4
    pretrain.run(stage, tmp_path, no_progress)
    assert spooled(tmp_path) == spooled(finished[1])
    torch.testing.assert_close(weights(tmp_path), weights(finished[1]), rtol=0, atol=0)


@pytest.mark.slow
def test_a_stage_that_crashed_before_any_checkpoint_starts_anew(home, finished, tmp_path):
    with pytest.raises(CutError):
        pretrain.run(stage_of(home), tmp_path, at(2, interrupt))
    pretrain.run(stage_of(home), tmp_path, no_progress)
    assert spooled(tmp_path) == spooled(finished[1])


def test_a_stage_that_crashed_after_its_last_step_has_the_same_result(home, steps, tmp_path):
    """Its result says how many steps were trained, although this attempt trained none."""
    whole = pretrain.run(stage_of(home), tmp_path, no_progress)
    expected = weights(tmp_path)
    (tmp_path / CHECKPOINT).unlink()
    produced = pretrain.run(stage_of(home), tmp_path, no_progress)
    torch.testing.assert_close(weights(tmp_path), expected, rtol=0, atol=0)
    assert len(spooled(tmp_path)) == steps
    assert produced.files == whole.files and produced.stats["step"] == steps


def test_the_untrained_backbone_is_written_with_an_empty_spool(home, tmp_path):
    stage = stage_of(home, RandomConfig())
    produced = pretrain.run(stage, tmp_path, no_progress)
    assert files(tmp_path) == sorted(produced.files) == [CHECKPOINT, SPOOL]
    assert list(read_spool(tmp_path / SPOOL)) == [] and produced.stats == {"step": 0}
    torch.manual_seed(stage.config.seed)
    expected = build_backbone(stage.config.train)[0].state_dict()
    torch.testing.assert_close(weights(tmp_path), expected, rtol=0, atol=0)
