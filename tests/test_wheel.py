"""The wheel, away from the checkout: by itself with the library's own packages alone, and whole with all of them."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

from tests.kit.pictures import encode

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "tasks", "infra", "xclr")
BELOW = "xclr/_pipeline/"
LIBRARY = """
import builtins, json, sys
home, picture, refused = sys.argv[1], sys.argv[2], set(sys.argv[3:])
ask = builtins.__import__
def refuse(name, *rest, **more):
    if name.partition(".")[0] in refused:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return ask(name, *rest, **more)
builtins.__import__ = refuse

import torch, xclr
from xclr.objective import xclr_loss
from xclr.recipe import load_recipe, recipe_names
from xclr.study.spec import STUDIES
from xclr.sweep.load import load_sweep, sweep_names

run = xclr.open(home)
vector = run.backbone("xclr")(run.preprocess("xclr")(picture)[None])
assert vector.shape == (1, run.features("xclr")["vector"].type.list_size)
assert run.scores().num_rows and run.graph().num_rows and run.captions().num_rows
view = torch.nn.functional.normalize(torch.randn(4, 8, requires_grad=True), dim=1)
xclr_loss(view, view @ view.detach().T).backward()
recipes, sweeps = map(load_recipe, recipe_names()), [load_sweep(name, {}) for name in sweep_names()]
studies = [each.stem for each in STUDIES.glob("*.yaml")]
print(json.dumps([xclr.__file__, sorted(each.name for each in recipes), sorted(each.name for each in sweeps), studies]))
"""
FREEZE = """
import sys
from pathlib import Path
from xclr.__main__ import find_pipeline
find_pipeline()
from infra.executors.snapshot import freeze
print(freeze(Path(sys.argv[1])))
"""
JOB = "import infra.slurm, infra.cluster, xclr.job; print(infra.__file__, xclr.__file__)"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout, because setuptools leaves its build where it works."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, folder / "source")
    build = f"import setuptools.build_meta as backend; backend.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=folder / "source", check=True, capture_output=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """Runs a program of a fresh environment with the wheel, which sees all other packages; returns what it printed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], cwd=folder, env=environment, check=True, capture_output=True)
    own = sysconfig.get_path("purelib", vars={"base": str(folder)})
    (Path(own) / "others.pth").write_text(sysconfig.get_path("purelib"))

    def run(program, *arguments, **more):
        command = [folder / "bin" / program, *map(str, arguments)]
        done = subprocess.run(command, cwd=folder, env=environment | more, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def beyond_the_library():
    """The top-level names of what is not asked for without an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    own, extras = project["dependencies"], project["optional-dependencies"]
    asked = {Requirement(each).name.lower() for each in own}
    others = {Requirement(each).name.lower() for extra in extras.values() for each in extra} - asked - {"xclr"}
    of_names = metadata.packages_distributions()
    return {name for name, packages in of_names.items() if {each.lower() for each in packages} & others}


def test_the_wheel_holds_every_file_of_the_packages_and_no_name_that_is_not_ours(wheel):
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    names = [name for name in listed.stdout.splitlines() if (ROOT / name).exists()]
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert set(names) <= {name.removeprefix(BELOW) for name in inside}
    assert {name.partition("/")[0] for name in inside} == {"xclr"}


def test_the_library_needs_neither_prefect_nor_mlflow_nor_slurm(run, own_home, tmp_path):
    refused = beyond_the_library()
    assert {"prefect", "mlflow", "submitit", "timm", "sentence_transformers", "rich"} <= refused
    (tmp_path / "one.png").write_bytes(encode(Image.new("RGB", (30, 40), "teal")))
    file, recipes, sweeps, studies = json.loads(run("python", "-c", LIBRARY, own_home, tmp_path / "one.png", *refused))
    assert not file.startswith(str(ROOT))
    assert recipes == sorted(path.stem for path in (ROOT / "xclr/recipes").glob("*.yaml"))
    assert sweeps == sorted(path.stem for path in (ROOT / "xclr/sweeps").glob("*.yaml"))
    assert studies == [path.stem for path in (ROOT / "xclr/studies").glob("*.yaml")]


def test_the_command_finds_the_pipeline_and_its_jobs_find_theirs(run, tmp_path):
    assert "pretrain xclr" in run("xclr", "plan", "smoke", "--home", tmp_path)
    assert "cells" in run("xclr", "sweep", "graph", "--plan", "--home", tmp_path)
    code = run("python", "-c", FREEZE, tmp_path).strip()
    assert sorted(path.name for path in Path(code).iterdir()) == ["infra", "xclr"]
    said = run("python", "-c", JOB, PYTHONPATH=code)
    assert all(file.startswith(code) for file in said.split())
