"""A finished run from Python: the same vectors as its stages stored, its tables, and errors that say what there is."""

import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import xclr
from infra.processes import now
from tests.kit.pictures import encode
from xclr import schema
from xclr.captions.stages import CAPTIONS
from xclr.errors import StoreError
from xclr.evaluation.stages import FEATURES
from xclr.record import RUNS, Record, read_records, record_path
from xclr.store import MANIFEST


@pytest.fixture
def run(own_home):
    return xclr.open(own_home)


@pytest.fixture
def pictures(own_home):
    """The pictures of the run, encoded, by row."""
    return [each["bytes"] for each in pq.read_table(own_home.parent / "own.parquet")["image"].to_pylist()]


def test_networks_stand_in_the_order_of_the_recipe(run):
    methods = [("random", "none"), ("clip", "pairs"), ("xclr", "captions")]
    found = [(each.method, each.graph, each.seed) for each in run.networks()]
    assert found == [(*each, seed) for seed in (0, 1) for each in methods]
    assert [run.network("xclr").seed, run.network("xclr", 1).seed] == [0, 1]


def test_a_picture_gets_the_vector_that_its_stage_stored(run, pictures):
    features = run.features("xclr", 1)
    assert features["row_id"].to_pylist() == list(range(len(pictures)))
    backbone, prepare = run.backbone("xclr", 1), run.preprocess("xclr", 1)
    with torch.inference_mode():
        vectors = backbone(torch.stack([prepare(each) for each in pictures])).half().numpy()
    np.testing.assert_array_equal(vectors, np.stack(features["vector"].to_numpy(zero_copy_only=False)))


def test_a_picture_may_be_bytes_a_path_or_opened(run, tmp_path):
    picture = Image.radial_gradient("L").resize((50, 30)).convert("RGB")
    (tmp_path / "one.png").write_bytes(encode(picture))
    prepare = run.preprocess("clip")
    seen = [prepare(each) for each in (picture, encode(picture), tmp_path / "one.png", str(tmp_path / "one.png"))]
    assert seen[0].shape == (3, 16, 16)
    assert all(torch.equal(each, seen[0]) for each in seen)


def test_tables_are_those_of_the_stages(run, own_home):
    captions, graph, scores = run.captions(), run.graph(), run.scores()
    assert captions["class"].to_pylist()[:4] == ["crimson", "seagreen", "royalblue", "goldenrod"]
    assert captions["caption"].to_pylist()[0] == "a drawing of crimson 0"
    assert set(graph.column_names) == {"src", "dst", "sim", "count"}
    assert schema.check(scores, schema.SCORES).num_rows
    assert set(scores["checkpoint"].to_pylist()) == {str(each.checkpoint.digest) for each in run.networks()}


def test_rows_have_the_names_that_the_data_give_them(run, own_home, tmp_path):
    for found in (run.captions(), run.features("clip")):
        assert found["path"].to_pylist() == [f"{row}.png" for row in found["row_id"].to_pylist()]
        assert set(found["id"].to_pylist()) == {None}
    home = shutil.copytree(own_home, tmp_path / "home", ignore=shutil.ignore_patterns("code", CAPTIONS.name))
    assert xclr.open(home).features("clip").column_names == ["row_id", "vector"]


def test_the_data_that_a_run_was_made_of_may_be_gone(own_home, tmp_path):
    moved = shutil.copytree(own_home, tmp_path / "elsewhere", ignore=shutil.ignore_patterns("code"))
    assert xclr.open(moved).backbone("clip")(torch.zeros(2, 3, 16, 16)).shape == (2, 32)


def test_a_home_is_named_by_its_folder_or_by_the_environment(own_home, tmp_path, monkeypatch):
    monkeypatch.setenv("XCLR_HOME", str(own_home))
    assert {xclr.open(place).record.run for place in (None, own_home, str(own_home), "own", "own-1")} == {"own-1"}
    assert xclr.open(own_home, "own").record.run == "own-1"


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda run: run.network("xcl"), "no finished network of method xcl"),
        (lambda run: run.network("xclr", 7), "no finished network of method xclr, seed 7"),
        (lambda run: run.network(), "networks of 3 methods"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(run, ask, message):
    with pytest.raises(StoreError) as caught:
        ask(run)
    assert message in caught.value.message
    assert "xclr (captions), seed 1" in caught.value.remedy


def test_a_home_without_runs_says_so_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XCLR_HOME", str(tmp_path))
    for place in (None, tmp_path, "emoji"):
        with pytest.raises(StoreError, match="no run") as caught:
            xclr.open(place)
        assert caught.value.remedy
        assert "\n" not in caught.value.message


def test_what_a_run_has_not_made_is_told_apart_from_what_is_damaged(own_home, tmp_path):
    home = shutil.copytree(own_home, tmp_path / "home")
    for path in home.glob(f"artifacts/{FEATURES.name}/*/{MANIFEST}"):
        path.unlink()
    (checkpoint,) = (each.checkpoint.path for each in [xclr.open(home).network("xclr")])
    (checkpoint / "checkpoint.pt").write_bytes(b"x" * (checkpoint / "checkpoint.pt").stat().st_size)
    with pytest.raises(StoreError, match="has no features"):
        xclr.open(home).features("clip")
    with pytest.raises(StoreError, match="has changed since it was written"):
        xclr.open(home).backbone("xclr")


def test_embedded_pictures_get_the_vectors_that_their_stage_stored(run, own_home, pictures, tmp_path):
    written = run.embed(own_home.parent / "own.parquet", tmp_path / "out.parquet", "xclr", 1)
    assert (written.rows, written.dim, written.unreadable) == (len(pictures), 32, 0)
    found = np.stack(pq.read_table(tmp_path / "out.parquet")["vector"].to_numpy(zero_copy_only=False))
    stored = np.stack(run.features("xclr", 1)["vector"].to_numpy(zero_copy_only=False))
    np.testing.assert_array_equal(found.astype(np.float16), stored)


def test_a_later_run_that_did_not_complete_stands_behind_one_that_did(own_home, tmp_path):
    home = tmp_path / "home"
    (home / RUNS).mkdir(parents=True)
    (record,) = read_records(own_home, Record)
    for state, name in (("completed", "own-1"), ("failed", "own-2"), ("running", "own-3")):
        later = record.model_copy(update={"run": name, "state": state, "started": now()})
        record_path(home, name).write_text(later.model_dump_json())
    assert [xclr.open(home, name).record.run for name in ("own", None, "own-2")] == ["own-1", "own-1", "own-2"]
    record_path(home, "own-1").unlink()
    assert xclr.open(home).record.run == "own-3"
