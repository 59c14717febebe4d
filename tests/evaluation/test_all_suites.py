"""Every suite on one checkpoint: all pictures once through the backbone, all scores from what is stored."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.kit.features import Passed
from tests.kit.finished import finish
from tests.kit.home import RECIPE
from xclr import schema
from xclr.pipeline import pipeline
from xclr.recipe import SUITES, parse_recipe
from xclr.store import Store

pytestmark = pytest.mark.slow
TRAINED = [name for name, suite in SUITES.items() if not suite.trains and not suite.drawn]
WITH_CAPTIONS = [name for name in TRAINED if SUITES[name].towers]


@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    """(store, planned stages, pictures that went through a backbone in the evaluation) of the emoji's own data sets."""
    raw = RECIPE.model_dump(mode="json") | {
        "data": {"limit": 1200},  # of the first 400 no two-word caption is left for MIT-States
        "train": RECIPE.train.model_dump(mode="json") | {"epochs": 1, "batch_size": 128},
        "objectives": ["random", "clip"],
        "evaluate": {
            "suites": TRAINED,
            "bootstrap": 100,
            "probe": {"epochs": 2, "learning_rates": [0.03], "weight_decays": [1e-4]},
        },
    }
    recipe = parse_recipe(raw, "tiny")
    home = tmp_path_factory.mktemp("home")
    finish(home, recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"suites": ()})}), "before")
    with Passed() as passed:
        finish(home, recipe)
    store = Store(home)
    return store, pipeline(recipe, store), passed.pictures


def of_kind(judged, *kinds):
    store, planned, _ = judged
    return [(stage, store.find(stage.digest)) for stage in planned if stage.kind.name in kinds]


def test_each_picture_of_a_checkpoint_goes_through_the_backbone_once_over_all_suites(judged):
    store, _, passed = judged
    seen = of_kind(judged, "features", "benchmark_features")
    per_checkpoint = {}
    for stage, made in seen:
        rows = np.load(made.path / "rows.npy")
        assert len(rows) == len(set(rows.tolist()))
        per_checkpoint.setdefault(stage.inputs["checkpoint"].digest, []).append(len(rows))
    data = {
        role.digest: store.manifest(role).stats["rows"] for stage, _ in seen if (role := stage.inputs.get("benchmark"))
    }
    own = [len(np.load(made.path / "rows.npy")) for stage, made in seen if stage.kind.name == "features"]
    assert len(data) == 4 and len(per_checkpoint) == len(own) == 2
    assert passed == sum(map(sum, per_checkpoint.values())) == 2 * sum(data.values()) + sum(own)


def test_every_suite_has_scores_with_their_items_and_intervals(judged):
    suites = of_kind(judged, "suite")
    assert {stage.config.suite for stage, _ in suites} == set(TRAINED)
    assert len(suites) == 2 * len(TRAINED) - len(
        WITH_CAPTIONS
    )  # nothing between pictures and captions for the untrained network
    for stage, made in suites:
        rows = schema.read(made.path / "scores.parquet", schema.SCORES).to_pylist()
        assert rows, stage.name
        assert all(-1 <= row["value"] <= 1 and row["n"] > 0 for row in rows), stage.name
        assert all(row["ci95"] is not None for row in rows if row["n"] > 1), stage.name


@pytest.mark.parametrize(
    "suite", ["imagenet", "real", "imagenet9", "objectnet", "mit-states", "knn", "zero-shot", "own-zero-shot"]
)
def test_top1_can_be_had_again_from_the_stored_answers(judged, suite):
    for stage, made in of_kind(judged, "suite"):
        if stage.config.suite != suite:
            continue
        answers = pq.read_table(made.path / "predictions.parquet").to_pandas()
        pairs = zip(answers["prediction"], answers["target"], strict=True)
        assert answers["right"].tolist() == [guess in set(targets) for guess, targets in pairs]
        for row in pq.read_table(made.path / "scores.parquet").to_pylist():
            if row["metric"] == "top1":
                assert answers[answers["split"] == row["split"]]["right"].mean() == pytest.approx(row["value"])


def test_the_probe_is_fitted_once_for_four_suites(judged):
    probes = of_kind(judged, "probe")
    assert len(probes) == 2
    readers = [stage.config.suite for stage, _ in of_kind(judged, "suite") if "probe" in stage.inputs]
    assert sorted(readers) == sorted(2 * ["imagenet", "real", "imagenet9", "objectnet"])
