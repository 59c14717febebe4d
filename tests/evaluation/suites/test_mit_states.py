from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.features import imagenet_like
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.mit_states import halves, mit_states_suite
from xclr.recipe import ProbeConfig

CONFIG = SuiteConfig(suite="mit-states", bootstrap=100, seed=0, probe=ProbeConfig(epochs=5))
CLASSES = st.lists(st.integers(0, 12), min_size=1, max_size=80)


def states(n=500, objects=6, attributes=4, seed=0):
    """Features that tell objects well and attributes less well, all of split "all"."""
    rng = np.random.default_rng(seed)
    noun, adjective = rng.integers(objects, size=n), rng.integers(attributes, size=n)
    vectors = 3 * rng.normal(size=(objects, 8))[noun] + rng.normal(size=(attributes, 8))[adjective]
    vectors = (vectors + rng.normal(size=(n, 8))).astype(np.float16)
    labels = Labels(np.full(n, "all"), Ragged.single(noun), attribute=adjective)
    return Features(FeatureSet(np.arange(n), vectors)), labels


@given(CLASSES, st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_classes_of_two_are_in_both_halves_and_single_pictures_are_trained_on(classes, seed):
    classes = np.array(classes)
    held_out = halves(classes, seed)
    sizes = np.bincount(classes)
    for each in np.unique(classes):
        tested = int(held_out[classes == each].sum())
        if sizes[each] == 1:
            assert tested == 0
        else:
            assert 1 <= tested <= sizes[each] - 1
            assert abs(2 * tested - sizes[each]) <= 1
    shared = sizes[sizes > 1].sum()
    assert held_out.sum() == shared // 2


@given(CLASSES, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_halves_are_a_function_of_the_seed_and_not_of_the_names_of_the_classes(classes, seed):
    classes = np.array(classes)
    assert (halves(classes, seed) == halves(classes, seed)).all()
    assert (halves(classes, seed) == halves(3 * classes + 5, seed)).all()


def test_every_picture_is_held_out_in_about_half_of_the_seeds():
    classes = np.repeat([0, 1, 2], [2, 3, 15])
    often = sum(halves(classes, seed).astype(int) for seed in range(600))
    assert often.min() > 600 * 0.25
    assert often.max() < 600 * 0.75
    assert len({halves(classes, seed).tobytes() for seed in range(20)}) > 15


def test_two_probes_are_scored_on_the_other_half():
    features, labels = states()
    result = mit_states_suite(features, labels, CONFIG)
    assert [(each.split, each.metric) for each in result.scores] == [
        (split, metric) for split in ("objects", "attributes") for metric in ("top1", "top5", "per_class")
    ]
    found = {(each.split, each.metric): each.value for each in result.scores}
    assert found["objects", "top1"] > 0.9 > found["attributes", "top1"] > 0.4  # 0.25 by chance
    assert all(each.n == 250 for each in result.scores)
    table = result.predictions.to_pandas()
    for split, classes in (("objects", labels.target), ("attributes", labels.attribute)):
        part = table[table.split == split]
        assert (part.row_id == np.flatnonzero(halves(classes, 0))).all()
        assert (part.right == (classes[part.row_id] == part.prediction)).all()
        assert part.right.mean() == pytest.approx(found[split, "top1"])


@pytest.mark.parametrize("split", ["objects", "attributes"])
def test_the_held_out_half_changes_no_head(split):
    """With the held-out pictures in another order their answers are the same in that order."""
    features, labels = states()
    tested = np.flatnonzero(halves(labels.target if split == "objects" else labels.attribute, 0))
    other = np.random.default_rng(0).permutation(tested)
    vectors = features.pictures.vectors.copy()
    vectors[tested] = vectors[other]
    tables = (
        mit_states_suite(each, labels, CONFIG).predictions.to_pandas()
        for each in (features, Features(FeatureSet(np.arange(500), vectors)))
    )
    before, after = (table[table.split == split].set_index("row_id") for table in tables)
    assert (after.prediction[tested].to_numpy() == before.prediction[other].to_numpy()).all()
    assert after.right.mean() < before.right.mean()


def test_pictures_without_an_attribute_are_left_out_of_its_probe():
    features, labels = states()
    attribute = np.where(np.arange(500) < 100, -1, labels.attribute)
    result = mit_states_suite(features, replace(labels, attribute=attribute), CONFIG)
    assert {each.n for each in result.scores if each.split == "objects"} == {250}
    assert {each.n for each in result.scores if each.split == "attributes"} == {200}


def test_classes_of_single_pictures_alone_are_refused():
    features, labels = imagenet_like(n=20)
    alone = replace(labels, targets=Ragged.single(np.arange(20)), attribute=np.arange(20))
    with pytest.raises(DataError, match="no two pictures of one of its objects"):
        mit_states_suite(features, alone, CONFIG)
