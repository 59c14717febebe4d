"""The embedded emoji: every picture once, in one order, and splits that keep their promises."""

import random
from collections import Counter
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xclr.captions import emoji
from xclr.captions.emoji import EMOJI_FILES
from xclr.captions.text import key, normalise
from xclr.recipe import DataConfig

SPLITS = {"train", "pictures", "concepts", "vendor", "unused"}


@pytest.fixture(scope="module")
def source():
    """The shipped tables' rows, by the key of the sample."""
    tables = [pq.read_table(path).drop_columns("licence") for path in EMOJI_FILES]
    rows = pa.concat_tables(tables).to_pylist()
    return {key("emoji", row["vendor"], row["hex"]): row for row in rows}


@pytest.fixture(scope="module")
def records():
    return list(emoji.captions(DataConfig()))


@pytest.fixture(scope="module")
def split(source, records):
    """The source rows of each split."""
    rows = {name: [] for name in SPLITS}
    for record in records:
        rows[record["split"]].append(source[record["key"]])
    return rows


def concepts(rows):
    return {row["concept"] for row in rows}


def test_every_picture_has_one_record(source, records):
    assert sum(pq.read_metadata(path).num_rows for path in EMOJI_FILES) == len(source) == len(records) == 16453
    assert {record["key"] for record in records} == set(source)


def test_records_carry_their_pictures_name_and_classes(source, records):
    for record in random.Random(0).sample(records, 500):
        row = source[record["key"]]
        assert record["caption"] == normalise(row["label"])
        assert record["tags"] == sorted(row["tags"])
        assert record["label"] == row["concept"]
    for column, field in (("subgroup", "subgroup"), ("group", "group")):
        pairs = {(record[field], source[record["key"]][column]) for record in records}
        numbers, names = zip(*sorted(pairs), strict=True)
        assert list(numbers) == list(range(len(pairs)))
        assert list(names) == sorted(set(names))


def test_the_order_is_the_same_every_time_and_pictures_follow_it(source, records):
    assert [record["key"] for record in emoji.captions(DataConfig())] == [record["key"] for record in records]
    pictures = list(emoji.pictures(DataConfig()))
    assert pictures == [source[record["key"]]["image"] for record in records]


def test_the_drawings_of_a_concept_stand_side_by_side(source, records):
    order = [source[record["key"]]["concept"] for record in records]
    turns = sum(left != right for left, right in pairwise(order))
    assert turns == len(set(order)) - 1


@pytest.mark.parametrize("limit", [1, 40, 3000])
def test_a_limit_takes_the_first_rows(limit, records):
    few = list(emoji.captions(DataConfig(limit=limit)))
    assert [(each["key"], each["caption"]) for each in few] == [
        (each["key"], each["caption"]) for each in records[:limit]
    ]
    assert sum(1 for _ in emoji.pictures(DataConfig(limit=limit))) == limit


def test_every_split_has_pictures(split):
    assert set(split) == SPLITS
    assert all(split.values())


def test_the_held_out_vendor_is_never_trained_on(split):
    assert {row["vendor"] for row in split["train"]}.isdisjoint({"openmoji"})
    assert {row["vendor"] for row in split["pictures"] + split["concepts"]}.isdisjoint({"openmoji"})
    assert {row["vendor"] for row in split["vendor"]} == {"openmoji"}


def test_held_out_concepts_are_never_trained_on(split):
    held_out = concepts(split["concepts"])
    assert held_out
    for name in ("train", "pictures", "vendor"):
        assert held_out.isdisjoint(concepts(split[name]))
    share = len(held_out) / len(held_out | concepts(split["train"]))
    assert 0.12 < share < 0.18


def test_the_other_test_splits_show_concepts_that_were_trained_on(split):
    for name in ("pictures", "vendor"):
        known = concepts(split[name]) & concepts(split["train"])
        assert len(known) > 0.9 * len(concepts(split[name]))


def test_a_held_out_drawing_is_not_trained_on_in_another_tone(split):
    def drawings(name):
        return {(row["vendor"], row["base"]) for row in split[name]}

    assert drawings("pictures").isdisjoint(drawings("train"))


def test_exactly_1500_toned_pictures_are_trained_on_and_none_is_tested(split):
    assert sum(bool(row["tone"]) for row in split["train"]) == 1500
    for name in ("pictures", "concepts", "vendor"):
        assert not any(row["tone"] for row in split[name])


def test_left_out_pictures_are_toned_or_the_held_out_vendors_held_out_concepts(split):
    held_out = concepts(split["concepts"])
    for row in split["unused"]:
        assert row["tone"] or (row["vendor"] == "openmoji" and row["concept"] not in concepts(split["train"]))
    assert held_out & concepts(split["unused"])


def test_split_sizes_stay_what_the_results_were_measured_on(records):
    sizes = Counter(record["split"] for record in records)
    assert sizes == {"train": 8593, "pictures": 784, "concepts": 1338, "vendor": 1402, "unused": 4336}
