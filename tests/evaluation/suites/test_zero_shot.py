"""Zero-shot classification: CLIP's ensemble of sentences, and the scores of the nearest class vector."""

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score
from torch.nn import functional as F

from xclr.errors import DataError, RecipeError
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged
from xclr.evaluation.networks.towers import PairTowers
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites import zero_shot as module
from xclr.evaluation.suites.zero_shot import (
    class_vectors,
    curated,
    imagenet_synsets,
    prompts_of,
    published_prompts,
    zero_shot_suite,
)
from xclr.graph.wordnet import shipped
from xclr.recipe import TrainConfig
from xclr.training.model import projector
from xclr.training.objectives.towers import scratch_text
from xclr.training.words import Vocabulary, vocabulary

CONFIG = SuiteConfig(suite="zero-shot", bootstrap=100, seed=0)
TRAIN = TrainConfig(projector_hidden=32, projector_out=16)
NAMES = open_clip.IMAGENET_CLASSNAMES[:45]


@pytest.fixture(scope="module")
def towers():
    """Towers with fresh weights that know half of the words."""
    torch.manual_seed(0)
    words = Vocabulary(vocabulary(["a photo of a cat and a great white shark, of many tench.", *NAMES[::2]]), 9)
    head, text = projector(12, TRAIN).eval(), scratch_text(words, TRAIN).eval()
    return PairTowers(head, text, words.tokenize)


class AsOpenClip:
    """The text tower under the name by which open_clip calls it."""

    def __init__(self, towers):
        self.towers = towers

    def encode_text(self, tokens, normalize=False):
        found = self.towers.text(tokens)
        return F.normalize(found, dim=-1) if normalize else found


@pytest.mark.parametrize("build", [open_clip.build_zero_shot_classifier, open_clip.build_zero_shot_classifier_legacy])
def test_class_vectors_are_open_clips_classifier(towers, build):
    expected = build(AsOpenClip(towers), towers.read, NAMES, open_clip.OPENAI_IMAGENET_TEMPLATES)
    found = class_vectors(towers, NAMES, published_prompts()).clone()
    assert found.shape == (45, 16)
    torch.testing.assert_close(found, expected.T, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(45))


def test_class_vectors_are_the_same_in_small_parts(towers, monkeypatch):
    whole = class_vectors(towers, NAMES, ["a {}.", "the {}, a {}"])
    monkeypatch.setattr(module, "CAPTIONS", 7)
    torch.testing.assert_close(class_vectors(towers, NAMES, ["a {}.", "the {}, a {}"]), whole, rtol=1e-5, atol=1e-6)


def test_predictions_are_those_of_open_clips_classifier(towers):
    classifier = open_clip.build_zero_shot_classifier(
        AsOpenClip(towers), towers.read, NAMES, open_clip.OPENAI_IMAGENET_TEMPLATES
    )
    pictures = towers.pictures(torch.randn(200, 12, generator=torch.Generator().manual_seed(3)))
    vectors = class_vectors(towers, NAMES, published_prompts())
    result = zero_shot_suite(*given_by(pictures.numpy(), vectors.numpy(), np.arange(200) % 45), CONFIG)
    expected = (100 * pictures @ classifier).argmax(1).tolist()
    assert result.predictions["prediction"].to_pylist() == expected


def test_the_published_sentences_are_open_clips_80():
    prompts = published_prompts()
    assert len(prompts) == len(set(prompts)) == 80
    assert all(prompt.count("{}") == 1 for prompt in prompts)
    for name in ("tench", "kite (bird of prey)"):
        filled = [prompt.replace("{}", name) for prompt in prompts]
        assert filled == [template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES]


def test_a_recipes_sentences_take_the_place_of_the_published():
    assert prompts_of(CONFIG) == published_prompts()
    assert prompts_of(CONFIG.model_copy(update={"prompts": ("a {}",)})) == ("a {}",)


def test_braces_in_a_name_are_no_place_for_another(towers):
    found = class_vectors(towers, ["a {0} {}", "b"], ["photo of {}"])
    torch.testing.assert_close(found[0], towers.texts(["photo of a {0} {}"])[0], rtol=1e-5, atol=1e-6)


def test_sentences_without_a_place_and_no_classes_are_refused(towers):
    with pytest.raises(RecipeError, match=r"evaluate\.prompts: no place .*'a photo'"):
        class_vectors(towers, ["a", "b"], ["a {}", "a photo"])
    with pytest.raises(RecipeError, match=r"evaluate\.prompts: there are none"):
        class_vectors(towers, ["a", "b"], [])
    with pytest.raises(DataError, match="no classes"):
        class_vectors(towers, [], ["a {}"])


def test_the_1000_synsets_are_the_classes_of_the_challenge():
    synsets = imagenet_synsets()
    assert len(synsets) == 1000 and list(synsets) == sorted(set(synsets))
    assert {"n01440764", "n02012849", "n03126707", "n15075141"} <= set(synsets)
    assert "n02084071" not in synsets  # dog is above its breeds


def test_all_of_imagenet_gets_the_curated_names_class_by_class():
    synsets = imagenet_synsets()
    names = curated(["?"] * 1000, synsets)
    assert tuple(names) == tuple(open_clip.IMAGENET_CLASSNAMES)
    assert dict(zip(synsets, names, strict=True))["n02012849"] == "crane bird"
    assert dict(zip(synsets, names, strict=True))["n03126707"] == "construction crane"
    lemmas = [shipped().names[each].split(".")[0].replace("_", " ").lower() for each in synsets]
    alike = [name.lower() == lemma for name, lemma in zip(names, lemmas, strict=True)]
    assert sum(alike) > 600  # WordNet's first lemma; one class out of place would leave some 300
    assert min(sum(alike[start : start + 100]) for start in range(0, 1000, 100)) > 25


def test_a_part_of_imagenet_gets_the_names_of_its_classes():
    synsets = imagenet_synsets()
    names = dict(zip(synsets, open_clip.IMAGENET_CLASSNAMES, strict=True))
    for some in (synsets[:-1], synsets[::-1], synsets[100:900:7]):
        assert list(curated(["?"] * len(some), some)) == [names[each] for each in some]


@pytest.mark.parametrize("change", ["unknown", "none"])
def test_other_classes_keep_their_names(change):
    synsets = list(imagenet_synsets())
    synsets = {
        "unknown": [*synsets[:-1], "n99999999"],
        "none": [None] * 1000,
    }[change]
    names = [f"class {index}" for index in range(len(synsets))]
    assert curated(names, synsets) == names


def given_by(pictures, texts, target, split=None, rows=None):
    """Projections and labels of n pictures."""
    n = len(pictures)
    rows = np.arange(n) if rows is None else rows
    splits, targets = np.full(rows.max() + 1, "train"), np.full(rows.max() + 1, -1)
    splits[rows], targets[rows] = ("val" if split is None else split), target
    features = Features(
        FeatureSet(rows, pictures.astype(np.float32)),
        texts=FeatureSet(np.arange(len(texts)), texts.astype(np.float32)),
    )
    return features, Labels(splits, Ragged.single(targets))


def values(result):
    return {each.metric: each.value for each in result.scores}


def random_case(n=120, classes=9, seed=0):
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(classes, 6))
    target = np.r_[np.arange(classes), rng.integers(classes, size=n - classes)]
    pictures = texts[target] + rng.normal(size=(n, 6))
    return pictures, texts, target


def test_scores_of_a_case_worked_by_hand():
    axes = np.eye(6)
    pictures = axes @ np.diag([6, 5, 4, 3, 2, 1])  # picture i is on axis i alone
    pictures[1] = [6, 5, 4, 3, 2, 1]  # nearest to 0, then 1
    pictures[5] = [6, 5, 4, 3, 2, 1]  # its class comes last
    result = zero_shot_suite(*given_by(pictures, axes, np.array([0, 1, 2, 0, 0, 5])), CONFIG)
    assert [(each.suite, each.split, each.n) for each in result.scores] == [("zero-shot", "val", 6)] * 3
    # picture 3 is of class 0 and lies on axis 3, picture 4 on axis 4: the other axes tie at 0, lower classes first
    assert values(result) == {"top1": 2 / 6, "top5": 5 / 6, "per_class": pytest.approx((1 / 3 + 0 + 1 + 0) / 4)}
    assert result.predictions.to_pylist()[3] == {
        "row_id": 3, "split": "val", "target": [0], "prediction": 3, "right": False,
    }  # fmt: skip


def test_scores_are_scikit_learns():
    pictures, texts, target = random_case()
    unit = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    cosines = pictures @ unit.T
    result = zero_shot_suite(*given_by(pictures, texts, target), CONFIG)
    labels = np.arange(len(texts))
    assert values(result) == {
        "top1": pytest.approx(top_k_accuracy_score(target, cosines, k=1, labels=labels)),
        "top5": pytest.approx(top_k_accuracy_score(target, cosines, k=5, labels=labels)),
        "per_class": pytest.approx(balanced_accuracy_score(target, cosines.argmax(1))),
    }
    assert all(0 < each.ci95 < 0.2 and each.ci_kind == "bootstrap" for each in result.scores)
    assert np.mean(result.predictions["right"].to_numpy()) == pytest.approx(values(result)["top1"])


def test_only_labelled_pictures_of_val_count():
    pictures, texts, target = random_case()
    rows, split = np.arange(120) * 2 + 1, np.where(np.arange(120) % 3 == 0, "val", "train")
    target[[0, 3]] = -1
    result = zero_shot_suite(*given_by(pictures, texts, target, split, rows), CONFIG)
    assert {each.n for each in result.scores} == {38}
    assert result.predictions["row_id"].to_pylist() == (rows[::3][2:]).tolist()


def test_towers_that_give_one_vector_are_at_chance():
    pictures, texts, target = np.ones((90, 4)), np.ones((9, 4)), np.arange(90) % 9
    found = values(zero_shot_suite(*given_by(pictures, texts, target), CONFIG))
    assert found == {"top1": pytest.approx(1 / 9), "top5": pytest.approx(5 / 9), "per_class": pytest.approx(1 / 9)}


def test_fewer_than_five_classes_are_all_among_the_five():
    pictures, texts, target = random_case(classes=3)
    assert values(zero_shot_suite(*given_by(pictures, texts, target), CONFIG))["top5"] == 1


def test_half_precision_and_unequal_lengths_change_nothing():
    pictures, texts, target = random_case()
    plain = zero_shot_suite(*given_by(pictures, texts, target), CONFIG)
    scaled = pictures * np.linspace(0.5, 2, 120)[:, None], texts * np.linspace(0.5, 2, 9)[:, None]
    assert values(zero_shot_suite(*given_by(*scaled, target), CONFIG)) == values(plain)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), order=st.permutations(range(30)))
def test_the_order_of_the_pictures_changes_no_score(seed, order):
    pictures, texts, target = random_case(n=30, classes=6, seed=seed)
    found = values(zero_shot_suite(*given_by(pictures, texts, target), CONFIG))
    assert found["top1"] <= found["top5"]
    order = np.array(order)
    assert values(zero_shot_suite(*given_by(pictures[order], texts, target[order]), CONFIG)) == pytest.approx(found)


def test_what_is_not_there_is_named():
    pictures, texts, target = random_case()
    features, labels = given_by(pictures, texts, target)
    with pytest.raises(DataError, match="no classes"):
        zero_shot_suite(Features(features.pictures), labels, CONFIG)
    with pytest.raises(DataError, match="no picture of split 'val'"):
        zero_shot_suite(*given_by(pictures, texts, target, split="train"), CONFIG)
    for broken in (np.where(pictures > 2, np.nan, pictures), np.where(pictures > 2, np.inf, pictures)):
        with pytest.raises(DataError, match="not finite"):
            zero_shot_suite(*given_by(broken, texts, target), CONFIG)
