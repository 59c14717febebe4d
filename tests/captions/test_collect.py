"""The captions stage: dense row ids, duplicates marked, counts that add up."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xclr import schema
from xclr.captions import normalise, reader_of, run
from xclr.captions.collect import BATCH, Keys, by_name
from xclr.captions.collect import first_rows as firsts_of
from xclr.captions.stages import CAPTIONS, CaptionsConfig
from xclr.captions.text import key
from xclr.recipe import DataConfig
from xclr.stage import Stage


def collect(data, out):
    """Runs the stage; returns the table, what was produced and the progress that was told."""
    seen = []
    stage = Stage(CAPTIONS, "captions", CaptionsConfig(data=data, sha256=("0",)))
    produced = run(stage, out, lambda done, total: seen.append((done, total)))
    return schema.read(out / "captions.parquet", schema.CAPTIONS), produced, seen


def of_table(captions, folder):
    path = folder / "mine.parquet"
    pq.write_table(pa.table({"caption": captions, "image": [b"1"] * len(captions)}), path)
    return DataConfig(source="table", path=path)


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    out = tmp_path_factory.mktemp("emoji")
    return out, *collect(DataConfig(), out)


def test_row_ids_are_dense_from_0(emoji):
    _, table, produced, seen = emoji
    assert table["row_id"].to_pylist() == list(range(16453))
    assert produced.stats["rows"] == 16453
    assert seen[-1] == (16453, 16453)


def first_rows(captions):
    """For each row the first row with its caption, None for that row itself."""
    return [None if captions.index(each) == row else captions.index(each) for row, each in enumerate(captions)]


def test_duplicates_point_to_the_first_row_of_their_caption(emoji):
    _, table, produced, _ = emoji
    captions = table["caption"].to_pylist()
    first = {caption: row for row, caption in reversed(list(enumerate(captions)))}
    assert table["dup_of"].to_pylist() == [
        None if first[caption] == row else first[caption] for row, caption in enumerate(captions)
    ]
    assert produced.stats["distinct"] == len(first) == table["dup_of"].null_count
    assert table["caption_key"].to_pylist() == [key(caption) for caption in captions]


@settings(max_examples=25, deadline=None)
@given(captions=st.lists(st.sampled_from(["a dog", "a  dog ", "A dog", "caf\u00e9", "cafe\u0301", "x"]), min_size=1))
def test_captions_are_duplicates_when_their_normal_forms_are_equal(captions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    table, produced, _ = collect(of_table(captions, folder), folder)
    normal = [normalise(each) for each in captions]
    assert table["caption"].to_pylist() == normal
    assert table["dup_of"].to_pylist() == first_rows(normal)
    assert table["row_id"].to_pylist() == list(range(len(captions)))
    assert produced.stats["distinct"] == len(set(normal))


def test_counts_of_the_splits_add_up(emoji):
    _, table, produced, _ = emoji
    splits = table["split"].to_pylist()
    counts = {name: count for name, count in produced.stats.items() if name not in {"rows", "distinct"}}
    assert counts == {name: splits.count(name) for name in set(splits)}
    assert sum(counts.values()) == 16453


def test_the_number_of_training_rows_is_told_even_when_it_is_0(tmp_path):
    def named(rows):
        path = tmp_path / "mine.parquet"
        columns = {"caption": ["a dog"] * len(rows), "image": [b"1"] * len(rows), "row_id": rows}
        pq.write_table(pa.table(columns), path)
        return DataConfig(source="table", path=path)

    splits = [each["split"] for each in reader_of("table").captions(named(list(range(100))))]
    held_out = [row for row, split in enumerate(splits) if split == "pictures"][:2]
    _, produced, _ = collect(named(held_out), tmp_path)
    assert produced.stats == {"rows": 2, "distinct": 1, "pictures": 2, "train": 0}


def test_the_emoji_have_annotations_for_every_row(emoji):
    out, table, produced, _ = emoji
    assert produced.files == ("captions.parquet", "classes.parquet", "annotations.parquet")
    annotations = schema.read(out / "annotations.parquet", schema.ANNOTATIONS)
    assert annotations["row_id"].to_pylist() == table["row_id"].to_pylist()
    assert all(tags == sorted(tags) for tags in annotations["tags"].to_pylist())


def test_a_table_has_no_annotations(tmp_path):
    table, produced, _ = collect(of_table(["a dog", "a cat"], tmp_path), tmp_path)
    assert produced.files == ("captions.parquet",)
    assert table["dataset"].to_pylist() == ["table", "table"]
    assert table["label"].to_pylist() == [None, None]


def test_a_source_gives_as_many_pictures_as_captions(tmp_path):
    for data in (DataConfig(limit=50), of_table(["a dog", "a cat"], tmp_path)):
        source = reader_of(data.source)
        assert sum(1 for _ in source.captions(data)) == sum(1 for _ in source.pictures(data))


def test_the_same_data_give_the_same_file(tmp_path):
    data = DataConfig(limit=200)
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        collect(data, tmp_path / name)
        files.append((tmp_path / name / "captions.parquet").read_bytes())
    assert files[0] == files[1]


def test_labels_are_numbered_in_the_order_of_their_names():
    assert by_name([0, 1, -1, 2, 0], {"pet": 0, "farm": 1, "wild": 2}).tolist() == [1, 0, -1, 2, 1]
    assert by_name([-1, -1], {}).tolist() == [-1, -1]


@given(numbers=st.lists(st.integers(0, 5)))
def test_first_rows_are_found_by_all_16_bytes(numbers, tmp_path_factory):
    keys = [bytes(8) + bytes([each]) + bytes(7) if each % 2 else bytes([each]) + bytes(15) for each in numbers]
    kept = Keys(tmp_path_factory.mktemp("keys") / "some")
    kept.add(keys)
    assert firsts_of(kept).tolist() == [keys.index(each) for each in keys]
    odd = [each for each in keys if each[8]]
    assert firsts_of(kept, np.array([each[8] > 0 for each in keys], dtype=bool)).tolist() == [
        odd.index(each) for each in odd
    ]


def test_rows_beyond_a_batch_go_on_with_the_numbers(tmp_path):
    captions = [f"a thing {number % 1000}" for number in range(BATCH + 500)]
    table, produced, seen = collect(of_table(captions, tmp_path), tmp_path)
    assert table["row_id"].to_pylist() == list(range(len(captions)))
    assert table["dup_of"].to_pylist() == [None] * 1000 + [row % 1000 for row in range(1000, len(captions))]
    assert produced.stats["distinct"] == 1000
    assert produced.scratch == ("draft",)
    assert seen == [(BATCH, BATCH + 500), (BATCH + 500, BATCH + 501), (BATCH + 500, BATCH + 500)]


def test_addresses_and_labels_reach_the_table(tmp_path):
    text = "caption,image,kind\na dog,http://host/a.jpg,pet\na cow,,farm\na fox,http://host/c.jpg,\n"
    (tmp_path / "mine.csv").write_text(text)
    data = DataConfig(source="table", path=tmp_path / "mine.csv", label_column="kind")
    table, _, _ = collect(data, tmp_path)
    assert table["url"].to_pylist() == ["http://host/a.jpg", None, "http://host/c.jpg"]
    assert table["label"].to_pylist() == [1, 0, None]


# VmHWM, because ru_maxrss of a child starts with that of the process that started it
MEASURED = """
import json, re, sys
from pathlib import Path
from xclr.captions import run
from xclr.recipe import DataConfig
from xclr.captions.stages import CAPTIONS, CaptionsConfig
from xclr.stage import Stage
source, label = sys.argv[1], "kind" if sys.argv[1] == "table" else None
for folder in map(Path, sys.argv[2:]):
    config = CaptionsConfig(data=DataConfig(source=source, path=folder / "mine.csv", label_column=label), sha256=())
    run(Stage(CAPTIONS, "captions", config), folder, lambda done, total: None)
    print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("source", ["table", "cc12m"])
def test_memory_grows_by_little_more_than_a_row_s_keys(source, tmp_path):
    """CC12M's 12.4 million rows took 0.6 GiB: 0.2 for a batch, and 35 bytes a row; text would take 300 more."""
    few, many = 40_000, 240_000
    folders = [tmp_path / "few", tmp_path / "many"]
    for folder, rows in zip(folders, (few, many), strict=True):
        folder.mkdir()
        write_rows(source, rows, folder / "mine.csv")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", MEASURED, source, *map(str, folders)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, last = map(int, done.stdout.split())
    assert first <= 300 * 2**20
    assert (last - first) / (many - few) <= 250
    table = schema.read(folders[1] / "captions.parquet", schema.CAPTIONS)
    assert np.array_equal(table["row_id"].to_numpy(), np.arange(many))
    assert table["dup_of"].null_count == 150_000
    assert table["dup_of"][many - 1].as_py() == many - 1 - 150_000
    assert table["url"][many - 1].as_py() == f"http://host/{many - 1}.jpg"


def write_rows(source, rows, path):
    """A table of captions of some 300 characters, of which 150,000 are distinct."""
    said = "a photo of thing {0}" + ", taken on a long and sunny day" * 9
    forms = {"table": f'"{said}",http://host/{{1}}.jpg,kind {{2}}\n', "cc12m": f"http://host/{{1}}.jpg\t{said}\n"}
    with path.open("w") as stream:
        stream.write("caption,image,kind\n" if source == "table" else "")
        stream.writelines(forms[source].format(row % 150_000, row, row % 999) for row in range(rows))
