"""Judging: a suite that fails hides no other, and suites that are added later train nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from infra.home.runs import new_record, write_record
from tests.kit import trees
from tests.kit.command import Said, call_xclr, fails, run_xclr
from tests.kit.databases import give_databases
from tests.kit.finished import begin, own_recipe
from tests.kit.jobs import attempts, few_jobs
from xclr.evaluation.datasets import READERS, Tree
from xclr.recipe import Recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def data(tmp_path: Path) -> dict[str, str]:
    """Roots of small data sets, of which one picture of ObjectNet is damaged."""
    roots = trees.every(tmp_path / "data")
    damaged_picture(tmp_path).write_bytes(b"no picture")
    return roots


def damaged_picture(folder: Path) -> Path:
    root = folder / "data" / "objectnet"
    return root / READERS["objectnet"].pictures(Tree.open(root))[0]


def written(recipe: Recipe, folder: Path) -> str:
    path = folder / "own.json"  # which is YAML too
    path.write_text(recipe.model_dump_json())
    return str(path.rename(path.with_suffix(".yaml")))


@pytest.fixture
def xclr(tmp_path, served):
    """The command line over a HOME of which only trainings are jobs, with the servers that are up."""
    home = give_databases(tmp_path / "home")
    there = {"XCLR_CLUSTER": few_jobs(tmp_path), **served.environment}

    def run(*arguments: str) -> Said:
        return run_xclr(*arguments, "--home", str(home), cwd=tmp_path, **there)

    return run


def scores(home: Path) -> dict[str, set[str]]:
    """Methods by the suites that judged them."""
    found: dict[str, set[str]] = {}
    for row in json.loads(call_xclr("compare", "--json", "--home", str(home), cwd=home).stdout):
        found.setdefault(row["suite"], set()).add(row["method"])
    return found


def test_a_failing_suite_hides_no_other_and_a_later_one_runs_alone(data, tmp_path, xclr):
    home = tmp_path / "home"
    evaluate = {"suites": ["imagenet", "objectnet", "mit-states"], "roots": data, "bootstrap": 100}
    recipe = own_recipe(tmp_path, "a drawing of", objectives=["simclr"], evaluate=evaluate)
    begin(home, recipe)
    done = xclr("run", written(recipe, tmp_path))
    assert done.returncode == 1
    assert damaged_picture(tmp_path).name in done.stderr and "cannot be read" in done.stderr
    assert "ImageNet" in done.stdout and "MIT objects" in done.stdout and "ObjectNet" not in done.stdout
    assert scores(home) == {"imagenet": {"random", "simclr"}, "mit-states": {"random", "simclr"}}

    trees.save(trees.picture(0, 1, 7, border=2), damaged_picture(tmp_path))
    torch.manual_seed(0)
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "weights.pt")
    outside = json.dumps([{"library": "torchvision", "model": "resnet18", "weights": str(tmp_path / "weights.pt")}])
    before = attempts(home)
    done = xclr("evaluate", "own", "--suite", "knn", "--set", f"evaluate.references={outside}")
    assert done.returncode == 0, done.stderr
    all_three = {"random", "simclr", "torchvision resnet18"}
    assert scores(home) == dict.fromkeys(("imagenet", "objectnet", "mit-states", "knn"), all_three)
    kinds = {json.loads((home / "ledger" / f"{each}").read_text())["kind"] for each in attempts(home) - before}
    assert "pretrain" not in kinds and "features" not in kinds
    assert {"reference", "benchmark_features", "suite"} <= kinds

    other = own_recipe(tmp_path / "other", "a sketch of").model_copy(update={"name": "other"})
    before = attempts(home)
    done = xclr("evaluate", "own", "--on", written(other, tmp_path / "other"))
    assert done.returncode == 0, done.stderr
    assert "pictures k-NN" in done.stdout and "retrieval is left out" in done.stderr
    assert scores(home) == dict.fromkeys(("linear", "own-knn"), all_three)
    made = [json.loads((home / "ledger" / f"{each}").read_text())["kind"] for each in attempts(home) - before]
    assert set(made) == {"captions", "images", "features", "suite", "comparison"} and made.count("suite") == 6


def test_suites_are_refused_that_there_are_not(tmp_path, xclr):
    recipe = own_recipe(tmp_path, "a drawing of", objectives=["simclr"], evaluate={"suites": ["linear"]})
    write_record(tmp_path / "home", new_record(recipe, []))
    arguments = ("evaluate", "own", "--suite", "knn", "--home", str(tmp_path / "home"))
    done = call_xclr(*arguments, "--suite", "objecnet", cwd=tmp_path)
    fails(done, "'objecnet' is not one of", "'objectnet'")
    done = call_xclr(*arguments, "--set", "evaluate.roots.imagenet=/nowhere", cwd=tmp_path)
    fails(done, "/nowhere", "image-net.org")
    fails(xclr("evaluate", "own"), "xclr run with its recipe", "xclr retry own")
