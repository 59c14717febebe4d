"""Sweeps as job arrays of a real cluster."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import yaml

from infra.cancel import cancel_run, find_run
from infra.cluster import Cluster
from infra.home.sweeps import cell_lines, find_sweep
from infra.ledger import Book, JobState
from infra.slurm import private
from tests.kit.command import call_xclr, run_xclr, succeeds
from tests.kit.databases import give_databases
from tests.kit.holds import hold, release
from tests.kit.orchestrator import orchestrate
from tests.kit.polling import until
from tests.kit.recipes import NO_MODELS
from tests.kit.runs import begin_with_graph
from tests.kit.slurm import JOB, lose, node_of, on_slurm, restarts, sbatch, slurm
from tests.kit.sweeps import TAU, make_levels, open_sweep, small
from xclr.recipe import RetriesConfig
from xclr.store import Store
from xclr.sweep.cells import counts
from xclr.sweep.layout import layout
from xclr.sweep.spec import Sweep
from xclr.training.spool import SPOOL

TRAININGS = JOB | {"gpus": 1}


def elements(home: Path, kind: str = "pretrain") -> dict[str, str]:
    """Slurm's word for every element of our arrays of that kind, by its id."""
    lines = slurm("squeue", "--states=all", "--array", "--noheader", "--format=%i|%T|%k").splitlines()
    runs = {json.loads(path.read_text())["run"] for path in (home / "runs").glob("*.json")}
    found = (line.split("|", 2) for line in lines)
    return {
        job: state for job, state, said in found if f"stage={kind}" in said and any(f"run={r} " in said for r in runs)
    }


def standing(home: Path) -> str:
    """The queue, the nodes, and what the orchestrator said."""
    return "\n".join([slurm("squeue", "--states=all"), slurm("sinfo", "--long"), home.with_suffix(".log").read_text()])


def arrays(home: Path, kind: str = "pretrain") -> set[str]:
    return {job.partition("_")[0] for job in elements(home, kind)}


def test_cells_are_elements_of_one_array_within_its_cap(cluster, home):
    sweep = small({"epochs": 1}, grid={TAU: [0.05, 0.1, 0.2, 0.3]}, parallel=2)
    run, swept = open_sweep(begin_with_graph(home), sweep, on_slurm(ranks=1, gpus=1, nice=7))
    assert make_levels(run, swept) == {}
    entries = [run.book.latest(cell.training.digest) for cell in swept.cells]
    assert {(each.state, each.attempt) for each in entries} == {(JobState.COMPLETED, 1)}
    (array,) = arrays(home)
    assert [each.job for each in entries] == [f"slurm/{array}_{element}" for element in range(4)]
    assert all(run.store.manifest(run.store.reference(c.training.output)).jobs for c in swept.cells)
    assert all(Path(each.log).is_file() and Path(each.log).parent.parent == home / "arrays" for each in entries)
    shown = slurm("scontrol", "show", "job", array)
    assert "ArrayTaskThrottle=2" in shown and f"Comment=xclr run={run.id} sweep=s stage=pretrain" in shown
    assert "Nice=7" in shown
    starts = sorted(re.findall(r"StartTime=(\S+) EndTime=(\S+)", shown))
    assert all(sum(start < other[1] and other[0] <= start for other in starts) <= 2 for start, _ in starts)


def test_cancelling_a_sweep_cancels_its_array(cluster, home):
    sweep = small(grid={TAU: [0.05, 0.1, 0.2, 0.3]}, parallel=2)
    begin_with_graph(home)
    for each in layout(sweep, Store(home)).cells:
        hold(Store(home).begin(each.training.output), 1)
    process = orchestrate(home, sweep, on_slurm(ranks=1, gpus=1))
    try:
        until(lambda: list(elements(home).values()).count("RUNNING") == 2, tell=lambda: standing(home))
        done = cancel_run(home, find_run(home, "s"))
        assert len(done.ended) == 4
        assert process.wait() == 1
        until(lambda: set(elements(home).values()) == {"CANCELLED"})
    finally:
        process.kill()
    assert find_sweep(home, "s").state == "cancelled"
    assert counts(cell_lines(home, find_sweep(home, "s"))) == {"failed": 4}


def six() -> Sweep:
    """Two temperatures with three seeds each."""
    sweep = small({"checkpoint_every": 4}, name="many", parallel=3)
    patient = {"seeds": (0, 1, 2), "retries": RetriesConfig()}  # a job that Slurm is about to requeue is not lost
    return sweep.model_copy(update={"recipe": sweep.recipe.model_copy(update=patient)})


def test_cells_outlive_their_node_a_preemption_and_the_orchestrator(cluster, home):
    """Held at a step until it has happened to them; the orchestrator's last start is the command line's."""
    suites = {"pretrain": TRAININGS | {"partition": "low"}, "suite": JOB}
    where = Cluster.model_validate({"name": "place", "tracking": NO_MODELS, "stages": suites})
    work = six()
    files = written(home.parent, work, where)
    sweep = ("sweep", str(files[0]), "--cluster", str(files[1]), "--home", str(give_databases(begin_with_graph(home))))
    done = succeeds(run_xclr(*sweep, "--plan", "--json", cwd=home.parent))
    planned = {each["level"]: each for each in json.loads(done.stdout)}
    assert (planned["pretrain"]["stages"], planned["pretrain"]["arrays"], planned["pretrain"]["at_once"]) == (6, 1, 3)
    outs = [Store(home).begin(cell.training.output) for cell in layout(work, Store(home)).cells]
    for out in outs:
        hold(out, 2)

    process = orchestrate(home, work, where)
    try:
        until(lambda: "RUNNING" in elements(home).values())
        kill(process)  # while the first trainings run
        process = orchestrate(home, work, where)
        lost, node = lose_the_node_of_a_cell(cluster, home)
        preempted = preempt_a_cell(home)
        for out in outs[:-1]:
            release(out)
        until(lambda: len(elements(home, "suite linear")) > 0)  # none waits for the last training
        kill(process)
        release(outs[-1])
    finally:
        process.kill()
    succeeds(run_xclr(*sweep, cwd=home.parent, timeout=2000))
    private.start_node(cluster, node)  # earlier, it would end what it lost where that runs anew
    check(home, planned, lost, preempted)


def check(home: Path, planned: dict[str, dict[str, int]], lost: str, preempted: str) -> None:
    """Every cell is done, in as few submissions as planned, and none was done twice."""
    record = find_sweep(home, "many")
    assert counts(cell_lines(home, record)) == {"done": 6} and record.state == "completed"
    entries = [Book(home).latest(cell.training.digest) for cell in record.cells]
    assert {(each.state, each.attempt, each.before) for each in entries} == {(JobState.COMPLETED, 1, ())}
    assert restarts(lost) >= 1 and restarts(preempted) >= 1
    assert (planned["pretrain"]["arrays"], planned["suite linear"]["arrays"]) == (1, 2)
    for kind in ("pretrain", "suite linear"):  # submissions as planned, and every cell once
        assert len(arrays(home, kind)) <= planned[kind]["arrays"]
        assert len(elements(home, kind)) == 6
    shown = json.loads(said(home, "compare", "--sweep", "many", "--json"))
    assert len(shown) == 6 and all(each["state"] == "done" and each["scores"] for each in shown)
    assert "6 of 6 cells done" in said(home, "status")


def said(home: Path, *arguments: str) -> str:
    """What the command line prints."""
    return succeeds(call_xclr(*arguments, "--home", str(home), cwd=home.parent)).stdout


def kill(process: subprocess.Popen[bytes]) -> None:
    """With SIGKILL, and wait until it is gone."""
    process.kill()
    process.wait()


def running(home: Path) -> list[str]:
    """Elements that train: those whose first steps were logged."""
    entries = [Book(home).latest(cell.training.digest) for cell in find_sweep(home, "many").cells]
    jobs = {str(each.job).removeprefix("slurm/"): each for each in entries if each is not None and each.state is None}
    states = elements(home)
    return [job for job, each in jobs.items() if states.get(job) == "RUNNING" and trains(home, each.digest)]


def trains(home: Path, digest: str) -> bool:
    path = home / "artifacts" / "pretrain" / digest / SPOOL
    return path.exists() and path.stat().st_size > 0


def lose_the_node_of_a_cell(cluster: private.Private, home: Path) -> tuple[str, str]:
    """A power cut at the node of a running cell; its id, once Slurm has queued it again, and the node."""
    (job, *_) = until(lambda: running(home))
    node = node_of(job)
    lose(cluster, node)
    until(lambda: restarts(job) == 1)
    return job, node


def preempt_a_cell(home: Path) -> str:
    """A job that stands higher takes the node of a running cell for a moment; the cell's id, once it starts again."""
    (job, *_) = until(lambda: running(home))
    before = restarts(job)
    sbatch("--partition=high", f"--nodelist={node_of(job)}", "--exclusive", wrap="sleep 2")
    until(lambda: restarts(job) > before)
    return job


def written(folder: Path, sweep: Sweep, place: Cluster) -> tuple[Path, Path]:
    """Files of a sweep, with its recipe beside it, and of a cluster."""
    about = {
        "small.yaml": sweep.recipe.model_dump(mode="json"),
        "many.yaml": sweep.model_dump(mode="json", include={"name", "grid", "parallel"}) | {"recipe": "small.yaml"},
        "place.yaml": place.model_dump(mode="json", exclude={"name"}, exclude_unset=True),
    }
    for name, content in about.items():
        (folder / name).write_text(yaml.safe_dump(content))
    return folder / "many.yaml", folder / "place.yaml"
