"""Pictures with several captions: one picture in every split, batch and ranking."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.kit.finished import finish
from tests.kit.recipes import TINY
from tests.kit.stages import no_progress
from xclr import schema
from xclr.captions import run
from xclr.captions.shared import SHARED, picture_of_row
from xclr.captions.stages import CAPTIONS, CaptionsConfig
from xclr.captions.stages import captions as captions_stage
from xclr.captions.table import READER, captions_listing
from xclr.errors import DataError
from xclr.pipeline import pipeline
from xclr.recipe import DataConfig, parse_recipe
from xclr.stage import Stage
from xclr.store import Store
from xclr.training.loader import open_batches
from xclr.training.ranks import Rank

PICTURES, EACH = 40, 3


def drawn(folder):
    """Pictures of one colour each."""
    for number in range(PICTURES):
        Image.new("RGB", (32, 32), (6 * number, 255 - 6 * number, 40)).save(folder / f"{number}.png")


def said(number, caption):
    return f"picture {number} in words {caption}"


def in_rows(folder):
    """Rows that name the same files, one as ./0.png."""
    rows = [
        f"{said(number, k)},{'./' * (number == k == 0)}{number}.png" for k in range(EACH) for number in range(PICTURES)
    ]
    (folder / "t.csv").write_text("caption,image\n" + "\n".join(rows))
    return folder / "t.csv"


def in_lists(folder, name="t.jsonl"):
    """A row a picture, whose captions are a list; the last has one, not in a list."""
    lists = [[said(number, k) for k in range(EACH)] for number in range(PICTURES)]
    if name.endswith(".parquet"):
        pq.write_table(pa.table({"caption": lists, "image": [f"{n}.png" for n in range(PICTURES)]}), folder / name)
    else:
        rows = [{"caption": each, "image": f"{n}.png"} for n, each in enumerate(lists)]
        rows[-1]["caption"] = rows[-1]["caption"][0]
        (folder / name).write_text("\n".join(map(json.dumps, rows)))
    return folder / name


@pytest.fixture
def folder(tmp_path):
    drawn(tmp_path)
    return tmp_path


def collected(path, out):
    out.mkdir()
    config = CaptionsConfig(data=DataConfig(source="table", path=path), sha256=())
    produced = run(Stage(CAPTIONS, "captions", config), out, no_progress)
    return produced, schema.read(out / "captions.parquet", schema.CAPTIONS).sort_by("row_id").to_pylist()


def number_of(row):
    return int(row["caption"].split()[1])


@pytest.mark.parametrize(
    "write", [in_rows, in_lists, lambda folder: in_lists(folder, "t.parquet")], ids=["rows", "jsonl", "parquet"]
)
def test_all_captions_of_a_picture_are_in_one_split_and_known_to_be_its(folder, write):
    path = write(folder)
    produced, rows = collected(path, folder / "out")
    assert SHARED in produced.files and produced.stats["pictures_shown"] == PICTURES
    picture = picture_of_row(folder / "out", len(rows))
    for row, first in zip(rows, picture, strict=True):
        assert number_of(row) == number_of(rows[first]) and row["split"] == rows[first]["split"]
    assert len(np.unique(picture)) == PICTURES and {row["split"] for row in rows} == {"train", "pictures"}
    assert produced.stats["train_pictures"] == len({number_of(row) for row in rows if row["split"] == "train"})
    assert len({row["key"] for row in rows}) == len(rows)
    shown = [each.name for each in READER.pictures(DataConfig(source="table", path=path))]
    assert shown == [f"{number_of(row)}.png" for row in rows]  # in the order of the rows


def test_one_caption_a_picture_is_as_it_was_and_others_have_names_of_their_own(folder):
    (folder / "one.csv").write_text("caption,image\n" + "\n".join(f"{said(n, 0)},{n}.png" for n in range(PICTURES)))
    one = DataConfig(source="table", path=folder / "one.csv")
    produced, rows = collected(one.path, folder / "out")
    assert SHARED not in produced.files and "train_pictures" not in produced.stats and captions_listing(one) is None
    assert picture_of_row(folder / "out", len(rows)).tolist() == list(range(PICTURES))
    several = DataConfig(source="table", path=in_rows(folder))
    recipe = parse_recipe({"name": "m", "data": {"source": "table", "path": str(several.path)}}, "m")
    assert len(captions_stage(recipe, Store(folder / "home")).config.sha256) == 2
    before = captions_listing(several)
    several.path.write_text(several.path.read_text().replace("39.png", "38.png"))
    assert captions_listing(several) != before


def test_an_empty_list_is_left_out_and_a_list_of_others_is_no_text(folder):
    def data(value):
        lines = [{"caption": ["a", "b"], "image": "0.png"}, {"caption": value, "image": "1.png"}]
        (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return DataConfig(source="table", path=folder / "t.jsonl")

    with pytest.raises(DataError) as caught:
        list(READER.captions(data(["a", 3])))
    assert "a number (3), not text (line 2)" in caught.value.message
    for value, kept in (([], ["a", "b"]), ([""], ["a", "b"]), (["", "c"], ["a", "b", "c"])):
        assert [each["caption"] for each in READER.captions(data(value))] == kept
        assert [each.name for each in READER.pictures(data(value))] == ["0.png"] * 2 + ["1.png"] * (len(kept) - 2)
    whole = [each["key"] for each in READER.captions(data(["b", "c"]))]
    assert [each["key"] for each in READER.captions(data(["", "c"]))] == [*whole[:2], whole[3]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(home, recipe, captions, images) of a run that trains CLIP and judges retrieval."""
    folder = tmp_path_factory.mktemp("several")
    drawn(folder)
    raw = TINY | {
        "name": "several", "objectives": ["clip"], "seeds": [0],
        "data": {"source": "table", "path": str(in_rows(folder))}, "graph": {"k": 4},
        "train": TINY["train"] | {"batch_size": 16, "epochs": 2, "views": "simclr", "workers": 0},
        "evaluate": {"suites": ["retrieval"], "bootstrap": 100},
    }  # fmt: skip
    recipe = parse_recipe(raw, "several")
    finish(folder / "home", recipe)
    store = Store(folder / "home")
    found = {stage.kind.name: store.find(stage.digest).path for stage in pipeline(recipe, store)}
    return store, recipe, found


@pytest.mark.slow
@pytest.mark.parametrize("views", ["simclr", "stickers"])
def test_a_batch_shows_a_picture_once_and_over_epochs_all_its_captions(made, views):
    _, recipe, found = made
    train = recipe.train.model_copy(update={"views": views})
    batches = open_batches(found["captions"], found["images"], train, 0)
    rows = schema.read(found["captions"] / "captions.parquet", schema.CAPTIONS).sort_by("row_id").to_pylist()
    pictures = {number_of(row) for row in rows if row["split"] == "train"}
    assert len(batches.rows) == len(pictures)
    steps, seen = batches.steps_per_epoch, {}
    stream = list(batches.stream(0, 12 * steps, Rank(0, 1, torch.device("cpu"))))
    for batch in stream:
        shown = [number_of(rows[each]) for each in batch.rows.tolist()]
        assert len(set(shown)) == len(shown) and set(shown) <= pictures
        for each in batch.rows.tolist():
            seen.setdefault(number_of(rows[each]), set()).add(each)
    assert np.mean([len(each) for each in seen.values()]) > EACH - 0.3
    turns = open_batches(found["captions"], found["images"], train.model_copy(update={"captions": "all"}), 0)
    first = torch.cat([batch.rows for batch in turns.stream(0, EACH * steps, Rank(0, 1, torch.device("cpu")))])
    assert len(first.unique()) == len(first), "no caption twice before the others"
    later = list(batches.stream(5 * steps, 6 * steps, Rank(0, 1, torch.device("cpu"))))
    for one, other in zip(later, stream[5 * steps : 6 * steps], strict=True):
        assert torch.equal(one.rows, other.rows) and torch.equal(one.views, other.views)


@pytest.mark.slow
def test_retrieval_counts_pictures_once_with_all_their_captions(made):
    store, recipe, _ = made
    (suite,) = (each for each in pipeline(recipe, store) if each.kind.name == "suite")
    rows = schema.read(store.find(suite.digest).path / "scores.parquet", schema.SCORES).to_pylist()
    captions = suite.inputs["labels"].path
    table = schema.read(captions / "captions.parquet", schema.CAPTIONS).to_pylist()
    held = [row for row in table if row["split"] == "pictures"]
    pictures = {number_of(row) for row in held}
    assert {(row["split"], row["n"]) for row in rows} == {
        ("image-to-text", len(pictures)),
        ("text-to-image", len(held)),
    }
    assert len(held) == EACH * len(pictures)
