"""Stages: what renames an output, what is left out, and how little planning imports."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.cluster import Cluster
from infra.plan import plan
from infra.resources import Resources
from tests.kit import trees
from tests.kit.stages import commit
from xclr.artifact import Digest, FileEntry, Manifest
from xclr.captions import stages as captions_stages
from xclr.errors import DataError, RecipeError, TextModelError
from xclr.evaluation import stages as evaluation_stages
from xclr.evaluation.stages import REFERENCE, SUITE
from xclr.images import stages as images_stages
from xclr.pipeline import KINDS, pipeline, planned_once
from xclr.recipe import SUITES, DataConfig, RandomConfig, Recipe, SupConConfig, load_recipe, parse_recipe
from xclr.stage import STEPS, Stage
from xclr.store import Store
from xclr.training import stages as training_stages
from xclr.training.stages import PRETRAIN, PretrainConfig

ROOT = Path(__file__).parents[1]
FOUR = ["simclr", "supcon", "clip", "xclr"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A writable HOME, so that the text model's files are hashed once."""
    store = Store(tmp_path_factory.mktemp("home"))
    store.check_writable()
    return store


@pytest.fixture
def table(tmp_path):
    """A Parquet table of captions, pictures and kinds."""
    path = tmp_path / "mine.parquet"
    pq.write_table(pa.table({"caption": ["a dog", "a cat"], "image": [b"1", b"2"], "kind": ["dog", "cat"]}), path)
    return path


def recipe(**keys):
    return parse_recipe({"name": "mine", "objectives": FOUR, **keys}, where="mine.yaml")


def digests(store, **keys):
    """The name of every stage of a recipe and the digest of its output."""
    return {stage.name: str(stage.digest) for stage in pipeline(recipe(**keys), store)}


def renamed(before, after):
    """The stages of `before` whose outputs are not among those of `after`."""
    return {name for name, digest in before.items() if digest not in after.values()}


def test_the_stages_stand_in_the_order_in_which_they_can_run(store):
    planned = [*pipeline(load_recipe("emoji", ("objective.graph.source=random_class",)), store)]
    made = set()
    for stage in planned:
        assert {str(each.digest) for each in stage.inputs.values()} <= made, stage.name
        made.add(str(stage.digest))
    kinds = ["captions", "images", "embeddings", "graph", "graph_report", "class_graph"]
    assert [stage.kind.name for stage in planned[:6]] == kinds
    assert planned[-1].kind.name == "comparison"
    assert {stage.kind.name for stage in planned} == set(KINDS) - {
        "initial",
        "reference",
        "finetune",
        "own_graph",
    }  # what the demo leaves out
    assert len({stage.name for stage in planned}) == len(planned)


@pytest.mark.parametrize(
    "keys",
    [
        {"seeds": [0, 1]},
        {"objectives": ["random", "random", "xclr"]},
        {"objectives": ["xclr", {"name": "xclr", "graph": {"source": "captions"}}]},
        {"objectives": ["clip", {"name": "xclr", "graph": {"source": "random_class"}}, "xclr"]},
        {"evaluate": {"suites": ["linear", "linear"]}},
    ],
)
def test_no_output_is_made_twice_in_a_run(keys, store):
    try:
        planned = pipeline(recipe(**keys), store)
    except RecipeError:
        return  # a recipe that names the same thing twice may also be refused
    assert len({stage.digest for stage in planned}) == len(planned)


def test_stages_that_differ_have_different_names(store):
    graphs = [{"name": "xclr", "graph": {"source": "random_class", "seed": seed}} for seed in (0, 1)]
    planned = pipeline(recipe(objectives=graphs), store)
    assert len({stage.name for stage in planned}) == len({stage.digest for stage in planned})


def test_references_that_differ_in_seed_or_weights_alone_are_networks_of_their_own(store):
    chosen = [{"library": "torchvision", "model": "resnet18", "weights": "random", "seed": seed} for seed in (0, 1)]
    chosen.append(chosen[0] | {"weights": "IMAGENET1K_V1"})
    chosen.append(chosen[0] | {"model": "resnet34"})
    planned = pipeline(recipe(evaluate={"suites": ["linear"], "references": chosen}), store)
    networks = {stage.name: stage.digest for stage in planned.of(REFERENCE)}
    assert list(networks) == [
        "reference torchvision resnet18 random seed 0",
        "reference torchvision resnet18 random seed 1",
        "reference torchvision resnet18 IMAGENET1K_V1 seed 0",
        "reference torchvision resnet34",
    ]
    judged = [stage.network for stage in planned.of(SUITE) if stage.network in networks.values()]
    assert judged == list(networks.values())
    assert len({stage.name for stage in planned}) == len(planned)


def test_within_a_run_a_recipe_is_planned_once(store, table):
    mine = recipe(data={"source": "table", "path": str(table)})
    with planned_once():
        before = pipeline(mine, store)
        pq.write_table(pa.table({"caption": ["a cow"], "image": [b"3"]}), table)
        assert pipeline(mine, store) is before
        assert pipeline(recipe(data={"source": "table", "path": str(table)}, seeds=[1]), store) is not before
    assert next(iter(pipeline(mine, store))).digest != next(iter(before)).digest


def test_planning_touches_nothing(tmp_path):
    pipeline(recipe(), Store(tmp_path / "home"))
    assert list(tmp_path.iterdir()) == []


def test_the_target_temperature_renames_xclr_and_what_follows_it(store):
    changed = {"objectives": ["simclr", "supcon", "clip", {"name": "xclr", "target_temperature": 0.2}]}
    assert renamed(digests(store), digests(store, **changed)) == {
        "pretrain xclr seed 0", "features xclr seed 0", "linear xclr seed 0", "comparison",
    }  # fmt: skip


@pytest.mark.parametrize(
    "keys",
    [
        {"embed": {"batch_tokens": 7}},
        {"graph": {"block": 7, "part": 70}},
        {"train": {"log_every": 7, "checkpoint_every": 7}},
        {"name": "another"},
    ],
)
def test_runtime_fields_and_the_recipes_name_rename_nothing(keys, store):
    assert digests(store, **keys) == digests(store)


def test_the_cluster_renames_nothing(store):
    big = Cluster(name="big", default=Resources(executor="local", ranks=8, threads=4, gpus=8, timeout_min=60))
    small = Cluster(name="small")
    assert [row.digest for row in plan(recipe(), store, big)] == [row.digest for row in plan(recipe(), store, small)]


def test_the_schedule_renames_every_training_but_the_untrained_row(store):
    gone = renamed(digests(store), digests(store, train={"epochs": 3}))
    titles = [f"{name} seed 0" for name in FOUR]
    assert gone == {f"{kind} {title}" for kind in ("pretrain", "features", "linear") for title in titles} | {
        "comparison"
    }


def test_the_graphs_neighbours_rename_the_graph_and_its_page_alone(store):
    assert renamed(digests(store), digests(store, graph={"k": 5})) == {"graph", "graph report"}


def test_a_further_seed_adds_trainings_and_renames_the_comparison(store):
    before, after = digests(store), digests(store, seeds=[0, 1])
    assert renamed(before, after) == {"comparison"}
    assert all(name.endswith("seed 1") for name in renamed(after, before) - {"comparison"})


def test_a_further_suite_adds_its_stages_and_renames_the_comparison(store):
    before, after = digests(store), digests(store, evaluate={"suites": ["linear", "keywords"]})
    assert renamed(before, after) == {"comparison"}
    new = renamed(after, before)
    assert new == {f"keywords {name} seed 0" for name in ["random", *FOUR]} | {"comparison"}


def test_a_limit_renames_everything_but_nothing_else_depends_on_the_machine(store):
    assert renamed(digests(store), digests(store, data={"limit": 40})) == set(digests(store))


def test_a_table_is_named_by_its_content_not_by_its_place(store, table, tmp_path):
    moved = tmp_path / "moved.parquet"
    moved.write_bytes(table.read_bytes())
    data = {"source": "table", "label_column": "kind"}
    before = digests(store, data={**data, "path": str(table)})
    assert digests(store, data={**data, "path": str(moved)}) == before
    pq.write_table(pa.table({"caption": ["a dog"], "image": [b"1"], "kind": ["dog"]}), moved)
    assert renamed(before, digests(store, data={**data, "path": str(moved)})) == set(before)


def test_a_missing_table_is_named(store, tmp_path):
    with pytest.raises(DataError, match=r"absent\.parquet"):
        pipeline(recipe(data={"source": "table", "path": str(tmp_path / "absent.parquet")}), store)


def test_a_text_model_in_a_folder_is_named_by_its_files(store, tmp_path):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("1")
    before = digests(store, embed={"model": str(tmp_path / "here")})
    assert digests(store, embed={"model": str(tmp_path / "there")}) == before
    (tmp_path / "here" / "weights").write_text("22")
    gone = renamed(before, digests(store, embed={"model": str(tmp_path / "here")}))
    assert gone == {
        "embeddings", "graph", "graph report", "pretrain xclr seed 0", "features xclr seed 0", "linear xclr seed 0",
        "comparison",
    }  # fmt: skip


def test_an_unknown_text_model_fails_while_planning(store, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(TextModelError, match="no-such-model"):
        pipeline(recipe(embed={"model": "nobody/no-such-model"}), store)


def test_data_without_classes_skip_what_needs_them_and_say_so(store, table):
    mine = recipe(data={"source": "table", "path": str(table)}, evaluate={"suites": ["linear"]})
    lines = evaluation_stages.tell_skipped(mine)
    assert len(lines) == 2
    assert lines[0].startswith("supcon is left out")
    assert lines[1].startswith("suite linear is left out")
    assert all("data.label_column" in line for line in lines)
    planned = pipeline(mine, store)
    assert not any("supcon" in stage.name for stage in planned)
    assert not any(stage.kind.name == "suite" for stage in planned)
    assert [each.name for each in training_stages.objectives(mine)] == ["random", "simclr", "clip", "xclr"]


def test_a_labelled_table_has_supcon_and_the_linear_probe_but_not_the_emojis_suites(store, table):
    data = {"source": "table", "path": str(table), "label_column": "kind"}
    mine = recipe(data=data, evaluate={"suites": ["linear", "keywords", "objectnet"]})
    assert evaluation_stages.suites(mine) == ["linear"]
    assert sorted(line.split()[1] for line in evaluation_stages.tell_skipped(mine)) == ["keywords", "objectnet"]
    assert "pretrain supcon seed 0" in {stage.name for stage in pipeline(mine, store)}


def test_other_pictures_are_judged_by_networks_that_keep_their_names(store, table):
    """Their suites read the other captions and pictures, and ask for those's classes."""
    own = recipe(objectives=["simclr", "clip"], evaluate={"suites": ["linear", "keywords"]})
    other = recipe(data={"source": "table", "path": str(table), "label_column": "kind"})
    mine = own.on(other)
    assert mine.name == f"{own.name}-on-{other.name}" and mine.judged == other.data and mine.data == own.data
    assert evaluation_stages.suites(mine) == ["retrieval", "linear", "own-knn"]
    planned, judged = ({stage.name: stage for stage in pipeline(each, store)} for each in (mine, other))
    trained = {each.digest for each in pipeline(own, store) if each.kind is PRETRAIN}
    assert {each.digest for each in planned.values() if each.kind is PRETRAIN} == trained
    shown = {role: store.reference(judged[role].digest) for role in ("captions", "images")}
    seen = planned["features simclr seed 0"].inputs
    assert {role: seen[role] for role in shown} == shown
    assert planned["captions"].digest != planned["captions to judge"].digest == judged["captions"].digest
    assert {planned[f"{suite} clip seed 0"].inputs["labels"] for suite in ("retrieval", "linear", "own-knn")} == {
        shown["captions"]
    }
    assert "retrieval simclr seed 0" not in planned
    unlabelled = recipe(data={"source": "table", "path": str(table)})
    lines = evaluation_stages.tell_skipped(own.on(unlabelled))
    assert lines == [
        f"suite {each} is left out: it needs classes (evaluate.data.label_column)" for each in ("linear", "own-knn")
    ]


def test_the_emoji_skip_nothing():
    assert evaluation_stages.tell_skipped(load_recipe("emoji")) == []


def test_the_random_graph_needs_classes(store, table):
    data = {"source": "table", "path": str(table)}
    for keys in (
        {"graph": {"source": "random_class"}},
        {"objectives": [{"name": "xclr", "graph": {"source": "random_class"}}]},
    ):
        with pytest.raises(RecipeError, match="random_class") as caught:
            pipeline(recipe(data=data, **keys), store)
        assert "data.label_column" in caught.value.remedy


def test_the_untrained_row_comes_first_and_once():
    chosen = training_stages.objectives(recipe(objectives=["simclr", "random"]))
    assert [each.name for each in chosen] == ["random", "simclr"]
    assert isinstance(chosen[0], RandomConfig)


def test_xclr_takes_the_recipes_graph_unless_it_names_its_own(store):
    own = {"name": "xclr", "graph": {"source": "random_class", "seed": 4}}
    planned = pipeline(recipe(objectives=["xclr", own], graph={"source": "random_class", "seed": 2}), store)
    graphs = {stage.name: stage for stage in planned if stage.kind.name == "class_graph"}
    assert set(graphs) == {"class graph random_class-2", "class graph random_class-4"}
    used = [stage.inputs["class_graph"].digest for stage in planned if "class_graph" in stage.inputs]
    assert used == [stage.digest for stage in graphs.values()]


def test_every_stage_survives_json(store):
    for stage in pipeline(load_recipe("emoji"), store):
        back = Stage.from_json(stage.to_json(), KINDS)
        assert back == stage
        assert back.digest == stage.digest
        assert list(back.inputs) == list(stage.inputs)
        assert back.digest.kind == stage.kind.name


def test_a_stage_of_a_table_survives_json(store, table):
    for stage in pipeline(recipe(data={"source": "table", "path": str(table), "label_column": "kind"}), store):
        assert Stage.from_json(stage.to_json(), KINDS) == stage


def test_a_stages_identity_is_what_json_can_hold(store):
    for stage in pipeline(load_recipe("emoji"), store):
        assert json.loads(json.dumps(stage.identity)) == stage.identity


def counted(**stats):
    """A manifest with these counts."""
    stats = {"rows": 100} | stats
    name = Digest("captions", "ab" * 16)
    return Manifest(
        kind="captions", digest=name, inputs=(), config={}, code=1, files=(), stats=stats, created="2025-01-01"
    )


def check(wanted, made, steps=STEPS, data=None):
    """Whether a recipe can take steps with captions or pictures, its own unless others are given."""
    kind = images_stages.IMAGES if "ok" in made.stats else captions_stages.CAPTIONS
    Stage(kind, kind.name, kind.config(data=data or wanted.data, sha256=())).check(wanted, made, steps)


def test_data_that_are_enough_pass():
    check(recipe(train={"batch_size": 50}, graph={"k": 9}), counted(train=50, distinct=10))


def test_too_few_training_pictures_are_told_a_batch_size_that_works():
    with pytest.raises(DataError, match=r"train\.batch_size 64 .* 50") as caught:
        check(recipe(train={"batch_size": 64}, graph={"k": 1}), counted(train=50, distinct=10))
    assert caught.value.remedy == "--set train.batch_size=25"


def test_too_few_own_pictures_to_fine_tune_on_are_refused_before_any_training(table):
    labelled = {"source": "table", "path": str(table), "label_column": "kind"}
    mine = recipe(data=labelled, train={"batch_size": 32}, graph={"k": 4}, evaluate={"suites": ["own-finetune"]})
    with pytest.raises(DataError, match=r"evaluate\.finetune\.batch_size 256 .* the 200 training pictures") as caught:
        check(mine, counted(train=200, distinct=10))
    assert caught.value.remedy == "--set evaluate.finetune.batch_size=100, or leave own-finetune out"
    check(mine, counted(train=256, distinct=10))
    for changed in ({"data": labelled | {"label_column": None}}, {"evaluate": {"suites": ["own-knn"]}}):
        raw = mine.model_dump(mode="json") | changed
        check(Recipe.model_validate(raw), counted(train=200, distinct=10))


def test_a_batch_larger_than_what_a_fraction_leaves_is_refused_by_its_name():
    with pytest.raises(DataError) as caught:
        check(recipe(train={"fraction": 0.1}), counted(train=1644, distinct=100))
    assert caught.value.message == (
        "train.batch_size 256 is larger than the 164 training pictures that train.fraction 0.1 leaves"
    )
    assert caught.value.remedy == "--set train.batch_size=82, or a larger train.fraction"
    check(recipe(train={"fraction": 0.1, "batch_size": 164}), counted(train=1644, distinct=100))


def test_a_fraction_renames_every_training_but_the_untrained_row_and_no_data(store):
    gone = renamed(digests(store), digests(store, train={"fraction": 0.5}))
    assert gone == renamed(digests(store), digests(store, train={"epochs": 3}))


def test_finetuning_sees_all_pictures_whatever_the_pretraining_saw(store):
    def finetuned(**train):
        mine = recipe(train=train, evaluate={"suites": ["finetune"]})
        other = store.reference(Digest("other", "ab" * 16))
        data = evaluation_stages.DataSets(other, other, other, {"imagenet": other})
        return evaluation_stages.finetune(mine, "xclr", other, data)

    assert finetuned(fraction=0.1).digest == finetuned().digest


def test_too_few_captions_are_told_a_k_that_works():
    with pytest.raises(DataError, match=r"graph\.k 10 .* 10") as caught:
        check(recipe(train={"batch_size": 2}, graph={"k": 10}), counted(train=50, distinct=10))
    assert caught.value.remedy == "--set graph.k=9"


OWN = {"source": "table", "path": "/mine.csv", "label_column": "kind"}


@pytest.mark.parametrize(
    ("data", "remedy"),
    [
        (OWN, "set data.caption_column to a column that does, not to caption"),
        ({"source": "folder", "path": "/mine"}, "put the pictures of each class into a folder of its own"),
        ({"source": "wds", "path": "/mine"}, "captions must tell the pictures apart"),
    ],
)
@pytest.mark.parametrize("k", [1, 4, 64])
def test_captions_that_are_all_the_same_are_told_without_a_k_that_cannot_be(data, remedy, k):
    with pytest.raises(DataError) as caught:
        check(recipe(data=data, graph={"k": k}), counted(rows=400, train=360, distinct=1))
    assert caught.value.message == "all 400 captions are the same"
    assert remedy in caught.value.remedy and "graph.k" not in str(caught.value)


def classed(classes, **stats):
    """A manifest of captions with so many classes."""
    made = counted(**{"train": 300, "distinct": 300, "rows": 300} | stats)
    entry = FileEntry(path="classes.parquet", bytes=1, rows=classes, sha256="")
    return made.model_copy(update={"files": (entry,)})


@pytest.mark.parametrize(
    ("classes", "stats", "says"),
    [
        (1, {}, "all 300 pictures are of one class"),
        (300, {}, "each of 300 pictures is its own class"),
        (100, {"pictures_shown": 100}, "each of 100 pictures is its own class"),
    ],
)
def test_classes_that_tell_nothing_are_told_before_long_work_where_they_are_used(classes, stats, says):
    made = classed(classes, **stats)
    with pytest.raises(DataError, match=f"{says}, which tells supcon nothing") as caught:
        check(recipe(data=OWN), made)
    assert "--set data.label_column=null" in caught.value.remedy
    with pytest.raises(DataError, match="which tells linear nothing"):
        check(recipe(data=OWN, objectives=["xclr"]), made)
    check(recipe(data=OWN, objectives=["xclr"], evaluate={"suites": ["retrieval"]}), made)
    check(recipe(data=OWN), made, steps={"captions", "images", "embeddings", "graph"})
    check(recipe(data=OWN), classed(2, rows=300))
    with pytest.raises(DataError, match="linear") as caught:
        check(recipe(data={"source": "folder", "path": "/mine"}, objectives=["xclr"]), made)
    assert "label_column" not in caught.value.remedy


def test_pictures_to_judge_alone_are_held_to_the_suites_and_to_nothing_else():
    other = DataConfig(**OWN | {"path": Path("/other.csv")})
    judging = recipe(data=OWN, objectives=["xclr"], evaluate={"data": other.model_dump(mode="json")})
    check(judging, counted(train=3, distinct=1, rows=4), data=other)
    check(judging, counted(ok=1, rows=4), data=other)
    with pytest.raises(DataError, match="linear nothing") as caught:
        check(judging, classed(1), data=other)
    assert "--set evaluate.data.label_column=null" in caught.value.remedy
    check(judging, classed(1))


@pytest.mark.parametrize("until", ["captions", "images", "embeddings", "graph"])
def test_a_run_that_ends_before_its_trainings_is_not_refused_for_their_batch(until):
    steps = STEPS[: STEPS.index(until) + 1]
    check(recipe(train={"batch_size": 64}, graph={"k": 1}), counted(train=50, distinct=10), steps)
    check(recipe(train={"batch_size": 64}), counted(ok=20), steps)
    if until != "graph":
        check(recipe(graph={"k": 64}), counted(train=5000, distinct=10), steps)


def test_too_few_usable_pictures_are_told_with_what_became_of_the_others():
    made = counted(ok=20, dns=70, http_4xx=10, downloaded_bytes=5)
    with pytest.raises(DataError) as caught:
        check(recipe(train={"batch_size": 64}), made)
    assert "20 of 100 pictures can be used (10 http_4xx, 70 dns)" in caught.value.message
    assert "--set train.batch_size=10" in caught.value.remedy
    check(recipe(train={"batch_size": 20}), made)


def modules_after(program):
    """The top-level modules a fresh interpreter has loaded after the program."""
    program += "\nimport json, sys\nprint(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("module", ["xclr.pipeline", "infra.plan", "flows.cli", "flows"])
def test_planning_loads_neither_torch_prefect_nor_mlflow(module):
    loaded = modules_after(f"import {module}")
    assert module.partition(".")[0] in loaded
    assert loaded.isdisjoint({"torch", "prefect", "mlflow", "submitit", "sentence_transformers", "torchvision"})


@pytest.mark.slow
def test_the_library_loads_no_orchestrator():
    program = """
import importlib, pkgutil, xclr
names = [found.name for found in pkgutil.walk_packages(xclr.__path__, "xclr.")]
assert "xclr.training.loop" in names
for name in names:
    importlib.import_module(name)
"""
    loaded = modules_after(program)
    assert {"xclr", "torch"} <= loaded
    assert loaded.isdisjoint({"prefect", "mlflow", "submitit", "flows", "tasks", "infra"})


def own(tmp_path, source, **keys):
    """Data of one's own: a picture in a class folder, and a table that names it."""
    (tmp_path / "pictures" / "dog").mkdir(parents=True, exist_ok=True)
    (tmp_path / "pictures" / "dog" / "a.png").write_bytes(b"1")
    (tmp_path / "mine.csv").write_text("caption,image\na dog,pictures/dog/a.png\n")
    path = tmp_path / ("mine.csv" if source == "table" else "pictures")
    return {"source": source, "path": str(path), **keys}


@pytest.mark.parametrize("source", ["table", "folder"])
def test_a_changed_picture_file_renames_the_images_and_what_follows_but_no_caption(source, store, tmp_path):
    before = digests(store, data=own(tmp_path, source))
    (tmp_path / "pictures" / "dog" / "a.png").write_bytes(b"22")
    gone = renamed(before, digests(store, data={"source": source, **paths(tmp_path, source)}))
    assert {"images", "pretrain simclr seed 0"} <= gone
    assert gone.isdisjoint({"captions", "embeddings", "graph"})


def paths(tmp_path, source):
    """Where the data of `own` lie."""
    return {"path": str(tmp_path / ("mine.csv" if source == "table" else "pictures"))}


def test_a_further_picture_in_a_folder_renames_the_captions(store, tmp_path):
    before = digests(store, data=own(tmp_path, "folder"))
    (tmp_path / "pictures" / "dog" / "b.png").write_bytes(b"1")
    assert "captions" in renamed(before, digests(store, data=own(tmp_path, "folder")))


def test_a_missing_picture_file_fails_while_planning(store, tmp_path):
    data = own(tmp_path, "table")
    (tmp_path / "pictures" / "dog" / "a.png").unlink()
    with pytest.raises(DataError, match="1 of 1 picture files are not there"):
        pipeline(recipe(data=data), store)


def test_hosts_that_may_be_reached_rename_the_images_alone_among_the_data(store, tmp_path):
    before = digests(store, data=own(tmp_path, "table"))
    gone = renamed(before, digests(store, data={**paths(tmp_path, "table"), "source": "table", "allow_hosts": ["nas"]}))
    assert "images" in gone
    assert gone.isdisjoint({"captions", "embeddings", "graph"})


def test_another_template_renames_the_captions_of_a_folder(store, tmp_path):
    before = digests(store, data=own(tmp_path, "folder"))
    after = digests(store, data={**paths(tmp_path, "folder"), "source": "folder", "caption_template": "a {}"})
    assert "captions" in renamed(before, after)


def test_class_folders_have_classes(store, tmp_path):
    mine = recipe(data=own(tmp_path, "folder"), evaluate={"suites": ["linear", "keywords"]})
    assert mine.data.has_labels
    assert evaluation_stages.suites(mine) == ["linear"]
    assert "pretrain supcon seed 0" in {stage.name for stage in pipeline(mine, store)}


def test_supcon_on_the_emojis_judged_classes_has_a_name_of_its_own_and_on_other_data_its_old_one(store, tmp_path):
    found = {stage.name: stage for stage in pipeline(load_recipe("emoji"), store) if stage.kind.name == "pretrain"}
    judged, concepts = (found[f"pretrain supcon{suffix} seed 0"] for suffix in ("", " (concept)"))
    assert judged.config.judged and not concepts.config.judged and judged.digest != concepts.digest
    before = PretrainConfig.model_validate(judged.identity | {"judged": False})  # as manifests of before have it
    told = [training_stages.origin(each).graph for each in (judged.config, before, concepts.config)]
    assert told == ["class", "concept", "concept"]
    assert "judged" not in concepts.identity and "classes" not in judged.identity["objective"]
    (tmp_path / "x.csv").write_text("caption,image,kind\na,http://host/a.png,b\n")
    mine = recipe(data={"source": "table", "path": tmp_path / "x.csv", "label_column": "kind"}, objectives=["supcon"])
    assert not any("judged" in each.identity for each in pipeline(mine, store) if each.kind.name == "pretrain")
    wrong = mine.model_copy(update={"objectives": (SupConConfig(classes="concepts"),)})
    with pytest.raises(RecipeError, match="supcon on concepts is for the emoji"):
        pipeline(wrong, store)


def test_conceptual_captions_have_no_classes_and_the_lines_do_not_ask_for_a_column(tmp_path):
    mine = recipe(data={"source": "cc12m", "path": "x.tsv", "label_column": "kind"})
    assert not mine.data.has_labels
    assert evaluation_stages.tell_skipped(mine) == [
        "supcon is left out: it needs classes (cc12m has none)",
        "suite linear is left out: it needs classes (cc12m has none)",
    ]


@pytest.mark.parametrize("name", ["cc3m", "cc12m", "imagenet"])
def test_the_papers_recipes_serve_all_they_ask_for(name, store, tmp_path):
    """With data in place: every objective and suite of the recipe is planned."""
    places = {"cc3m": "a dog\thttp://host/a.jpg\n", "cc12m": "http://host/a.jpg\ta dog\n"}
    roots = trees.every(tmp_path / "data")
    path = tmp_path / "x.tsv"
    if name == "imagenet":
        path = Path(roots.pop("imagenet"))  # the pictures that it trains on are those of the suites
    else:
        path.write_text(places[name])
    packaged = "embed.model=sentence-transformers/all-MiniLM-L6-v2"  # the recipe's own needs a network
    loaded = load_recipe(name, [f"data.path={path}", f"evaluate.roots={json.dumps(roots)}", packaged])
    assert evaluation_stages.tell_skipped(loaded) == []
    planned = pipeline(loaded, store)
    assert sum(stage.kind.name == "pretrain" for stage in planned) == 1 + len(loaded.objectives)
    methods = ("random", "simclr", *(["supcon"] if name == "imagenet" else ["clip-bpe", "clip-frozen"]), "xclr")
    suites = {stage.name for stage in planned if stage.kind.name == "suite"}
    with_captions = {"zero-shot", "retrieval"}
    assert suites == {
        f"{suite} {method} seed 0"
        for suite in {name for name, each in SUITES.items() if not each.own and not each.annotated}
        - (with_captions if name == "imagenet" else set())
        for method in methods
        if method.startswith("clip") or suite not in with_captions
    }
    assert sum(stage.kind.name == "probe" for stage in planned) == len(methods)
    assert sum(stage.kind.name == "benchmark" for stage in planned) == 5
    for stage in planned:
        assert Stage.from_json(stage.to_json(), KINDS) == stage


def test_what_of_a_source_became_no_caption_is_said():
    def said(**stats):
        made = Manifest(kind="captions", digest="", inputs=(), config={}, code=1, files=(), stats=stats, created="")
        return list(captions_stages.tell_left_out(made))

    assert said(rows=3) == said(rows=3, malformed=0, repeated_urls=0) == []
    assert said(malformed=2, malformed_lines="3, 70", repeated_urls=1000) == [
        "captions: left out as malformed: 2 (lines 3, 70)",
        "captions: left out because their address stood before: 1,000",
    ]
    assert said(malformed=1, malformed_samples="a.tar: 7") == ["captions: left out as malformed: 1 (a.tar: 7)"]


SEVERAL = [["a dog", "a puppy"], ["a cat"], ["a dog"], ["a bird", "a bird"]]


@pytest.mark.parametrize(
    "columns",
    [
        {"caption": ["a", "b", "a", " a "], "kind": ["x", "y", "x", None]},
        {"caption": ["a"] * 4},
        {"caption": SEVERAL, "kind": [*"xyxy"]},
        {"caption": [*"abcd"], "image": ["1.png", "1.png", "2.png", "3.png"]},
    ],
)
def test_what_is_foreseen_of_captions_is_what_their_stage_then_says(columns, store, tmp_path, monkeypatch):
    for name in ("1.png", "2.png", "3.png"):
        (tmp_path / name).write_bytes(b"1")
    columns = {"image": [b"1", b"2", b"3", b"4"]} | columns
    pq.write_table(pa.table(columns), tmp_path / "own.parquet")
    label = {"label_column": "kind"} if "kind" in columns else {}
    mine = recipe(data={"source": "table", "path": str(tmp_path / "own.parquet"), **label}, graph={"k": 1})
    stage = captions_stages.captions(mine, store)
    made = store.manifest(commit(store, stage, importlib.import_module(stage.kind.run).run))
    assert [each.error.message for each in captions_stages.foresee(stage, mine)] == [
        each.error.message for each in captions_stages.refuse(stage, mine, made)
    ]
    assert captions_stages.count(stage.config.data) == captions_stages.counted(made)
