"""The outputs of the stages that compute with floats, pinned within rounding to the code version that names them.

Like test_canary.py, for stages whose last digits depend on the machine.
"""

import json
import tarfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.kit.home import RECIPE as TINY_RECIPE
from tests.kit.home import data_sets, make_home, one_thread, training_data
from tests.kit.stages import commit
from xclr.evaluation import benchmark, comparison, features, finetune, probe, reference, suite
from xclr.evaluation import stages as evaluation_stages
from xclr.evaluation.export import write
from xclr.evaluation.heads import load_head
from xclr.graph import stages as graph_stages
from xclr.graph.embed import run as run_embeddings
from xclr.pipeline import KINDS
from xclr.recipe import Reference, XCLRConfig, parse_recipe
from xclr.training import pretrain
from xclr.training import stages as training_stages
from xclr.training.spool import SPOOL, read_spool

PINNED = {  # of each kind and code version
    ("embeddings", 2): [0.2311, 0.1766, 0.2062, 0.2415],
    ("pretrain", 2): [6.7355, 6.3394, 5.5359, 5.2335],
    ("features", 2): [383, 0.0, 0.1988, 0.0016],
    ("benchmark_features", 1): [289, 0.0048, 0.1711, 0.0079],
    ("export", 1): [30, 290, 2.6605, 193, 2.4424, 51, 1.9924, 0, 0.0],
    ("benchmark", 1): [289, 33, 966523],
    ("probe", 1): [33, 0.01, 0.01, 0.2407],
    ("finetune", 3): [26, 33, -0.383, 3.5990, 3.6514],
    ("reference", 1): [120, 0.0251],
    ("suite", 2): [0.1154, 0.3846, 0.1053],
    ("comparison", 1): [0.1053, 0.1154, 0.3846],
}
RECIPE = parse_recipe(
    TINY_RECIPE.model_dump(mode="json")
    | {"evaluate": {"suites": ["imagenet", "finetune"], "bootstrap": 100, "finetune": {"epochs": 1, "batch_size": 64}}},
    "tiny",
)
RESNET = Reference(library="torchvision", model="resnet18", weights="random")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every artifact of one method on the small home."""
    with one_thread():
        home = make_home(tmp_path_factory.mktemp("canary"))
        store, found = home.store, dict(home.artifacts)
        objective = training_stages.objectives(RECIPE.model_copy(update={"objectives": (XCLRConfig(),)}))[1]
        found["checkpoint"] = commit(
            store, training_stages.pretrain(RECIPE, objective, 0, training_data(found)), pretrain.run
        )
        found["features"] = commit(
            store, evaluation_stages.features(RECIPE, "xclr", found["checkpoint"], data_sets(found)), features.run
        )
        found["export"] = commit(store, evaluation_stages.export(RECIPE, found["captions"], found["images"]), write.run)
        found["benchmark"] = commit(
            store, evaluation_stages.benchmark(RECIPE, "imagenet", found["export"]), benchmark.run
        )
        checkpoint, data = found["checkpoint"], data_sets(found)
        shown = evaluation_stages.benchmark_features(RECIPE, "xclr", checkpoint, "imagenet", data)
        found["features:imagenet"] = commit(store, shown, features.run)
        head = evaluation_stages.probe(RECIPE, "xclr", checkpoint, found["features:imagenet"], data)
        found["probe"] = commit(store, head, probe.run)
        found["finetune"] = commit(store, evaluation_stages.finetune(RECIPE, "xclr", checkpoint, data), finetune.run)
        made = evaluation_stages.NetworkOutputs(
            checkpoint, {"imagenet": found["features:imagenet"]}, found["probe"], None
        )
        inputs = evaluation_stages.read("imagenet", made, data)
        found["suite"] = commit(store, evaluation_stages.suite(RECIPE, "imagenet", "xclr", inputs, store), suite.run)
        found["comparison"] = commit(store, evaluation_stages.comparison(RECIPE, [found["suite"]]), comparison.run)
        found["embeddings"] = commit(store, graph_stages.embeddings(RECIPE, store, found["captions"]), run_embeddings)
        found["reference"] = commit(store, evaluation_stages.reference(RESNET, RESNET.label, store), reference.run)
    return {role: artifact.path for role, artifact in found.items()}


def check(kind, numbers, tolerance):
    """Compare with the numbers pinned for the kind's code version."""
    code, numbers = KINDS[kind].code, [float(each) for each in numbers]
    assert numbers == pytest.approx(PINNED.get((kind, code), []), abs=tolerance), (
        f"stage {kind!r} of code version {code} gives other values than those pinned. If that is on purpose, add 1 to "
        f"the code version in its Kind and pin the new values; if not, outputs of the same name now differ."
    )


def test_embeddings_stay_what_their_code_version_says(made):
    vectors = np.load(made["embeddings"] / "vectors.npy").astype(np.float64)
    firsts = np.unique(vectors, axis=0, return_index=True)[1]
    distinct = vectors[np.sort(firsts)][:5]
    check("embeddings", (distinct[0] @ distinct[1:].T).tolist(), 5e-3)


def test_pretraining_stays_what_its_code_version_says(made):
    losses = [entry.metrics["train/loss"] for entry in read_spool(made["checkpoint"] / SPOOL)]
    check("pretrain", losses[:4], 5e-3)


@pytest.mark.parametrize(("kind", "role"), [("features", "features"), ("benchmark_features", "features:imagenet")])
def test_features_stay_what_their_code_version_says(made, kind, role):
    vectors = np.load(made[role] / "vectors.npy").astype(np.float64)
    check(kind, [len(vectors), *vectors[:, :3].mean(axis=0)], 2e-3)


def test_an_export_stays_what_its_code_version_says(made):
    """Of each tar the number of its files and their mean size in kB; the number of answers in real.json."""
    numbers = [sum(map(len, json.loads((made["export"] / "real.json").read_text())))]
    for name in ("imagenet", "imagenet9", "objectnet", "mit-states"):
        with tarfile.open(made["export"] / f"{name}.tar") as tar:
            sizes = [each.size / 1000 for each in tar if each.isfile()]
        numbers += [len(sizes), float(np.mean(sizes)) if sizes else 0.0]
    check("export", numbers, 0.02)


def test_a_benchmark_stays_what_its_code_version_says(made):
    items = pq.read_table(made["benchmark"] / "items.parquet").to_pylist()
    numbers = [sum((each["row_id"] + 1) * (1 + sum(each["targets"])) for each in items)]
    check("benchmark", [len(items), pq.read_metadata(made["benchmark"] / "classes.parquet").num_rows, *numbers], 0)


def test_the_probe_stays_what_its_code_version_says(made):
    head = load_head(made["probe"] / "probe.pt")
    check("probe", [len(head.classes), head.learning_rate, head.weight_decay, float(head.weight.std())], 0.02)


def test_finetuning_stays_what_its_code_version_says(made):
    losses = [entry.metrics["train/loss"] for entry in read_spool(made["finetune"] / SPOOL)]
    logits = np.load(made["finetune"] / "vectors.npy").astype(np.float64)
    check("finetune", [*logits.shape, logits.mean(), *losses[:2]], 5e-3)


def test_a_reference_stays_what_its_code_version_says(made):
    state = torch.load(made["reference"] / "checkpoint.pt", weights_only=True)["backbone"]
    check("reference", [len(state), float(state["conv1.weight"].std())], 1e-4)


def test_a_suite_stays_what_its_code_version_says(made):
    rows = pq.read_table(made["suite"] / "scores.parquet").to_pylist()
    check("suite", [row["value"] for row in rows], 0.06)


def test_the_comparison_stays_what_its_code_version_says(made):
    rows = pq.read_table(made["comparison"] / "scores.parquet").to_pylist()
    check("comparison", [row["value"] for row in rows], 0.06)
