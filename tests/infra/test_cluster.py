"""Cluster files: defaults, what each stage kind gets, and every fault said with its file."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version
from pydantic import ValidationError

from flows.context import home_folder
from infra.cluster import CLUSTERS, Cluster, load_cluster
from infra.executors.executor import executor_named
from infra.resources import Resources, cores
from infra.slurm.submit import Order, _parameters, executor_for
from infra.stagejob import StageJob
from tests.kit.command import ROOT
from xclr.errors import RecipeError, StoreError
from xclr.pipeline import KINDS
from xclr.printable import acts
from xclr.recipe import RandomConfig, SimCLRConfig, TrainConfig, load_recipe
from xclr.stage import Stage
from xclr.training.stages import PRETRAIN, PretrainConfig


def written(folder, text):
    path = folder / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def fault(source):
    with pytest.raises(RecipeError) as caught:
        load_cluster(source)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize("text", ["", "# only a remark", "{}"])
def test_an_empty_file_has_every_default(text, tmp_path):
    cluster = load_cluster(written(tmp_path, text))
    assert cluster == Cluster(name="mine")
    assert cluster.default == Resources(executor="inline", ranks=1, threads=None, gpus=0, timeout_min=7 * 24 * 60)
    assert cluster.stages == {}


@pytest.mark.parametrize("path", sorted(CLUSTERS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_clusters_load_by_name_and_name_known_stages(path):
    cluster = load_cluster(path.stem)
    assert cluster.name == path.stem
    assert set(cluster.stages) <= set(KINDS)
    assert load_cluster(str(path)) == cluster


def test_long_stages_on_this_machine_survive_the_orchestrator():
    local = load_cluster("local")
    assert local.resources("pretrain").executor == "local"
    assert local.resources("embeddings").executor == "local"
    assert local.resources("captions").executor == "inline"


def test_a_stage_kind_gets_its_own_resources_or_the_default(tmp_path):
    text = "{default: {threads: 2}, stages: {pretrain: {executor: local, ranks: 8, gpus: 8, timeout_min: 90}}}"
    cluster = load_cluster(written(tmp_path, text))
    assert cluster.resources("pretrain") == Resources(executor="local", ranks=8, gpus=8, timeout_min=90)
    assert cluster.resources("graph") == cluster.resources("suite") == Resources(threads=2)


def test_ranks_share_the_machines_cores_unless_told_otherwise():
    for name in ("inline", "local"):
        executor = executor_named(name)
        assert executor.threads(Resources()) == executor.cores(Resources()) == cores()
        assert executor.threads(Resources(ranks=cores() * 2)) == 1
        assert (
            executor.threads(Resources(ranks=4, threads=3)) == 3 and executor.cores(Resources(ranks=4, threads=3)) == 12
        )


def test_a_cluster_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Resources().ranks = 2
    with pytest.raises(ValidationError, match="frozen"):
        Cluster(name="mine").name = "other"


@pytest.mark.parametrize("source", ["lcoal", "nowhere/big.yaml"])
def test_an_unknown_cluster_is_told_the_names_there_are(source):
    error = fault(source)
    assert source in error.message
    assert "local" in error.remedy


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("defualt: {}", "defualt"),
        ("default: {rank: 2}", "default.rank"),
        ("default: {ranks: 0}", "default.ranks"),
        ("default: {ranks: many}", "default.ranks"),
        ("default: {executor: cloud}", "default.executor"),
        ("default: {threads: 0}", "default.threads"),
        ("default: {gpus: -1}", "default.gpus"),
        ("default: {timeout_min: 0}", "default.timeout_min"),
        ("stages: {pretrain: {rank: 2}}", "stages.pretrain.rank"),
        ("stages: 3", "stages"),
        ("stages: {pretrain: 8}", "stages.pretrain"),
        ("name: 3", "name"),
        ("1: 2", "1"),
    ],
)
def test_a_faulty_key_is_named_with_its_file(text, said, tmp_path):
    message = fault(written(tmp_path, text)).message
    assert "mine.yaml" in message
    assert said in message


@pytest.mark.parametrize("text", ["stages: [", "- local", "5", "words", b"name: caf\xe9", "name: &"])
def test_a_file_that_holds_no_keys_is_named(text, tmp_path):
    assert "mine.yaml" in fault(written(tmp_path, text)).message


def test_the_papers_batches_are_shared_by_eight_gpus():
    assert load_cluster("node8").resources("pretrain").ranks == 8
    assert all(load_recipe(name).train.batch_size % 8 == 0 for name in ("imagenet", "cc3m", "cc12m"))


@pytest.mark.parametrize(
    ("job", "part"),
    [
        ("{ranks: 8, gpus: 4}", "ranks = gpus"),
        ("{executor: slurm, ranks: 6, nodes: 4}", "cannot be shared evenly by 4 nodes"),
        ("{executor: local, ranks: 8, nodes: 2}", "more than one node needs executor: slurm"),
        ("{executor: slurm, memory_gb: 0}", "greater than 0"),
        ("{executor: slrum}", "executor: no executor 'slrum': did you mean slurm?"),
        ("{partitoin: gpu}", "Extra inputs"),
    ],
)
def test_jobs_that_no_cluster_could_run_are_refused_with_the_key(job, part, tmp_path):
    error = fault(written(tmp_path, f"stages: {{pretrain: {job}}}"))
    assert part in error.message and "pretrain" in error.message


def test_threads_of_a_rank_follow_its_cores_and_on_slurm_it_has_one():
    slurm = executor_named("slurm")
    assert slurm.threads(Resources(ranks=8)) == 1 and slurm.cores(Resources(ranks=8)) == 0
    assert slurm.threads(Resources(ranks=8, cpus=10)) == 10
    assert slurm.threads(Resources(cpus=10, threads=4)) == 4


def test_weights_without_a_training_need_no_gpus():
    cluster = Cluster(name="x", stages={"pretrain": Resources(executor="slurm", ranks=8, gpus=8)})
    train = TrainConfig()
    for objective, ranks in ((RandomConfig(), 1), (SimCLRConfig(), 8)):
        config = PretrainConfig(objective=objective, train=train, seed=0, dataset="emoji")
        assert cluster.resources_of(Stage(PRETRAIN, "pretrain", config)).ranks == ranks


def additional(resources, folder):
    order = Order(
        (StageJob(folder / "stage.json", folder, 1),), folder, "xclr-pretrain-1a2b", "xclr", folder, 3, folder
    )
    return _parameters(order, resources, folder / "job.pkl")["additional_parameters"]


def test_how_far_jobs_stand_back_reaches_sbatch_where_it_is_said(tmp_path):
    cluster = load_cluster(written(tmp_path, "stages: {pretrain: {executor: slurm, nice: 100}}"))
    assert additional(cluster.resources("pretrain"), tmp_path)["nice"] == 100
    assert additional(Resources(executor="slurm", nice=0), tmp_path)["nice"] == 0
    assert "nice" not in additional(cluster.default, tmp_path)


def script(folder, comment="xclr", **changes):
    """The batch script of a job on two GPUs."""
    resources = Resources.model_validate({"executor": "slurm", "ranks": 2, "gpus": 2} | changes)
    job = StageJob(folder / "stage.json", folder, 1)
    order = Order((job,), folder, "xclr-pretrain-1a2b", comment, folder, 3, folder / "my home")
    executor = executor_for(order, resources)
    return executor._make_submission_file_text(executor._submitit_command_str, order.name)


@pytest.mark.parametrize(
    ("runtime", "gpus", "parts"),
    [
        (
            "apptainer",
            2,
            ["--kill-on-bad-exit=1 apptainer exec --nv --bind '{0}/my home,/data' x.sif python3 -u -m sub"],
        ),
        ("apptainer", 0, ["apptainer exec --bind "]),
        (
            "pyxis",
            2,
            ["--container-image=x.sif '--container-mounts={0}/my home:{0}/my home,/data:/data' python3 -u -m"],
        ),
    ],
)
def test_jobs_of_a_stage_kind_run_in_its_container(runtime, gpus, parts, tmp_path):
    container = {"image": "x.sif", "runtime": runtime, "mounts": ["/data"]}
    text = script(tmp_path, container=container, gpus=gpus)
    for part in parts:
        assert part.format(tmp_path) in text
    assert "container" not in script(tmp_path) and f"{sys.executable} -u -m submitit" in script(tmp_path)


SHELL = [
    "a b",
    "$(touch ran)",
    "`touch ran`",
    "'; touch ran; '\"",
    "a\\b",
    "$HOME",
    "%j%t",
    "#",
    "-x",
    "*",
    "&touch ran",
]
LINES = [
    "x\ntouch ran #",
    "x'\ntouch ran\n: '",
    "x\n#SBATCH --output=ran",
    "x\r\ntouch ran",
    "\N{RIGHT-TO-LEFT OVERRIDE}x",
]


@pytest.mark.parametrize(
    ("home", "comment"), [*((text, "xclr") for text in SHELL), *(("plain", text) for text in SHELL + LINES)]
)
def test_nothing_that_a_batch_script_names_is_run(home, comment, tmp_path):
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "srun").chmod(0o755)
    (tmp_path / "job.sh").write_text(script(tmp_path / "home" / home, comment))
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "1"}
    subprocess.run(["bash", "job.sh"], cwd=tmp_path, env=environment, check=False, capture_output=True)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["home", "job.sh", "srun"]
    plain, found = script(tmp_path / "home"), (tmp_path / "job.sh").read_text()
    assert found.count("\n#SBATCH") == plain.count("\n#SBATCH")


@pytest.mark.parametrize("text", LINES)
def test_a_home_whose_name_ends_a_line_is_refused(text, tmp_path):
    with pytest.raises(StoreError, match="holds a line end") as caught:
        home_folder(str(tmp_path / text))
    assert not acts(caught.value.message) and "XCLR_HOME" in caught.value.remedy


def test_a_container_that_cannot_be_is_refused(tmp_path):
    found = "{image: x.sif, runtime: docker}"
    assert "'apptainer' or 'pyxis'" in str(
        fault(written(tmp_path, f"default: {{executor: slurm, container: {found}}}"))
    )
    found = "{image: x.sif, runtime: pyxis}"
    assert "needs executor: slurm" in str(fault(written(tmp_path, f"default: {{executor: local, container: {found}}}")))


def test_the_image_holds_what_jobs_import_as_the_project_pins_it():
    text = (ROOT / "infra" / "container.def").read_text()
    sections = dict(re.findall(r"^%(\w+)\n(.*?)(?=^%|\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == {"files", "post", "environment", "test"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (version,) = re.findall(r"^From: python:([0-9.]+)-slim$", text, re.MULTILINE)
    assert Version(version) in SpecifierSet(project["requires-python"])
    for line in sections["files"].strip().splitlines():
        source, target = line.split()
        assert (ROOT / source).exists() and target == f"/opt/xclr/{source}", line
    (extra,) = re.findall(r"--constraint /opt/xclr/constraints.txt \"/opt/xclr\[(\w+)\]\"", sections["post"])
    wanted = {Requirement(each).name for each in [*project["dependencies"], *project["optional-dependencies"][extra]]}
    pinned = {line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {each.lower().replace("_", "-") for each in wanted} - {"xclr"} <= {each.replace("_", "-") for each in pinned}
    for module in re.findall(r"\w+", sections["test"].partition("import ")[2]):
        assert importlib.util.find_spec(module), module
