"""Drawn scenes: rows that depend on nothing but the seed and their number, in splits that keep their promises."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from tests.kit.scenes import made_captions
from xclr import schema
from xclr.captions import scenes
from xclr.captions.scenes import OTHER_WORDS, READER
from xclr.captions.shared import SCENES, SHARED, factors_of, picture_of_row
from xclr.captions.stages import CAPTIONS
from xclr.errors import RecipeError
from xclr.recipe import DataConfig, parse_recipe
from xclr.recipe.scenes import FACTORS, HELD_OUT, combinations, usual_place

RARE = 1e-4  # of a chance that a fixed seed fails by


def config(**given):
    return DataConfig(source="scenes", **({"tests": 500, "pictures": 6000} | given))


@pytest.fixture(scope="module")
def records():
    return list(READER.captions(config()))


def of(records, split):
    return [each["scene"] for each in records if each["split"] == split]


def test_a_row_does_not_depend_on_how_many_are_asked_for(records):
    assert len(records) == READER.size(config()) == 3 * 500 + 6000
    fewer = list(READER.captions(config(pictures=100)))
    assert fewer == records[: len(fewer)]
    assert [each["split"] for each in fewer] == [
        name for name, n in scenes.splits(config(pictures=100)) for _ in range(n)
    ]
    assert len({each["key"] for each in records}) == len(records)


def test_another_seed_is_another_set(records):
    other = list(islice(READER.captions(config(seed=1)), 50))
    assert all(a["key"] != b["key"] for a, b in zip(other, records, strict=False))
    assert [each["scene"] for each in other] != [each["scene"] for each in records[:50]]


def test_a_place_is_its_kinds_usual_one_with_the_chance_that_the_bias_says(records):
    kinds, places = FACTORS["kind"], FACTORS["place"]

    def usual(split):
        shown = of(records, split)
        return sum(places[usual_place(kinds.index(each["kind"]))] == each["place"] for each in shown), len(shown)

    by_chance = 1 / len(places)
    for split, share in (("train", 0.8 + 0.2 * by_chance), ("pictures", 0.8 + 0.2 * by_chance), ("places", by_chance)):
        assert binomtest(*usual(split), share).pvalue > RARE
    for factor in ("kind", "place"):
        counts = Counter(each[factor] for each in of(records, "places"))
        assert chisquare([counts[value] for value in FACTORS[factor]]).pvalue > RARE


def test_combinations_are_held_out_and_shown_nowhere_else(records):
    held_out = set(HELD_OUT)
    assert len(held_out) == len(FACTORS["kind"]) == len(combinations(HELD_OUT))
    for split in ("train", "pictures", "places"):
        assert not held_out & {f"{each['colour']} {each['kind']}" for each in of(records, split)}
    assert {f"{each['colour']} {each['kind']}" for each in of(records, "combinations")} == held_out
    without = config(held_out=())
    assert {name for name, _ in scenes.splits(without)} == {"pictures", "places", "train"}
    shown = {f"{each['scene']['colour']} {each['scene']['kind']}" for each in READER.captions(without)}
    assert held_out < shown and len(shown) == 120


def test_captions_name_what_is_there_and_leave_parts_out(records):
    parts = Counter()
    for each in records:
        shown = each["scene"]
        words = {name: OTHER_WORDS.get(shown[name], (shown[name],)) for name in FACTORS}
        assert any(word in each["caption"] for word in words["kind"])
        for name in ("colour", "texture", "place"):
            told = any(word and word in each["caption"] for word in words[name])
            others = [
                v
                for v in FACTORS[name]
                if v != shown[name]
                for w in OTHER_WORDS.get(v, (v,))
                if w in each["caption"].split()
            ]
            parts[name] += told
            assert told or not others or name != "colour"
    assert parts["colour"] / len(records) == pytest.approx(0.8, abs=0.02)
    assert parts["place"] / len(records) == pytest.approx(0.6, abs=0.02)
    assert len({each["caption"] for each in records}) > 0.7 * len(records)
    assert not any("a orange" in each["caption"] for each in records)
    assert any("an orange" in each["caption"] for each in records)


def test_a_share_of_the_captions_is_of_other_scenes_and_the_scenes_stay(records):
    noisy = list(READER.captions(config(noise=0.3)))
    wrong = [each["scene"]["wrong"] for each in noisy]
    assert binomtest(sum(wrong), len(wrong), 0.3).pvalue > RARE
    assert [each["scene"] | {"wrong": False} for each in noisy] == [each["scene"] for each in records]
    named = [
        any(word in each["caption"] for word in OTHER_WORDS.get(each["label"], (each["label"],)))
        for each, other in zip(noisy, wrong, strict=True)
        if other
    ]
    assert np.mean(named) < 0.2  # a twelfth by chance
    assert not any(each["scene"]["wrong"] for each in records)


def test_captions_of_a_picture_stand_one_after_the_other(tmp_path):
    captions = made_captions(tmp_path, captions_each=3, pictures=20, tests=4).path
    table = schema.read(captions / "captions.parquet", schema.CAPTIONS)
    assert table.num_rows == 3 * (20 + 3 * 4)
    assert (picture_of_row(captions, table.num_rows) == np.arange(table.num_rows) // 3 * 3).all()
    truth = schema.read(captions / SCENES, schema.SCENES)
    shown = list(zip(*(truth[name].to_pylist() for name in FACTORS), strict=True))
    assert all(len(set(shown[row : row + 3])) == 1 for row in range(0, len(shown), 3))
    texts = table["caption"].to_pylist()
    assert np.mean([len(set(texts[row : row + 3])) for row in range(0, len(texts), 3)]) > 2


def test_the_truth_stands_beside_the_captions(tmp_path):
    captions = made_captions(tmp_path)
    assert not (captions.path / SHARED).exists()
    truth = schema.read(captions.path / SCENES, schema.SCENES)
    table = schema.read(captions.path / "captions.parquet", schema.CAPTIONS)
    classes = schema.read(captions.path / "classes.parquet", schema.CLASSES)
    assert classes["name"].to_pylist() == sorted(FACTORS["kind"])
    names = [classes["name"][label].as_py() for label in table["label"].to_pylist()]
    assert names == truth["kind"].to_pylist()
    for name, numbers in factors_of(captions.path).items():
        assert [FACTORS[name][number] for number in numbers] == truth[name].to_pylist()
    assert 0.25 <= min(truth["radius"].to_pylist()) < max(truth["radius"].to_pylist()) <= 0.4


def test_the_size_of_the_pictures_and_the_number_of_shards_name_no_captions():
    asked = [config(), config(size=32), config(shard=100)]
    assert len({each.for_captions.model_dump_json() for each in asked}) == 1
    assert CAPTIONS.config(data=config(), sha256=(READER.captions_listing(config()),)).several is False
    several = config(captions_each=2)
    assert CAPTIONS.config(data=several, sha256=(READER.captions_listing(several),)).several is True


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bias": 1.2}, "data.bias"),
        ({"noise": -0.1}, "data.noise"),
        ({"size": 16}, "data.size"),
        ({"captions_each": 0}, "data.captions_each"),
        ({"held_out": ["red cirle"]}, "did you mean circle?"),
        ({"held_out": ["read circle"]}, "did you mean red?"),
        ({"held_out": ["circle"]}, "no kind is called ''"),
        ({"held_out": ["red circle", "red circle"]}, "stands twice"),
        ({"held_out": [f"{colour} star" for colour in FACTORS["colour"]]}, "leaves training no star"),
        ({"limit": 100}, "`pictures` says how many"),
        ({"source": "emoji", "bias": 0.5}, "`bias` is of source scenes"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_any_work(given, said):
    with pytest.raises(RecipeError, match=said.replace("?", r"\?")):
        parse_recipe({"name": "scenes", "data": {"source": "scenes"} | given}, "scenes")
