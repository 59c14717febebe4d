"""Graphs of the user's own in recipes, plans and sweeps: named by what they hold, and faults told before any work."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.kit.finished import begin, finish
from tests.kit.recipes import TINY
from xclr import schema
from xclr.errors import RecipeError
from xclr.evaluation.stages import SUITE
from xclr.opened import Opened
from xclr.pipeline import KINDS, pipeline
from xclr.recipe import XCLRConfig, graph_name, load_recipe, parse_recipe, recipe_yaml
from xclr.report.trainings import trainings_of
from xclr.stage import Stage
from xclr.store import Store
from xclr.sweep.layout import layout
from xclr.sweep.spec import Sweep
from xclr.training.stages import PRETRAIN

SIMILAR = "def similar(rows, captions):\n    raise RuntimeError('a plan runs no code')\n"


@pytest.fixture
def folder(tmp_path):
    """A folder with the files of three graphs."""
    np.save(tmp_path / "classes.npy", np.eye(3))
    pq.write_table(pa.table({"src": [0], "dst": [1], "sim": [0.5]}), tmp_path / "pairs.parquet")
    (tmp_path / "mine.py").write_text(SIMILAR)
    return tmp_path


MATRIX = {"source": "matrix", "path": "classes.npy"}
EDGES = {"source": "edges", "path": "pairs.parquet"}
PYTHON = {"source": "python", "function": "mine:similar"}
READING = PYTHON | {"reads": ["pairs.parquet"]}


def recipe(folder, graph, *own, **keys):
    objectives = ["xclr", *({"name": "xclr", "graph": each} for each in own)]
    return parse_recipe(TINY | {"objectives": objectives, "graph": graph} | keys, "tiny.yaml", folder)


def planned(folder, graph, *own, home="home"):
    return pipeline(recipe(folder, graph, *own), Store(folder / home))


def trained(plan):
    return [stage for stage in plan.of(PRETRAIN) if "own_graph" in stage.inputs]


def test_each_training_reads_its_own_graph_and_tables_tell_them_apart(folder):
    plan = planned(folder, EDGES, MATRIX, PYTHON, {"source": "captions"})
    names = {str(stage.digest): stage.name for stage in plan if stage.kind.name == "own_graph"}
    assert sorted(names.values()) == [
        "own graph edges pairs.parquet", "own graph matrix classes.npy", "own graph python mine:similar",
    ]  # fmt: skip
    used = {names[str(stage.inputs["own_graph"].digest)]: stage.name for stage in trained(plan)}
    assert used == {f"own graph {each}": f"pretrain xclr ({each}) seed 0" for each in (
        "edges pairs.parquet", "matrix classes.npy", "python mine:similar")}  # fmt: skip
    own = [stage.config.objective for stage in trained(plan)]
    assert [each.uses for each in own] == [
        ("pixels", "own graph"), ("pixels", "labels", "own graph"), ("pixels", "own graph"),
    ]  # fmt: skip
    for stage in plan:
        assert Stage.from_json(stage.to_json(), KINDS).digest == stage.digest


def test_a_files_name_stays_what_it_is_where_classes_are_concepts(folder):
    (objective,) = recipe(folder, MATRIX).with_graphs(lambda graph: graph).objectives
    named = XCLRConfig(graph=recipe(folder, MATRIX).graph.target)
    assert objective.graph is None and graph_name(named, "emoji") == "matrix classes.npy"


@pytest.mark.parametrize(("graph", "file"), [(EDGES, "pairs.parquet"), (PYTHON, "mine.py"), (READING, "pairs.parquet")])
def test_what_a_file_holds_names_the_training_and_where_it_lies_does_not(graph, file, folder):
    def digests(place):
        plan = planned(place, graph, home="h")
        (training,) = trained(plan)
        return training.inputs["own_graph"].digest, training.digest

    before = digests(folder)
    other = folder / "elsewhere"
    other.mkdir()
    for name in ("pairs.parquet", "mine.py"):
        (other / name).write_bytes((folder / name).read_bytes())
    assert digests(other) == before
    if file == "pairs.parquet":
        pq.write_table(pa.table({"src": [0], "dst": [1], "sim": [0.25]}), other / file)
    else:
        (other / file).write_text(SIMILAR + "# another\n")
    assert not set(digests(other)) & set(before)


def test_trainings_of_before_keep_their_names(folder):
    plan = planned(folder, {"source": "captions"})
    (stage,) = [each for each in plan.of(PRETRAIN) if "embeddings" in each.inputs]
    assert stage.identity["objective"]["graph"] == {"source": "captions", "seed": 0}


def test_paths_start_at_the_recipe(folder):
    (folder / "own.yaml").write_text("graph: {source: matrix, path: classes.npy}\nobjectives: [xclr]\n")
    loaded = load_recipe(str(folder / "own.yaml"), ("seeds=[1]",))
    assert loaded.graph.path == folder / "classes.npy"
    own = recipe(folder, EDGES, READING)
    assert (own.graph.path, own.objectives[1].graph.path) == (folder / "pairs.parquet", folder)
    assert own.objectives[1].graph.reads == (folder / "pairs.parquet",)
    assert recipe(folder, {"source": "captions"}).graph.path is None
    text = recipe_yaml(own)
    assert "path: pairs.parquet" in text and str(folder) not in text
    assert parse_recipe(yaml.safe_load(text), "tiny.yaml", folder) == own


WRONG = [
    ({"source": "matrix"}, "graph matrix needs `path`"),
    ({"source": "edges", "by": "id"}, "graph edges needs `path`"),
    ({"source": "python"}, "graph python needs `function`"),
    ({"source": "class", "path": "a.npy"}, "graph class takes no `path`, which is for matrix, edges, python"),
    ({"source": "knn", "function": "a:b"}, "graph knn takes no `function`, which is for python"),
    ({"source": "matrix", "path": "a.npy", "by": "id"}, "graph matrix takes no `by`, which is for edges"),
    ({"source": "python", "function": "os.system"}, r"graph\.function"),
    ({"source": "python", "function": "../mine:similar"}, r"graph\.function"),
    ({"source": "edges", "path": "a.parquet", "by": "name"}, r"graph\.by"),
    ({"source": "edges", "path": "a\nb.parquet"}, "a file's name holds a line end"),
    ({"source": "edges", "path": "a.parquet", "reads": ["b.parquet"]}, "takes no `reads`, which is for python"),
    ({"source": "martix"}, "did you mean matrix"),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "said"), WRONG)
def test_a_graph_that_cannot_be_is_refused_when_the_recipe_is_read(graph, said, tmp_path):
    with pytest.raises(RecipeError, match=said):
        recipe(tmp_path, graph)
    with pytest.raises(RecipeError, match=r"objectives\.1\.graph"):
        recipe(tmp_path, {}, graph)


def test_a_matrix_is_of_classes(folder):
    pq.write_table(pa.table({"caption": ["a"], "image": [b"1"]}), folder / "mine.parquet")
    without = recipe(folder, MATRIX, data={"source": "table", "path": "mine.parquet"})
    with pytest.raises(RecipeError, match="graph matrix needs classes"):
        pipeline(without, Store(folder / "home"))


def test_two_files_of_one_name_are_refused_in_one_table(folder):
    (folder / "b").mkdir()
    with pytest.raises(RecipeError, match="could not tell two entries"):
        recipe(folder, EDGES, EDGES | {"path": "b/pairs.parquet"})


MISSING = [
    (MATRIX | {"path": "other.npy"}, "there is no file .*other.npy"),
    (EDGES | {"path": "."}, "there is no file"),
    (PYTHON | {"function": "yours:similar"}, r"there is no yours\.py in"),
    (PYTHON | {"function": "mine:other"}, r"mine\.py defines no function other"),
    (PYTHON | {"function": "torn:similar"}, r"torn\.py is not Python"),
    (PYTHON | {"reads": ["classes.npy", "vectors.parquet"]}, r"there is no file .*vectors\.parquet"),
    (PYTHON | {"path": "home/artifacts/own_graph/0"}, r"from which no code is run"),
]


@pytest.mark.parametrize(("graph", "said"), MISSING)
def test_what_is_missing_is_told_by_the_plan(graph, said, folder):
    (folder / "torn.py").write_text("def similar(:\n")
    artifact = folder / "home" / "artifacts" / "own_graph" / "0"
    artifact.mkdir(parents=True)
    (artifact / "mine.py").write_text(SIMILAR)
    with pytest.raises(RecipeError, match=said) as caught:
        planned(folder, graph)
    assert caught.value.remedy


def test_a_module_is_looked_for_beside_the_recipe_and_then_on_the_path(folder, monkeypatch):
    lab = folder / "lib" / "lab"
    lab.mkdir(parents=True)
    (lab / "graphs.py").write_text(SIMILAR)
    (folder / "lib" / "mine.py").write_text(SIMILAR + "# another\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder / "nowhere"), str(folder / "lib")]))
    plan = planned(folder, PYTHON, PYTHON | {"function": "lab.graphs:similar"})
    paths = {stage.config.function: stage.config.paths[0] for stage in plan if stage.kind.name == "own_graph"}
    assert paths == {"mine:similar": folder / "mine.py", "lab.graphs:similar": lab / "graphs.py"}


def test_a_sweep_over_sources_has_a_cell_for_each(folder):
    base = recipe(folder, {"source": "captions"}).model_dump(mode="json")
    graphs = [
        {"source": "captions"},
        *({**each, "path": str(folder / each.get("path", ""))} for each in (MATRIX, EDGES, PYTHON)),
    ]
    sweep = Sweep.model_validate({"name": "s", "recipe": base, "grid": {"objective.graph": graphs}})
    laid = layout(sweep, Store(folder / "home"))
    graphs = {cell.graph for cell in laid.cells if cell.method == "xclr"}
    assert graphs == {"captions", "matrix classes.npy", "edges pairs.parquet", "python mine:similar"}


def test_a_finished_run_learned_from_the_users_graphs(folder):
    """Pairs with a similarity of 0.8, of emoji by their captions, and the same as a function."""
    home, small = folder / "home", {"data": {"limit": 160}, "train": TINY["train"] | {"epochs": 1}}
    begin(home, recipe(folder, {"k": 4}, **small), "captions")
    (table,) = home.glob("artifacts/captions/*/captions.parquet")
    texts = list(dict.fromkeys(pq.read_table(table)["caption"].to_pylist()))
    pq.write_table(
        pa.table({"src": texts[:-1], "dst": texts[1:], "sim": [0.8] * (len(texts) - 1)}), folder / "pairs.parquet"
    )
    (folder / "mine.py").write_text(
        "import numpy as np\nfrom scipy.sparse import csr_array\n"
        "def similar(rows, captions):\n"
        "    _, first, place = np.unique(captions, return_index=True, return_inverse=True)\n"
        "    order = np.argsort(np.argsort(first))[place]\n"
        "    far = np.abs(order[:, None] - order)\n"
        "    return csr_array((far == 0) + 0.8 * (far == 1))\n"
    )
    chosen = recipe(folder, EDGES | {"by": "caption", "k": 4}, PYTHON, **small)
    record = finish(home, chosen)
    run = Opened(home, record)
    scores = run.scores()
    assert set(scores["graph"].to_pylist()) == {"none", "edges pairs.parquet", "python mine:similar"}
    by_graph = {each.graph: each.manifest for each in run.networks()}
    tensors = {name: run.backbone("xclr", graph=name).state_dict() for name in list(by_graph)[1:]}
    first, second = tensors.values()
    assert all((first[key] == second[key]).all() for key in first)  # two ways to say one graph train one network
    assert [each.method[1] for each in trainings_of([chosen], Store(home))] == ["none", *list(by_graph)[1:]]
    made = [artifact for artifact in run.made if artifact.kind == "own_graph"]
    edges = [schema.read(each.path / "edges.parquet", schema.GRAPH_EDGES).num_rows for each in made]
    assert min(edges) == len(texts) - 1 and len(made) == 2
    manifest = next(run.made[each] for each in made if run.made[each].config["function"])
    assert manifest.config["function"] == "mine:similar" and [len(each) for each in manifest.config["sha256"]] == [64]
    assert SUITE.name in {each.kind for each in run.made}
