"""A benchmark's class folders: every picture once through the backbone, a probe and the nearest neighbours on it."""

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

from tests.evaluation.artifacts import emoji_like
from tests.training.home import RECIPE, commit, make_home, one_thread
from xclr import schema, stages
from xclr.errors import DataError
from xclr.evaluation import folders, suite
from xclr.evaluation.data import load_features, load_labels, of_split
from xclr.evaluation.features import load_backbone
from xclr.evaluation.knn import vote
from xclr.images import decode
from xclr.recipe import RandomConfig, Recipe
from xclr.stages import PretrainConfig
from xclr.training import CHECKPOINT, pretrain
from xclr.training.batches import source_side
from xclr.training.views import PLAIN, still

COLOURS = {"n01": (250, 10, 10), "n02": (10, 250, 10), "n03": (10, 10, 250)}


def picture(colour, seed) -> bytes:
    noise = np.random.default_rng(seed).integers(-10, 10, (40, 50, 3))
    stream = io.BytesIO()
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    for split, count in (("train", 8), ("val", 3)):
        for name, colour in (COLOURS | ({"n99": (128, 128, 128)} if split == "val" else {})).items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                (root / split / name / f"{index}.png").write_bytes(picture(colour, hash((split, index)) % 1000))
    return root


@pytest.fixture(scope="module")
def made(root, tmp_path_factory):
    """(store, recipe, checkpoint, features) of an untrained backbone."""
    with one_thread():
        home = make_home(tmp_path_factory.mktemp("home"))
        raw = RECIPE.model_dump(mode="json") | {
            "evaluate": {"suites": ["imagenet", "imagenet-knn"], "roots": {"imagenet": str(root)}, "bootstrap": 100}
        }
        recipe = Recipe.model_validate(raw)
        checkpoint = commit(home.store, stages.pretrain(recipe, RandomConfig(), 0, home.artifacts), pretrain.run)
        stage = stages.folder_features(recipe, "random seed 0", checkpoint, "imagenet")
        return home.store, recipe, checkpoint, commit(home.store, stage, folders.run)


def test_every_picture_has_its_vector_and_label(made, root):
    store, _, checkpoint, features = made
    items = pq.read_table(features.path / "items.parquet").to_pylist()
    vectors = np.load(features.path / "plain.npy")
    assert len(items) == len(vectors) == 3 * 8 + 4 * 3
    assert {each["label"] for each in items if "n99" in each["name"]} == {-1}
    assert [each["label"] for each in items if each["split"] == "train"] == [0] * 8 + [1] * 8 + [2] * 8
    config = PretrainConfig.model_validate(store.manifest(checkpoint).config)
    backbone = load_backbone(checkpoint.path / CHECKPOINT, config)
    for index in (0, 20, 30):
        pixels = decode((root / items[index]["name"]).read_bytes(), source_side(config.train))
        alone = backbone(still(pixels[None], PLAIN, config.train.image_size))[0]
        np.testing.assert_allclose(vectors[index].astype(np.float32), alone.numpy(), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["imagenet", "imagenet-knn"])
def test_the_suites_tell_colours_apart_and_count_an_unknown_class_as_wrong(made, name):
    store, recipe, checkpoint, features = made
    stage = stages.suite(recipe, name, "random seed 0", {"features:imagenet": features, "checkpoint": checkpoint})
    assert set(stage.inputs) == {"features", "checkpoint"}
    result = commit(store, stage, suite.run)
    rows = schema.read(result.path / "scores.parquet", schema.SCORES).to_pylist()
    top1 = next(each for each in rows if each["metric"] == "top1")
    assert (top1["suite"], top1["split"]) == (name, "pictures")
    assert top1["value"] == pytest.approx(1.0 if top1["n"] == 9 else 0.75)


def test_the_vote_is_that_of_scikit_learn():
    features, labels = emoji_like(n=400, classes=5)
    train, items = (of_split(features["plain"], labels, split) for split in ("train", "pictures"))
    unit = [each.vectors / np.linalg.norm(each.vectors, axis=1, keepdims=True) for each in (train, items)]
    peer = KNeighborsClassifier(20, weights=lambda distances: np.exp((1 - distances**2 / 2) / 0.07))
    peer.fit(unit[0], labels.target[train.rows])
    assert (vote(items, train, labels.target[train.rows]) == peer.predict(unit[1])).mean() > 0.99


def test_a_folder_of_another_layout_is_refused_before_any_work(made, tmp_path):
    _, recipe, checkpoint, _ = made
    (tmp_path / "train").mkdir()
    other = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"roots": {"imagenet": tmp_path}})})
    with pytest.raises(DataError, match="no folder val"):
        stages.folder_features(other, "random seed 0", checkpoint, "imagenet")


def test_labels_of_a_benchmark_are_read_from_its_features(made):
    *_, features = made
    labels = load_labels(features.path)
    assert sorted(set(labels.split.tolist())) == ["pictures", "train"]
    assert torch.tensor(load_features(features.path)["plain"].vectors).shape[1] > 0
