"""The suites of a recipe's own pictures on trained networks, from the plan to the table."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.home.runs import read_runs
from infra.home.scores import read_scores
from tests.kit.finished import COLOURS, finish, own_recipe
from tests.kit.home import one_thread
from tests.kit.stages import commit, no_progress
from xclr.artifact import Artifact, Digest
from xclr.captions import run as run_captions
from xclr.evaluation import stages as evaluation_stages
from xclr.evaluation.data import FeatureSet, load_features, load_labels
from xclr.evaluation.finetune import own_splits
from xclr.evaluation.finetune import run as run_finetune
from xclr.evaluation.networks.towers import load_towers
from xclr.evaluation.stages import SUITE
from xclr.evaluation.suite import each_once
from xclr.images import run as run_images
from xclr.pipeline import pipeline
from xclr.recipe import SUITES, Recipe
from xclr.report.tables import grids_of
from xclr.store import Store
from xclr.training.stages import PretrainConfig

OWN = [name for name, suite in SUITES.items() if suite.own and not suite.drawn]
JUDGED = {
    "suites": OWN,
    "bootstrap": 100,
    "finetune": {"epochs": 2, "batch_size": 16},
    "probe": {"solver": "ridge", "weight_decays": [1e-2]},
}


class Judged:
    """A HOME with a run that judged a trained network and an untrained one by all of the suites."""

    def __init__(self, home, recipe):
        self.home, self.store, self.plan = home, Store(home), pipeline(recipe, Store(home))
        self.scores = read_scores(home, [])

    def stage(self, name):
        return next(each for each in self.plan if each.name == name)

    def made(self, name):
        return self.store.find(self.stage(name).digest)

    def answers(self, suite):
        return pq.read_table(self.made(f"{suite} clip seed 0").path / "predictions.parquet").to_pylist()


@pytest.fixture(scope="module")
def judged(own_home, tmp_path_factory):
    home = shutil.copytree(own_home, tmp_path_factory.mktemp("judged") / "home")
    raw = read_runs(home)[-1].recipe.model_dump(mode="json")
    recipe = Recipe.model_validate(raw | {"objectives": ["clip"], "seeds": [0], "evaluate": JUDGED})
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"workers": 0})})
    finish(home, recipe, "judged")
    return Judged(home, recipe)


@pytest.mark.slow
def test_every_suite_judges_the_held_out_pictures_under_a_heading_of_its_own(judged):
    labels = load_labels(judged.made("captions").path)
    held_out = int((labels.split == "pictures").sum())
    (grid,) = grids_of(judged.scores)
    assert grid.headings == (
        "pictures top-1", "pictures k-NN", "own 10% labels", "own 100% labels", "own zero-shot", "own fine-tuned",
    )  # fmt: skip
    assert [line.cells[4].text == "-" for line in grid.lines] == [True, False], "nothing zero-shot without captions"
    assert "own-few-shot: 1%, 2%, 5% of 76 training pictures left out" in grid.caption
    for row in judged.scores.to_pylist():
        assert row["n"] == held_out and row["ci95"] is not None
        assert row["split"] == "pictures" or row["suite"] == "own-few-shot"


@pytest.mark.slow
def test_a_plan_shows_them_and_what_they_read(judged):
    labels = judged.stage("captions").digest
    for method, suites in (("random", set(OWN) - {"own-zero-shot"}), ("clip", set(OWN))):
        own = [stage for stage in judged.plan.of(SUITE) if stage.name.endswith(f" {method} seed 0")]
        found = {stage.config.suite: stage for stage in own}
        assert set(found) == suites
        assert {stage.inputs["labels"].digest for stage in found.values()} == {labels}
        tuned = judged.stage(f"finetuning on own pictures {method} seed 0")
        assert found["own-finetune"].inputs["features"].digest == tuned.digest
        assert tuned.level == "finetune own" and set(tuned.inputs) == {"checkpoint", "captions", "images"}
        assert (tuned.config.train.epochs, tuned.config.train.batch_size) == (2, 16)


@pytest.mark.slow
def test_zero_shot_takes_the_class_whose_caption_is_nearest(judged):
    checkpoint = judged.made("pretrain clip seed 0").path
    manifest = judged.store.manifest(judged.made("pretrain clip seed 0"))
    towers = load_towers(checkpoint, PretrainConfig.model_validate(manifest.config), None)
    features = load_features(judged.made("features clip seed 0").path)
    answers = judged.answers("own-zero-shot")
    at = np.isin(features.rows, [each["row_id"] for each in answers])
    pictures = towers.pictures(features.where(at).tensor())
    texts = towers.texts([f"a photo of a {colour}" for colour in sorted(COLOURS)])
    assert (pictures @ texts.T).argmax(1).tolist() == [each["prediction"] for each in answers]


@pytest.mark.slow
def test_fine_tuning_reads_logits_of_what_was_held_out_and_trains_on_the_rest(judged):
    labels = load_labels(judged.made("captions").path)
    tuned = judged.made("finetuning on own pictures clip seed 0")
    logits = load_features(tuned.path)
    assert logits.rows.tolist() == np.flatnonzero(labels.split == "pictures").tolist()
    assert logits.vectors.shape[1] == len(COLOURS)
    assert [each["prediction"] for each in judged.answers("own-finetune")] == logits.vectors.argmax(1).tolist()
    assert judged.store.manifest(tuned).stats["step"] == 2 * ((80 - len(logits.rows)) // 16)


@pytest.mark.slow
def test_pictures_that_cannot_be_read_are_told_and_end_nothing(judged, tmp_path):
    stage = judged.stage("finetuning on own pictures clip seed 0")
    images = shutil.copytree(stage.inputs["images"].path, tmp_path / "images")
    _, train, held_out = own_splits(stage.inputs["captions"].path, images)
    tar = images / "shard-00000.tar"
    data = bytearray(tar.read_bytes())
    for pictures in (train, held_out):
        begin = int(pictures.offsets[0]) + 40
        data[begin : begin + int(pictures.sizes[0]) - 40] = bytes(int(pictures.sizes[0]) - 40)
    tar.write_bytes(data)
    damaged = Artifact("images", Digest("images", stage.inputs["images"].digest), images)
    (tmp_path / "out").mkdir()
    with one_thread():
        made = run_finetune(replace(stage, inputs={**stage.inputs, "images": damaged}), tmp_path / "out", no_progress)
    lost = sorted((int(train.rows[0]), int(held_out.rows[0])))
    assert made.stats["unreadable"] == 2 and made.stats["unreadable_rows"] == ", ".join(map(str, lost))
    assert len(np.load(tmp_path / "out" / "rows.npy")) == made.stats["rows"] == len(held_out.rows)


def test_a_picture_with_several_captions_counts_once(tmp_path):
    mine = own_recipe(tmp_path, "a drawing of", objectives=["clip"], evaluate=JUDGED)
    table = pq.read_table(tmp_path / "own.parquet").slice(0, 40).to_pydict()
    plans = []
    for each in (lambda text: text, lambda text: [text, f"again {text}"]):
        pq.write_table(pa.table(table | {"caption": list(map(each, table["caption"]))}), tmp_path / "own.parquet")
        plans.append(pipeline(mine, Store(tmp_path / "home")))
    assert [{stage.config.once for stage in plan.of(SUITE)} for plan in plans] == [{False}, {True}]
    assert all("once" not in stage.identity for stage in plans[0].of(SUITE))
    store, stages = Store(tmp_path / "home"), {stage.name: stage for stage in plans[1]}
    captions = commit(store, stages["captions"], run_captions).path
    images = commit(store, stages["images"], run_images).path
    labels = load_labels(captions)
    assert len(labels.split) == 80
    pictures = each_once(FeatureSet(np.arange(80), np.zeros((80, 1))), labels, captions)
    assert pictures.rows.tolist() == list(range(0, 80, 2))
    _, train, held_out = own_splits(captions, images)
    assert sorted([*train.rows, *held_out.rows]) == pictures.rows.tolist()


def test_without_classes_or_captions_they_are_left_out_and_that_is_said(tmp_path):
    mine = own_recipe(tmp_path, "a drawing of", objectives=["simclr"], evaluate=JUDGED)
    assert evaluation_stages.tell_skipped(mine) == [
        "suite own-zero-shot is left out: no objective is between pictures and captions"
    ]
    bare = mine.model_copy(update={"data": mine.data.model_copy(update={"label_column": None})})
    assert evaluation_stages.suites(bare) == []
    assert evaluation_stages.tell_skipped(bare) == [
        f"suite {name} is left out: it needs classes (data.label_column)" for name in OWN
    ]
    kinds = {stage.kind.name for stage in pipeline(bare, Store(tmp_path / "home"))}
    assert kinds.isdisjoint({"finetune", "suite"}) and {"features", "comparison"} <= kinds
