"""A study from its file to its page, on a few real emoji."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from scipy.stats import spearmanr
from typer.testing import CliRunner

from flows.cli.app import app
from tests.kit.finished import finish
from tests.kit.recipes import TINY
from xclr.errors import DataError, RecipeError, StoreError
from xclr.evaluation.stages import FEATURES, SUITE
from xclr.pipeline import pipeline
from xclr.recipe import CLIPConfig, SupConConfig, XCLRConfig
from xclr.report.study import findings, grids_of_study, reading
from xclr.report.study_page import write_study_page
from xclr.store import Store
from xclr.study.numbers import holm
from xclr.study.outcome import Outcome, is_judged, read_outcomes
from xclr.study.spec import Also, Study, load_study, study_file, study_names

FEW = {
    "question": "Does it work?",
    "recipe": "tiny.yaml",
    "arms": {"plain": "simclr", "graph": "xclr", "shuffled": {"name": "xclr", "graph": {"source": "permuted"}}},
    "seeds": 3,
    "primary": {"suite": "linear", "split": "pictures"},
    "contrasts": [["graph", "plain"], ["graph", "shuffled"]],
    "mechanism": ["graph", "shuffled"],
    "resamples": 500,
}


def written(folder, **changes):
    """A study's file, and its recipe beside it."""
    tiny = TINY | {"train": TINY["train"] | {"epochs": 1}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    (folder / "few.yaml").write_text(yaml.safe_dump(FEW | changes, sort_keys=False))
    return str(folder / "few.yaml")


def fault(folder, **changes):
    with pytest.raises(RecipeError) as caught:
        load_study(written(folder, **changes))
    return caught.value.message


def test_the_studies_of_the_project_are_read():
    assert "emoji" in study_names()
    study = load_study("emoji")
    assert (len(study.arms), study.seeds, len(study.contrasts)) == (6, 10, 4)
    assert study.arms["SupCon"] == SupConConfig() and study.arms["CLIP frozen"] == CLIPConfig(text="frozen")
    recipe = study.recipe
    assert recipe.name == "study-emoji" and recipe.seeds == tuple(range(10)) and recipe.evaluate.suites == ("linear",)
    assert len(recipe.objectives) == 6 and recipe.train == study.base.train
    with pytest.raises(RecipeError, match="no study 'emojis'") as caught:
        load_study("emojis")
    assert caught.value.remedy == "did you mean emoji?"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"contrasts": [["grahp", "plain"]]}, r"contrasts: no arm 'grahp' (did you mean graph?)"),
        ({"mechanism": ["graph", "x"]}, r"mechanism: no arm 'x' (there are plain, graph, shuffled)"),
        ({"contrasts": [["graph", "graph"]]}, "graph is set against itself"),
        ({"contrasts": [["graph", "plain"], ["plain", "graph"]]}, "the same two arms stand twice"),
        ({"seeds": 2}, "seeds: Input should be greater than or equal to 3"),
        ({"primary": {"suite": "zero-shot", "split": "val"}}, "not every arm has a text tower"),
        ({"arms": FEW["arms"] | {"again": "xclr"}}, "objectives: the same entry stands twice"),
        ({"arms": {"plain": "simclear"}}, "arms.plain"),
        ({"primery": {}}, "primery: Extra inputs are not permitted"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(changes, said, tmp_path):
    assert said in fault(tmp_path, **changes)


def test_a_file_without_a_recipe_and_one_that_is_no_yaml(tmp_path):
    for text, said in (("arms: {}", "names no recipe"), ("a: [", "is not YAML")):
        (tmp_path / "s.yaml").write_text(text)
        with pytest.raises(RecipeError, match=said):
            load_study(str(tmp_path / "s.yaml"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(home, file, study) of a study all of whose networks are judged."""
    folder = tmp_path_factory.mktemp("study")
    file = written(folder)
    study = load_study(file)
    finish(folder / "home", study.recipe)
    return folder / "home", file, study


def test_outcomes_are_the_suites_answers_by_arm_and_seed(made):
    home, _, study = made
    store = Store(home)
    outcomes = read_outcomes(study, store)
    assert list(outcomes) == list(study.arms)
    plan = pipeline(study.recipe, store)
    suites = {each.name: store.find(each.digest).path for each in plan.of(SUITE)}
    for arm, name in (("plain", "simclr"), ("graph", "xclr"), ("shuffled", "xclr (permuted)")):
        for seed in range(3):
            table = pq.read_table(suites[f"linear {name} seed {seed}"] / "predictions.parquet").to_pandas()
            own = table[table.split == "pictures"].sort_values("row_id")
            assert outcomes[arm].right[seed].tolist() == own.right.tolist()


def test_likeness_is_spearmans_correlation_over_pairs_of_other_concepts(made):
    home, _, study = made
    store = Store(home)
    plan = pipeline(study.recipe, store)
    features = next(each for each in plan.of(FEATURES) if each.name == "features xclr seed 1")
    path = store.find(features.digest).path
    captions = pq.read_table(features.inputs["captions"].path / "captions.parquet").sort_by("row_id").to_pylist()
    (vectors,) = (home / "artifacts" / "embeddings").glob("*/vectors.npy")
    texts, rows, shown = np.load(vectors).astype(float), np.load(path / "rows.npy"), np.load(path / "vectors.npy")
    own = [
        (row, each.astype(float)) for row, each in zip(rows, shown, strict=True) if captions[row]["split"] == "pictures"
    ]
    a, b = [], []
    for place, (left, x) in enumerate(own):
        for right, y in own[place + 1 :]:
            if (
                captions[left]["label"] != captions[right]["label"]
                and captions[left]["caption"] != captions[right]["caption"]
            ):
                a.append(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
                b.append(texts[left] @ texts[right] / np.linalg.norm(texts[left]) / np.linalg.norm(texts[right]))
    assert read_outcomes(study, store)["graph"].likeness[1] == pytest.approx(spearmanr(a, b).statistic, abs=1e-4)


def test_a_split_without_answers_and_networks_that_are_missing(made, tmp_path):
    home, _, study = made
    other = study.model_copy(update={"primary": study.primary.model_copy(update={"split": "nowhere"})})
    with pytest.raises(DataError, match="split 'nowhere'"):
        read_outcomes(other, Store(home))
    more = study.model_copy(update={"seeds": 4})
    assert is_judged(study, Store(home)) and not is_judged(more, Store(home))
    with pytest.raises(StoreError, match="3 of 12 networks are not judged yet"):
        read_outcomes(more, Store(home))


def test_the_command_computes_prints_and_writes_the_page_and_trains_nothing_that_is_there(made, tmp_path):
    home, file, _ = made
    before = sorted(path.name for path in (home / "runs").iterdir())
    shown = CliRunner().invoke(app, ["study", file, "--home", str(home), "--out", str(tmp_path / "page.html")])
    assert shown.exit_code == 0, shown.output
    assert "graph and plain" in shown.output or "graph is" in shown.output
    assert sorted(path.name for path in (home / "runs").iterdir()) == before
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2 and "What was fixed beforehand" in page and "contrasts:" in page
    told = json.loads(CliRunner().invoke(app, ["study", file, "--home", str(home), "--json"]).stdout)
    assert [row["what"] for row in told] == [
        *["level"] * 3, *["likeness"] * 3, *["contrast"] * 2, "mechanism", *["power"] * 3,
    ]  # fmt: skip
    planned = CliRunner().invoke(app, ["study", file, "--plan", "--home", str(tmp_path / "none")])
    assert yaml.safe_load(planned.stdout)["contrasts"] == FEW["contrasts"] and not (tmp_path / "none").exists()
    assert "9 networks are trained and judged, as the run study-few" in planned.stderr


def drawn(shift, likeness, rng, study):
    right = rng.random((study.seeds, 1500)) < 0.5 + shift + rng.normal(0, 0.003, (study.seeds, 1))
    return Outcome(right.astype(float), likeness + rng.normal(0, 0.01, study.seeds))


@pytest.fixture
def study():
    return load_study("emoji").model_copy(update={"resamples": 500})


def test_the_reading_says_no_more_than_was_found(study):
    rng = np.random.default_rng(0)
    shifts = {"SimCLR": 0, "SupCon": 0.2, "SupCon on concepts": 0.05, "X-CLR": 0.1, "CLIP frozen": 0.11}
    outcomes = {arm: drawn(shifts.get(arm, 0.1), 0.1, rng, study) for arm in study.arms}
    outcomes["X-CLR permuted"] = Outcome(outcomes["X-CLR"].right.copy(), outcomes["X-CLR"].likeness - 0.08)
    outcomes["X-CLR permuted"].right[::3, ::101] = 1 - outcomes["X-CLR permuted"].right[::3, ::101]
    found = findings(study, outcomes)
    verdicts = {each.arms[1]: each.verdict(study) for each in found.compared}
    assert verdicts == {"SimCLR": "above", "SupCon": "below", "X-CLR permuted": "alike", "CLIP frozen": "open"}
    said = reading(found)
    assert re.match(r"X-CLR is above SimCLR: \d+\.\d \(\d+\.\d to \d+\.\d\) points, Holm's p <0.001\.", said[0])
    assert said[1].startswith("X-CLR is below SupCon: -")
    assert said[2].startswith("X-CLR and X-CLR permuted are alike within 1.5 points (p ")
    assert said[3].startswith(
        "X-CLR and CLIP frozen are not told apart, and not shown to be alike within 1.5 points eith"
    )
    assert said[4].startswith(
        "After X-CLR the likeness of pictures of unseen things follows that of their captions more"
    )
    assert "at a level of 0.05 / 4" in said[5] and "There were 10 seeds and 1,500 pictures" in said[5]
    arms, contrasts = grids_of_study(found)
    assert [line.method for line in arms.lines if line.cells[0].best] == ["SupCon"]
    assert [line.cells[-1].text for line in contrasts.lines] == list(verdicts.values())


def test_a_graph_that_does_nothing_is_said_to_do_nothing_and_a_page_without_likeness_is_whole(study, tmp_path):
    rng = np.random.default_rng(1)
    outcomes = {arm: drawn(0, 0.1, rng, study) for arm in study.arms}
    assert any(
        line.startswith("No difference between X-CLR and X-CLR perm") for line in reading(findings(study, outcomes))
    )
    plain = study.model_copy(update={"mechanism": None})
    bare = findings(plain, {arm: Outcome(each.right, np.zeros(0)) for arm, each in outcomes.items()})
    assert bare.mechanism is None and bare.likeness == {} and len(reading(bare)) == 5
    page = write_study_page(tmp_path, bare, study_file("emoji").read_text()).read_text()
    assert "likeness:" not in page.split("What was fixed beforehand")[0] and "emoji" in page


def test_what_else_is_told_is_corrected_for_all_of_it(study):
    rng = np.random.default_rng(2)
    told = study.model_copy(update={"mechanism": None, "also": {"colour": Also(split="a"), "gap": Also(split="b")}})
    shifts = {"SimCLR": 0, "SupCon": 0.3, "X-CLR permuted": 0.15, "CLIP frozen": 0.3}
    outcomes = {arm: drawn(0.1, 0.1, rng, told) for arm in told.arms}
    for arm, each in outcomes.items():
        also = {"colour": drawn(shifts.get(arm, 0.15), 0.1, rng, told).right, "gap": each.right - each.right[::-1]}
        outcomes[arm] = Outcome(each.right, np.zeros(0), also)
    found = findings(told, outcomes)
    assert found.also["colour"]["SupCon"].mean == pytest.approx(outcomes["SupCon"].also["colour"].mean())
    verdicts = [each.verdict(told) for each in found.also_compared["colour"]]
    assert verdicts[0] == "above" and verdicts[1] == verdicts[3] == "below"
    ps = [each.found.p for compared in found.also_compared.values() for each in compared]
    corrected = [each.corrected for compared in found.also_compared.values() for each in compared]
    assert corrected == pytest.approx(holm(ps)) and len(ps) == 8
    said = next(line for line in reading(found) if line.startswith("colour: "))
    assert said.startswith("colour: X-CLR is above SimCLR; X-CLR is below SupCon; X-CLR is ")
    levels, contrasts = grids_of_study(found)[2:]
    assert levels.headings == contrasts.headings == ("colour", "gap")
    bold = [line.cells[0].best for line in contrasts.lines]
    assert bold == [each.corrected < 0.05 for each in found.also_compared["colour"]] and "all 8" in contrasts.caption
    rows = [each for each in found.rows if each["what"] == "colour: contrast"]
    assert [each["verdict"] for each in rows] == verdicts


def test_what_else_is_read_of_the_suites_answers(made):
    home, _, study = made
    store = Store(home)
    also = {"concepts": Also(split="concepts"), "gap": Also(split="pictures", less="pictures")}
    found = read_outcomes(study.model_copy(update={"also": also}), store)["graph"].also
    plan = pipeline(study.recipe, store)
    (suite,) = (store.find(each.digest).path for each in plan.of(SUITE) if each.name == "linear xclr seed 1")
    table = pq.read_table(suite / "predictions.parquet").to_pandas().query("split == 'concepts'")
    assert found["concepts"][1].tolist() == table.sort_values("row_id").right.tolist()
    assert not found["gap"].any()
    with pytest.raises(DataError, match="differ in their numbers of pictures"):
        read_outcomes(study.model_copy(update={"also": {"x": Also(split="pictures", less="concepts")}}), store)
    with pytest.raises(DataError, match="no pictures of split 'colour'"):
        read_outcomes(study.model_copy(update={"also": {"x": Also(split="colour")}}), store)


def test_the_study_of_scenes_changes_its_recipe_and_tells_more_than_one_number(tmp_path):
    study = load_study("scenes")
    assert study.recipe.data.seed == 1 and study.recipe.seeds == (0, 1, 2, 3, 4) and len(study.arms) == 6
    assert study.also["place gap"] == Also(split="same", less="random") and study.also["colour"] == Also(split="colour")
    changed = load_study(written(tmp_path, set={"train.epochs": 3}))
    assert changed.recipe.train.epochs == 3
    assert "set holds 3" in fault(tmp_path, set=3)


def test_arms_may_be_anything_that_a_recipe_takes(tmp_path):
    arms = {"a": {"name": "xclr", "target_temperature": 0.2}, "b": {"name": "simclr", "train": {"learning_rate": 0.01}}}
    study = load_study(written(tmp_path, arms=arms, contrasts=[["a", "b"]], mechanism=None))
    assert isinstance(study, Study) and study.arms["a"] == XCLRConfig(target_temperature=0.2)
    assert study.recipe.objectives[1].train == {"learning_rate": 0.01}
