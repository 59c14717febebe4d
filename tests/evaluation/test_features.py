"""The features stage on a real checkpoint: every picture and rendering once, always the same."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from tests.training.home import RECIPE, commit, make_home, no_progress, one_thread
from xclr import stages
from xclr.evaluation import features
from xclr.images import read_pictures
from xclr.recipe import RandomConfig
from xclr.stages import FeaturesConfig, Stage
from xclr.training import CHECKPOINT, pretrain
from xclr.training.batches import read_groups, source_side
from xclr.training.views import LUMA, as_groups, still

VARIANTS = ("plain", "trained", "mixed_same", "mixed_rand")


class Passed:
    """While active, counts the pictures that went through the pooling layer of any backbone."""

    def __init__(self):
        self.pictures = 0

    def __call__(self, module, arguments, output):
        if isinstance(module, nn.AdaptiveAvgPool2d):
            self.pictures += len(output)

    def __enter__(self):
        self.handle = register_module_forward_hook(self)
        return self

    def __exit__(self, *_):
        self.handle.remove()


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    with one_thread():
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def inputs(home):
    """What the stage reads; the checkpoint is of an untrained backbone of 32 features."""
    chosen = stages.pretrain(RECIPE, RandomConfig(), 0, home.artifacts)
    checkpoint = commit(home.store, chosen, pretrain.run)
    return {"checkpoint": checkpoint} | {role: home.artifacts[role] for role in ("captions", "images")}


@pytest.fixture(scope="module")
def stage(home, inputs):
    return stages.features(RECIPE, "random", inputs["checkpoint"], home.artifacts)


@pytest.fixture(scope="module")
def done(stage, tmp_path_factory):
    """(what the stage produced, its folder, pictures through the backbone, its progress)"""
    out, seen = tmp_path_factory.mktemp("features"), []
    with Passed() as passed:
        produced = features.run(stage, out, lambda *place: seen.append(place))
    return produced, out, passed.pictures, seen


def rows_of(done, variant):
    return np.load(done[1] / f"{variant}.rows.npy")


def vectors_of(done, variant):
    return np.load(done[1] / f"{variant}.npy")


def test_every_rendering_has_its_rows_and_vectors(done):
    produced, out, *_ = done
    assert produced.files == tuple(f"{name}{end}" for name in VARIANTS for end in (".rows.npy", ".npy"))
    assert sorted(path.name for path in out.iterdir()) == sorted(produced.files)
    for variant in VARIANTS:
        rows, vectors = rows_of(done, variant), vectors_of(done, variant)
        assert rows.dtype == np.int64 and vectors.dtype == np.float16
        assert vectors.shape == (len(rows), 8 * RECIPE.train.width)
        assert np.isfinite(vectors).all()


def test_each_picture_and_rendering_goes_through_the_backbone_exactly_once(done):
    produced, _, passed, _ = done
    total = sum(len(rows_of(done, variant)) for variant in VARIANTS)
    assert passed == total == produced.stats["forward_passes"]
    for variant in VARIANTS:
        rows = rows_of(done, variant)
        assert (np.diff(rows) > 0).all()


def test_progress_ends_at_the_number_of_passes(done):
    produced, _, _, seen = done
    assert {total for _, total in seen} == {produced.stats["forward_passes"]}
    assert [place for place, _ in seen] == sorted({place for place, _ in seen})
    assert seen[-1][0] == produced.stats["forward_passes"]


def test_plain_has_every_usable_row_that_any_split_uses(home, done):
    assert (home.splits == "unused").any()
    assert rows_of(done, "plain").tolist() == np.flatnonzero(home.splits != "unused").tolist()
    assert done[0].stats["rows"] == (home.splits != "unused").sum()


@pytest.mark.parametrize(
    ("variant", "split"), [("trained", "train"), ("mixed_same", "pictures"), ("mixed_rand", "pictures")]
)
def test_the_other_renderings_are_of_one_split(home, done, variant, split):
    rows = rows_of(done, variant)
    assert len(rows) and rows.tolist() == np.flatnonzero(home.splits == split).tolist()


def test_the_two_mixed_renderings_differ_for_every_transparent_picture(home, done):
    rows = rows_of(done, "mixed_same")
    assert np.array_equal(rows, rows_of(done, "mixed_rand"))
    alpha = read_pictures(home.paths["images"], rows, source_side(RECIPE.train))[:, 3].float().mean(dim=(1, 2)).numpy()
    moved = np.abs(vectors_of(done, "mixed_same") - vectors_of(done, "mixed_rand")).max(axis=1) > 0
    assert moved[alpha < 250].all()


def test_the_mixed_renderings_share_the_texture_and_its_place_but_not_the_group(home):
    """In a batch of fully transparent pictures only the backgrounds are seen."""
    groups = as_groups(read_groups(home.paths["captions"]), len(home.splits))
    renders = features.renderings(FeaturesConfig(backgrounds=True, background=0.8), groups, 16)
    rows, clear = torch.arange(64), torch.zeros(64, 4, 24, 24, dtype=torch.uint8)
    same, rand = renders["mixed_same"](clear, rows), renders["mixed_rand"](clear, rows)
    colours = torch.stack((same, rand)).mean(dim=(3, 4))
    assert (colours[0] - colours[1]).abs().amax(dim=1).min() > 0.2
    grey = torch.tensor(LUMA)[:, None, None]
    assert ((same - rand) * grey).sum(1).std(dim=(1, 2)).mean() > 0  # textures, not flat colours
    assert torch.equal(renders["mixed_same"](clear[5:9], rows[5:9]), same[5:9])


def test_plain_is_the_picture_over_grey(home):
    groups = torch.zeros(len(home.splits), dtype=torch.long)
    renders = features.renderings(FeaturesConfig(backgrounds=False, background=0.8), groups, 16)
    rows = np.arange(6)
    pictures = read_pictures(home.paths["images"], rows, source_side(RECIPE.train))
    assert list(renders) == ["plain"]
    assert torch.equal(renders["plain"](pictures, torch.from_numpy(rows)), still(pictures, 0.5, 16))


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.0), (0.8, 0.8), (1.0, 1.0)])
def test_trained_has_the_groups_background_as_often_as_training(home, share, expected):
    groups = torch.arange(len(home.splits)) % 8
    renders = features.renderings(FeaturesConfig(backgrounds=True, background=share), groups, 16)
    rows = torch.arange(len(groups))
    clear = torch.zeros(len(rows), 4, 24, 24, dtype=torch.uint8)
    got, textured = renders["trained"](clear, rows), renders["mixed_same"](clear, rows)
    own = (got == textured).flatten(1).all(dim=1)
    assert own.float().mean().item() == pytest.approx(expected, abs=0.06)
    assert got[~own].std(dim=(2, 3)).max() < 1e-6 if (~own).any() else share == 1.0


def test_running_again_gives_the_same_bytes(stage, done, tmp_path):
    again = features.run(stage, tmp_path, no_progress)
    assert again == done[0]
    for name in again.files:
        assert (tmp_path / name).read_bytes() == (done[1] / name).read_bytes()


@pytest.mark.parametrize("variant", VARIANTS)
def test_features_do_not_depend_on_the_batch_they_were_computed_in(home, inputs, done, variant):
    """Pictures by themselves and in threes give what the stage's large batches gave."""
    train = RECIPE.train
    config = stages.PretrainConfig.model_validate(home.store.manifest(inputs["checkpoint"]).config)
    backbone = features.load_backbone(inputs["checkpoint"].path / CHECKPOINT, config)
    assert not backbone.training and not any(each.requires_grad for each in backbone.parameters())
    groups = as_groups(read_groups(home.paths["captions"]), len(home.splits))
    render = features.renderings(FeaturesConfig(backgrounds=True, background=train.background), groups, 16)[variant]
    rows = rows_of(done, variant)[:12]
    pictures = read_pictures(home.paths["images"], rows, source_side(train))
    for size in (1, 3):
        parts = zip(pictures.split(size), torch.from_numpy(rows).split(size), strict=True)
        got = torch.cat([backbone(render(*part)) for part in parts]).numpy()
        np.testing.assert_allclose(got, vectors_of(done, variant)[:12].astype(np.float32), rtol=2e-3, atol=1e-4)


def test_data_without_backgrounds_have_the_plain_rendering_only(inputs, tmp_path):
    stage = Stage("features", "features", FeaturesConfig(backgrounds=False, background=0.8), inputs)
    with Passed() as passed:
        produced = features.run(stage, tmp_path, no_progress)
    assert produced.files == ("plain.rows.npy", "plain.npy")
    assert passed.pictures == produced.stats["forward_passes"] == produced.stats["rows"]


def test_plain_features_are_the_same_with_and_without_the_other_renderings(inputs, done, tmp_path):
    stage = Stage("features", "features", FeaturesConfig(backgrounds=False, background=0.8), inputs)
    features.run(stage, tmp_path, no_progress)
    assert np.array_equal(np.load(tmp_path / "plain.npy"), vectors_of(done, "plain"))
