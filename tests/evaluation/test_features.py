"""Features: every picture once through the frozen backbone, in any cut of the work, from shards, folders and tars."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.kit import trees
from tests.kit.features import Passed
from tests.kit.home import RECIPE, data_sets, make_home, one_thread, training_data
from tests.kit.pictures import spoil
from tests.kit.stages import commit, no_progress
from xclr.errors import DataError
from xclr.evaluation import benchmark, features, load_features
from xclr.evaluation import stages as evaluation_stages
from xclr.evaluation.networks import pictures
from xclr.evaluation.networks.network import open_network
from xclr.evaluation.networks.pictures import normalised, prepare
from xclr.evaluation.stages import FEATURES, FeaturesConfig
from xclr.images import PictureFiles
from xclr.recipe import RandomConfig, Recipe, parse_recipe
from xclr.stage import Stage
from xclr.store import Store
from xclr.training import pretrain
from xclr.training import stages as training_stages


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
    chosen = training_stages.pretrain(RECIPE, RandomConfig(), 0, training_data(home.artifacts))
    checkpoint = commit(home.store, chosen, pretrain.run)
    return {"checkpoint": checkpoint} | {role: home.artifacts[role] for role in ("captions", "images")}


@pytest.fixture(scope="module")
def done(inputs, tmp_path_factory):
    """(what the stage produced, its folder, pictures through the backbone, its progress)"""
    out, seen = tmp_path_factory.mktemp("features"), []
    with Passed() as passed:
        produced = features.run(stage_of(inputs), out, lambda *place: seen.append(place))
    return produced, out, passed.pictures, seen


def stage_of(inputs, **config):
    return Stage(FEATURES, "features", FeaturesConfig(**config), inputs)


def test_every_usable_row_that_a_split_uses_has_its_vector(home, done):
    produced, out, *_ = done
    assert (home.splits == "unused").any()
    found = load_features(out)
    assert found.rows.tolist() == np.flatnonzero(home.splits != "unused").tolist()
    assert found.vectors.dtype == np.float16 and found.vectors.shape == (len(found.rows), 8 * RECIPE.train.width)
    assert isinstance(found.vectors, np.memmap)
    assert produced.stats == {"rows": len(found.rows), "width": 32, "forward_passes": len(found.rows)}


def test_each_picture_goes_through_the_backbone_exactly_once_and_progress_says_so(done):
    produced, _, passed, seen = done
    assert passed == produced.stats["forward_passes"]
    assert [place for place, _ in seen] == sorted({place for place, _ in seen})
    assert seen[-1] == (passed, passed)


def test_pictures_by_themselves_give_what_large_batches_gave(inputs, done):
    network, found = open_network(inputs["checkpoint"]), load_features(done[1])
    assert not network.backbone.training and not any(each.requires_grad for each in network.backbone.parameters())
    files = PictureFiles.open(inputs["images"].path, found.rows)
    for place in (0, 3, len(found.rows) - 1):
        pixels = prepare(files.encoded(place), network.preparation)[None]
        alone = network.backbone(normalised(pixels, network.preparation))[0]
        np.testing.assert_allclose(found.vectors[place].astype(np.float32), alone.numpy(), rtol=2e-3, atol=1e-3)


def test_the_cut_of_the_work_changes_nothing(inputs, done, tmp_path):
    stage = stage_of(inputs, shard=90)
    number = stage.pieces(Store.of(inputs["checkpoint"].path)).shards
    assert number == 5
    with Passed() as passed:
        features.run_shard(stage, tmp_path, 3, no_progress)
        features.run(stage, tmp_path, no_progress)
    assert passed.pictures == done[2], "the shard that was there was made again"
    cut, whole = load_features(tmp_path), load_features(done[1])
    assert np.array_equal(cut.rows, whole.rows)
    np.testing.assert_allclose(cut.vectors.astype(np.float32), whole.vectors.astype(np.float32), rtol=2e-3, atol=1e-3)


def test_a_sample_is_spread_over_the_rows(inputs, done, tmp_path):
    features.run(stage_of(inputs, sample=50), tmp_path, no_progress)
    rows, every = load_features(tmp_path).rows, load_features(done[1]).rows
    assert len(rows) == 50 and set(rows) <= set(every) and (rows[0], rows[-1]) == (every[0], every[-1])


def test_a_picture_is_decoded_once_for_all_networks_of_a_process_while_they_are_few(
    inputs, done, tmp_path, monkeypatch
):
    decoded, each = [], pictures.prepare
    monkeypatch.setattr(pictures, "prepare", lambda *how: decoded.append(how) or each(*how))
    features.run(stage_of(inputs), tmp_path / "few", no_progress)
    assert not decoded and np.array_equal(load_features(tmp_path / "few").vectors, load_features(done[1]).vectors)
    monkeypatch.setattr(features, "KEPT", 10)
    for times in (1, 2):
        features.run(stage_of(inputs, sample=49), tmp_path / f"many {times}", no_progress)
        assert len(decoded) == 49 * times


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("imagenet")
    trees.imagenet(root)
    return root


def of_tree(home, inputs, root):
    """The stages of a data set and of its features."""
    recipe = parse_recipe(
        RECIPE.model_dump(mode="json") | {"evaluate": {"suites": ["knn"], "roots": {"imagenet": str(root)}}}, "tiny"
    )
    made = commit(home.store, evaluation_stages.benchmark(recipe, "imagenet", None), benchmark.run)
    data = data_sets(inputs | {"benchmark": made})
    return evaluation_stages.benchmark_features(recipe, "random seed 0", inputs["checkpoint"], "imagenet", data)


@pytest.mark.parametrize(
    ("dataset", "official"), [("imagenet", "standard"), ("imagenet9", "whole"), ("objectnet", "template")]
)
def test_a_data_set_is_framed_as_its_own_tool_does_or_as_imagenet(home, inputs, dataset, official):
    recipe = Recipe.model_validate(RECIPE.model_dump(mode="json") | {"evaluate": {"suites": ["knn"]}})
    as_before = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"framing": "standard"})})
    data = data_sets(inputs)._replace(benchmarks={dataset: inputs["captions"]})
    stages = [
        evaluation_stages.benchmark_features(each, "x", inputs["checkpoint"], dataset, data)
        for each in (recipe, as_before)
    ]
    assert [each.config.framing for each in stages] == [official, "standard"]
    assert "framing" not in stages[1].identity, "outputs of before keep their names"
    assert (stages[0].digest == stages[1].digest) is (official == "standard")


def test_a_data_set_s_pictures_are_read_where_they_lie(home, inputs, tree, tmp_path):
    stage = of_tree(home, inputs, tree)
    with Passed() as passed:
        produced = features.run(stage, tmp_path, no_progress)
    assert passed.pictures == produced.stats["rows"] == len(load_features(tmp_path).rows)
    assert not torch.from_numpy(load_features(tmp_path).vectors).isnan().any()


def test_a_picture_that_cannot_be_decoded_is_named(home, inputs, tree, tmp_path):
    shutil.copytree(tree, tmp_path / "damaged")
    victim = sorted((tmp_path / "damaged" / "val").rglob("*.*"))[0]
    victim.write_bytes(b"no picture")
    with pytest.raises(DataError, match=victim.name):
        features.run(of_tree(home, inputs, tmp_path / "damaged"), tmp_path, no_progress)


def test_an_own_picture_that_is_none_is_grey_and_told(home, inputs, done, tmp_path):
    produced, out, *_ = done
    rows = np.load(out / "rows.npy")
    bad = [int(rows[2]), int(rows[-1])]
    (tmp_path / "images").mkdir()
    images = replace(inputs["images"], path=spoil(inputs["images"].path, bad, tmp_path / "images"))
    (tmp_path / "out").mkdir()
    found = features.run(stage_of(inputs | {"images": images}, shard=len(rows) // 2), tmp_path / "out", no_progress)
    assert found.stats == produced.stats | {"unreadable": 2, "unreadable_rows": f"{bad[0]}, {bad[1]}"}
    vectors, sound = np.load(tmp_path / "out" / "vectors.npy"), np.load(out / "vectors.npy")
    spoiled = np.isin(rows, bad)
    assert np.array_equal(vectors[spoiled][0], vectors[spoiled][1]), "both are plain grey"
    np.testing.assert_allclose(vectors[~spoiled], sound[~spoiled], atol=2e-3)


def test_features_that_are_of_no_use_are_to_be_removed_since_they_would_be_found_again(done, tmp_path):
    shutil.copytree(done[1], tmp_path / "damaged")
    np.save(tmp_path / "damaged" / "rows.npy", np.load(done[1] / "rows.npy")[::-1])
    with pytest.raises(DataError, match="sorted by row") as told:
        load_features(tmp_path / "damaged")
    assert told.value.remedy == f"remove {tmp_path / 'damaged'} and run the recipe again, which makes it anew"
