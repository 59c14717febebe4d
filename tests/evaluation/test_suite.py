"""The stage that runs a suite: scores that say whose they are, labels that are joined by name."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.kit.features import emoji_like, write_captions, write_checkpoint, write_features
from xclr import schema
from xclr.errors import DataError
from xclr.evaluation import Labels, Ragged
from xclr.evaluation.stages import SUITE, SuiteConfig
from xclr.evaluation.suite import by_name, function_of, run
from xclr.recipe import SUITES, CLIPConfig, EvalConfig
from xclr.stage import Stage


def stage_of(tmp_path, suite, objective=None):
    features, labels = emoji_like(n=800)
    inputs = {
        "features": write_features(tmp_path, features.pictures),
        "checkpoint": write_checkpoint(tmp_path, objective),
        "labels": write_captions(tmp_path, labels, annotated=True),
    }
    return Stage(SUITE, suite, SuiteConfig(suite=suite, bootstrap=100, seed=0), inputs)


@pytest.mark.parametrize(("suite", "metric"), [("linear", "vendor_per_class"), ("keywords", "concepts_map")])
def test_a_suite_writes_its_scores_and_predictions(tmp_path, suite, metric):
    stage, calls = stage_of(tmp_path, suite), []
    produced = run(stage, tmp_path, lambda done, total: calls.append((done, total)))
    assert produced.files == ("scores.parquet", "predictions.parquet")
    rows = schema.read(tmp_path / "scores.parquet", schema.SCORES).to_pylist()
    assert produced.stats == {f"{row['split']}_{row['metric']}": row["value"] for row in rows}
    assert metric in produced.stats
    digest = stage.inputs["checkpoint"].digest
    origin = {
        "run": f"xclr-{digest[:8]}", "method": "xclr", "dataset": "emoji", "graph": "captions", "seed": 3,
        "checkpoint": digest, "step": 40, "suite": suite,
    }  # fmt: skip
    assert all(row | origin == row for row in rows)
    assert pq.read_metadata(tmp_path / "predictions.parquet").num_rows > 0
    assert calls[-1] == (2, 2)


def test_files_say_what_made_them(tmp_path):
    stage = stage_of(tmp_path, "linear")
    run(stage, tmp_path, lambda done, total: None)
    for name in ("scores", "predictions"):
        metadata = pq.read_schema(tmp_path / f"{name}.parquet").metadata
        assert metadata[b"schema"] == name.encode()
        assert json.loads(metadata[b"about"]) == {"digest": stage.digest, "config": stage.identity}


def test_the_method_names_what_differs_from_the_defaults(tmp_path):
    run(stage_of(tmp_path, "linear", CLIPConfig(text="frozen")), tmp_path, lambda done, total: None)
    row = schema.read(tmp_path / "scores.parquet", schema.SCORES).to_pylist()[0]
    assert (row["method"], row["graph"]) == ("clip-frozen", "pairs")


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_a_recipe_may_name_exists(name):
    assert function_of(name).__name__ == f"{name.replace('-', '_')}_suite"
    assert EvalConfig.model_validate({"suites": (name,)}).suites == (name,)


def labels_of(names, splits, lists):
    return Labels(np.array(splits), Ragged.of(lists), names=tuple(names))


def test_real_s_labels_are_joined_by_the_number_in_the_file_s_name_not_by_the_order_of_folders():
    """The second picture of the first folder may be the list's first."""
    pictures = labels_of(
        ["train/n01/a.JPEG", "val/n01/ILSVRC2012_val_00000003.JPEG", "val/n02/ILSVRC2012_val_00000001.JPEG"],
        ["train", "val", "val"],
        [[0], [0], [1]],
    )
    real = labels_of([f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 3)], ["val"] * 3, [[7, 8], [], [5]])
    joined = by_name(real, pictures)
    assert [joined.targets.take(np.array([row])).values.tolist() for row in range(3)] == [[], [5], [7, 8]]
    assert joined.split.tolist() == ["train", "val", "val"] and joined.names == pictures.names


def test_a_picture_that_real_does_not_know_is_named():
    pictures = labels_of(["val/n01/cat.JPEG"], ["val"], [[0]])
    real = labels_of(["ILSVRC2012_val_00000001.JPEG"], ["val"], [[7]])
    with pytest.raises(DataError, match=r"1 of 1 pictures have no entry in real.json, first val/n01/cat.JPEG"):
        by_name(real, replace(pictures))
