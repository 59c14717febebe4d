import json

import pyarrow.parquet as pq
import pytest

from tests.evaluation.artifacts import emoji_like, write_captions, write_checkpoint, write_features
from xclr import schema
from xclr.errors import RecipeError
from xclr.evaluation import SUITES
from xclr.evaluation.suite import run
from xclr.recipe import CLIPConfig, EvalConfig
from xclr.stages import Stage, SuiteConfig


def stage_of(tmp_path, suite, objective=None):
    features, labels = emoji_like(n=800)
    inputs = {
        "features": write_features(tmp_path, features),
        "checkpoint": write_checkpoint(tmp_path, objective),
        "captions": write_captions(tmp_path, labels, annotated=True),
    }
    return Stage("suite", suite, SuiteConfig(suite=suite, bootstrap=100, seed=0), inputs)


@pytest.mark.parametrize(
    ("suite", "metric"), [("linear", "vendor_per_class"), ("keywords", "concepts_map"), ("background", "gap_gap")]
)
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
    run(stage_of(tmp_path, "background", CLIPConfig(text="frozen")), tmp_path, lambda done, total: None)
    row = schema.read(tmp_path / "scores.parquet", schema.SCORES).to_pylist()[0]
    assert (row["method"], row["graph"]) == ("clip-frozen", "pairs")


def test_an_unknown_suite_is_refused_with_the_names_there_are(tmp_path):
    with pytest.raises(RecipeError, match="linear, keywords, background"):
        run(stage_of(tmp_path, "linear-probe"), tmp_path, lambda done, total: None)


def test_every_suite_a_recipe_may_name_exists():
    assert EvalConfig.model_validate({"suites": tuple(SUITES)}).suites == tuple(SUITES)
