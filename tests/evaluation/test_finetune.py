"""Fine-tuning: a small data set is learned, from where a kill left it, by any number of ranks."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from tests.kit.home import one_thread
from tests.kit.ranks import Ranks, after_step, run_on_ranks
from tests.kit.stages import no_progress
from xclr.artifact import Artifact, Digest, Manifest, identity
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, load_features, load_labels
from xclr.evaluation.datasets import READERS, Tree, write
from xclr.evaluation.finetune import TreePictures, as_pretrained, logits_of, run, training_batches, with_classifier
from xclr.evaluation.networks.pictures import normalised, prepare
from xclr.evaluation.stages import FINETUNE, FinetuneStageConfig, SuiteConfig
from xclr.evaluation.suites.finetune import finetune_suite
from xclr.pipeline import KINDS
from xclr.recipe import RandomConfig, TrainConfig
from xclr.stage import Stage
from xclr.store import Store, describe
from xclr.training import CHECKPOINT, Rank, build_backbone
from xclr.training.spool import SPOOL, read_spool
from xclr.training.stages import PretrainConfig
from xclr.training.views import preparation_of

COLOURS = {  # of bees, ants and oxen: 309, 310 and 345 of the 1,000
    "n02206856": (190, 70, 60),
    "n02219486": (70, 180, 80),
    "n02403003": (60, 80, 190),
}
BEFORE = TrainConfig(width=4, image_size=16)  # of the pretrained backbone, which saw stickers
TRAIN = TrainConfig(
    width=8, image_size=24, epochs=4, batch_size=12, optimizer="sgd", learning_rate=0.02, views="simclr", log_every=1,
    checkpoint_every=3, workers=1, weight_decay=0.0,
)  # fmt: skip
SUITE = SuiteConfig(suite="finetune", bootstrap=200, seed=0)
STEPS = 4 * (3 * 21 // 12)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """A folder with train and val, 3 classes of 21 and 9 pictures, its labels, and an untrained checkpoint."""
    home = tmp_path_factory.mktemp("home")
    pictures(home / "imagenet")
    artifacts = {
        name: artifact(home, kind) for name, kind in {"checkpoint": "pretrain", "benchmark": "benchmark"}.items()
    }
    names = write(READERS["imagenet"].read(Tree.open(home / "imagenet")), artifacts["benchmark"].path, {})
    commit(artifacts["benchmark"], {}, names)
    write_checkpoint(artifacts["checkpoint"])
    config = FinetuneStageConfig(train=TRAIN, seed=3, root=home / "imagenet")
    return Stage(FINETUNE, "finetuning", config, artifacts)


def pictures(root):
    """JPEGs of many shapes, a noisy blot of the class's colour on noise; one of val is grey, one stands on its side."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 21), ("val", 9)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                width, height = rng.integers(20, 60, 2)
                noise = rng.normal(110, 45, (height, width, 3))
                noise[height // 6 :, : 5 * width // 6] = rng.normal(
                    colour, 40, noise[height // 6 :, : 5 * width // 6].shape
                )
                picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
                picture.save(root / split / name / f"{split}_{index}.JPEG")


def artifact(home, kind):
    made = Artifact(kind, Digest(kind, f"{len(kind):032x}"), home / "artifacts" / kind / f"{len(kind):032x}")
    made.path.mkdir(parents=True)
    return made


def write_checkpoint(made):
    torch.manual_seed(0)
    torch.save({"backbone": build_backbone(BEFORE)[0].state_dict()}, made.path / CHECKPOINT)
    config = PretrainConfig(objective=RandomConfig(), train=BEFORE, seed=0, dataset="emoji")
    commit(made, identity(config), (CHECKPOINT,))


def commit(made, config, names):
    manifest = Manifest(
        kind=made.kind, digest=made.digest, inputs=(), config=config, code=1, stats={},
        files=tuple(describe(made.path, name) for name in names), created="2025-01-01T00:00:00Z",
    )  # fmt: skip
    Store.of(made.path).commit(made, manifest)


def with_train(stage, **changes):
    return replace(stage, config=stage.config.model_copy(update={"train": TRAIN.model_copy(update=changes)}))


def parts(stage):
    """Labels, tree and settings as the runner reads them."""
    labels = load_labels(stage.inputs["benchmark"].path)
    return labels, Tree.open(stage.config.root), as_pretrained(stage.config.train, stage.inputs["checkpoint"])


def judged(out, labels):
    scores = finetune_suite(Features(load_features(out)), labels, SUITE).scores
    return {score.metric: score.value for score in scores}


@pytest.fixture(scope="module")
def whole(stage, tmp_path_factory):
    """The output of a run without interruption, and what it said of itself."""
    out = tmp_path_factory.mktemp("whole")
    return out, run(stage, out, no_progress)


def test_training_improves_on_the_untrained_head(stage, whole):
    labels, tree, train = parts(stage)
    held_out = TreePictures.of_split(tree, labels, "val")
    untrained = logits_of(with_classifier(stage.inputs["checkpoint"], train, labels, 3), held_out, train, no_progress)
    before = finetune_suite(Features(FeatureSet(held_out.rows, untrained)), labels, SUITE).scores[0].value
    after = judged(whole[0], labels)["top1"]
    assert after > 0.9 and before < 0.6


def test_the_output_is_the_logits_of_the_validation_pictures(stage, whole):
    out, produced = whole
    labels, _, _ = parts(stage)
    rows, logits = np.load(out / "rows.npy"), np.load(out / "vectors.npy")
    assert rows.dtype == np.int64 and np.array_equal(rows, np.flatnonzero(labels.split == "val"))
    assert logits.dtype == np.float16 and logits.shape == (27, 3)
    assert (logits.max(axis=1) == 0).all() and logits.min() < -0.5
    assert set(produced.files) == {"rows.npy", "vectors.npy", SPOOL} and produced.scratch == ("checkpoints",)
    assert produced.stats["step"] == STEPS and produced.stats["rows"] == 27
    assert [entry.step for entry in read_spool(out / SPOOL)] == list(range(1, STEPS + 1))
    assert produced.stats["train/accuracy"] > 0.7


def test_logits_are_those_of_the_trained_network_on_each_picture(stage, whole, tmp_path):
    labels, tree, train = parts(stage)
    model, how = with_classifier(stage.inputs["checkpoint"], train, labels, 3), preparation_of(train)
    state = torch.load(next((whole[0] / "checkpoints").glob(f"step-{STEPS:09d}.pt")), weights_only=True)
    model.load_state_dict(state["model"])
    model.eval()
    for row, given in zip(np.load(whole[0] / "rows.npy"), np.load(whole[0] / "vectors.npy"), strict=True):
        picture = normalised(prepare(tree.read(labels.names[row]), how)[None], how)
        with torch.no_grad():
            logits = model.objective.linear(model.backbone(picture))[0]
        torch.testing.assert_close((logits - logits.max()).half(), torch.from_numpy(given), rtol=2e-3, atol=1e-3)


def test_the_network_and_its_picture_size_are_those_of_the_checkpoint(stage):
    _, _, train = parts(stage)
    assert (train.width, train.image_size, train.epochs, train.optimizer) == (4, 16, 4, "sgd")
    assert preparation_of(train).size == 16 and preparation_of(train).resize == 18


def test_views_are_cropped_and_mirrored_once_a_picture_and_keep_their_colours(stage):
    labels, tree, train = parts(stage)
    pictures = TreePictures.of_split(tree, labels, "train")
    seen = list(training_batches(pictures, train, 3).stream(0, 10, Rank(0, 1, torch.device("cpu"))))
    assert seen[0].views.shape == (12, 3, 16, 16)
    for epoch in (seen[:5], seen[5:]):
        rows = torch.cat([batch.rows for batch in epoch]).tolist()
        assert len(set(rows)) == 60 and set(rows) <= set(pictures.rows.tolist())
    for batch in seen:
        main = batch.views.mean(dim=(2, 3)).argmax(dim=1)
        assert (main.numpy() == labels.places[batch.rows]).mean() > 0.9


class CrashError(Exception):
    """Not of the project."""


def crash_at(step, done, total, ok=None):
    if done == step:
        raise CrashError


def test_a_crash_costs_nothing_but_time(stage, whole, tmp_path):
    for step in (8, 17, STEPS + 1):  # between checkpoints twice, and while the validation pictures are looked at
        with pytest.raises(CrashError):
            run(stage, tmp_path, partial(crash_at, step))
    run(stage, tmp_path, no_progress)
    for name in ("rows.npy", "vectors.npy"):
        assert (tmp_path / name).read_bytes() == (whole[0] / name).read_bytes()
    losses = [[entry.metrics["train/loss"] for entry in read_spool(out / SPOOL)] for out in (tmp_path, whole[0])]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS


def test_progress_runs_to_its_end(stage, tmp_path):
    seen = []
    run(with_train(stage, epochs=1), tmp_path, lambda done, total, ok=None: seen.append((done, total)))
    assert seen == [(done, 6) for done in range(1, 7)]


def on_a_rank(stage_json, folder, rank, world):
    run(Stage.from_json(stage_json, KINDS), folder / str(world), no_progress)
    return torch.tensor(rank)


@pytest.mark.slow
def test_two_ranks_give_what_one_gives(stage, tmp_path):
    short = with_train(stage, epochs=1, workers=0)
    for world in (1, 2):
        (tmp_path / str(world)).mkdir()
    run(short, tmp_path / "1", no_progress)
    run_on_ranks(partial(on_a_rank, short.to_json(), tmp_path), 2, tmp_path)
    one, two = (np.load(tmp_path / world / "vectors.npy").astype(np.float32) for world in "12")
    np.testing.assert_allclose(two, one, rtol=2e-3, atol=1e-3)
    assert np.abs(one).max() > 0.05
    losses = [[e.metrics["train/loss"] for e in read_spool(tmp_path / world / SPOOL)] for world in "12"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_suite_scores_the_logits(stage):
    labels, _, _ = parts(stage)
    rows = np.flatnonzero(labels.split == "val")
    logits = np.full((27, 3), -1, np.float16)
    logits[np.arange(27), labels.places[rows]] = 0
    logits[labels.places[rows] == 2] = (0, -1, -2)
    result = finetune_suite(Features(FeatureSet(rows, logits)), labels, SUITE)
    found = {score.metric: (score.value, score.n, score.split) for score in result.scores}
    assert found == {"top1": (18 / 27, 27, "val"), "top5": (1.0, 27, "val"), "per_class": (2 / 3, 27, "val")}
    assert set(result.predictions["prediction"].to_pylist()) == {309, 310}
    assert result.predictions["right"].to_pylist() == (labels.places[rows] != 2).tolist()
    with pytest.raises(DataError, match="no picture of split 'val'"):
        finetune_suite(Features(FeatureSet(rows[:0], logits[:0])), labels, SUITE)


def test_too_few_pictures_for_a_batch_are_refused(stage, tmp_path):
    with pytest.raises(DataError, match="63 training pictures do not fill a batch of 64") as caught:
        run(with_train(stage, batch_size=64), tmp_path, no_progress)
    assert caught.value.remedy == "--set evaluate.finetune.batch_size=31"


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_picture_is_named(stage, tmp_path, workers):
    root = tmp_path / "imagenet"
    pictures(root)
    broken = root / "train" / "n02219486" / "train_4.JPEG"
    broken.write_bytes(broken.read_bytes()[:300])
    damaged = with_train(stage, workers=workers, epochs=1)
    damaged = replace(damaged, config=damaged.config.model_copy(update={"root": root}))
    with pytest.raises(DataError, match=r"train/n02219486/train_4\.JPEG cannot be read"):
        for seed in range(2):  # an epoch leaves three pictures out
            run(replace(damaged, config=damaged.config.model_copy(update={"seed": seed})), tmp_path, no_progress)


@pytest.mark.slow
@pytest.mark.parametrize("world", [1, 2])
def test_a_killed_job_goes_on_to_the_same_result(stage, whole, tmp_path, world):
    ranks = Ranks(stage, tmp_path, world, pause=after_step(7))
    ranks.until_paused()
    ranks.kill()
    assert not (tmp_path / "vectors.npy").exists()
    again = Ranks(stage, tmp_path, world, attempt=1)
    assert again.codes() == [0] * world, (tmp_path / "rank0.log").read_text()
    ours, theirs = (np.load(out / "vectors.npy") for out in (tmp_path, whole[0]))
    if world == 1:
        assert np.array_equal(ours, theirs)
    np.testing.assert_allclose(ours.astype(np.float32), theirs.astype(np.float32), rtol=0.02, atol=0.02)
