"""The outputs of the stages that compute with floats, pinned within rounding to the code version that names them.

Like test_canary.py, for stages whose last digits depend on the machine.
"""

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.training.home import RECIPE, commit, make_home, one_thread
from xclr import stages
from xclr.evaluation import comparison, features, suite
from xclr.graph import run_embeddings
from xclr.recipe import XCLRConfig
from xclr.spool import SPOOL, read_spool
from xclr.stages import KINDS
from xclr.training import pretrain

PINNED = {  # of each kind and code version
    ("embeddings", 2): [0.2311, 0.1766, 0.2062, 0.2415],
    ("pretrain", 1): [6.7355, 6.3394, 5.5359, 5.2335],
    ("features", 1): [0.1358, 0.1364, 0.1366, 0.1338],
    ("suite", 1): [0.5385, 0.1923, 0.3462],
    ("comparison", 1): [0.3462, 0.1923, 0.5385],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every artifact of one method on the small home."""
    with one_thread():
        home = make_home(tmp_path_factory.mktemp("canary"))
        store, found = home.store, dict(home.artifacts)
        objective = stages.objectives(RECIPE.model_copy(update={"objectives": (XCLRConfig(),)}))[1]
        found["checkpoint"] = commit(store, stages.pretrain(RECIPE, objective, 0, found), pretrain.run)
        found["features"] = commit(store, stages.features(RECIPE, "xclr", found["checkpoint"], found), features.run)
        found["suite"] = commit(store, stages.suite(RECIPE, "linear", "xclr", found, store), suite.run)
        found["comparison"] = commit(store, stages.comparison(RECIPE, [found["suite"]]), comparison.run)
        found["embeddings"] = commit(store, stages.embeddings(RECIPE, store, found["captions"]), run_embeddings)
    return {role: artifact.path for role, artifact in found.items()}


def check(kind, numbers, tolerance):
    """Compare with the numbers pinned for the kind's code version."""
    code = KINDS[kind][1]
    assert numbers == pytest.approx(PINNED[kind, code], abs=tolerance), (
        f"stage {kind!r} of code version {code} gives other values than those pinned. If that is on purpose, add 1 to "
        f"its code version in xclr.stages.KINDS and pin the new values; if not, outputs of the same name now differ."
    )


def test_embeddings_stay_what_their_code_version_says(made):
    vectors = np.load(made["embeddings"] / "vectors.npy").astype(np.float64)
    firsts = np.unique(vectors, axis=0, return_index=True)[1]
    distinct = vectors[np.sort(firsts)][:5]
    check("embeddings", (distinct[0] @ distinct[1:].T).tolist(), 5e-3)


def test_pretraining_stays_what_its_code_version_says(made):
    losses = [entry.metrics["train/loss"] for entry in read_spool(made["checkpoint"] / SPOOL)]
    check("pretrain", losses[:4], 5e-3)


def test_features_stay_what_their_code_version_says(made):
    vectors = np.load(made["features"] / "vectors.npy").astype(np.float64)
    check("features", vectors[:, :4].mean(axis=0).tolist(), 2e-3)


def test_a_suite_stays_what_its_code_version_says(made):
    rows = pq.read_table(made["suite"] / "scores.parquet").to_pylist()
    check("suite", [row["value"] for row in rows], 0.06)


def test_the_comparison_stays_what_its_code_version_says(made):
    rows = pq.read_table(made["comparison"] / "scores.parquet").to_pylist()
    check("comparison", [row["value"] for row in rows], 0.06)
