"""Sweeps as job arrays of a real cluster."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import psutil
import pytest
import yaml

from infra.cancel import cancel_run, find_run
from infra.home.sweeps import cell_lines, find_sweep
from infra.ledger import Book, JobState
from infra.slurm import private
from tests.conftest import command
from tests.infra.swept import TAU, make_levels, open_sweep, small
from tests.infra.test_stage import until
from tests.slurm.conftest import on_slurm, restarts, slurm
from xclr.sweep.cells import counts
from xclr.training.spool import SPOOL

JOB = {"executor": "slurm", "threads": 1, "gpus": 1, "timeout_min": 60}


def elements(home: Path, kind: str = "pretrain") -> dict[str, str]:
    """Slurm's word for every element of our arrays of that kind, by its id."""
    lines = slurm("squeue", "--states=all", "--array", "--noheader", "--format=%i|%T|%k").splitlines()
    runs = {json.loads(path.read_text())["run"] for path in (home / "runs").glob("*.json")}
    found = (line.split("|", 2) for line in lines)
    return {
        job: state for job, state, said in found if f"stage={kind}" in said and any(f"run={r} " in said for r in runs)
    }


def arrays(home: Path, kind: str = "pretrain") -> set[str]:
    return {job.partition("_")[0] for job in elements(home, kind)}


def test_cells_are_elements_of_one_array_within_its_cap(cluster, home):
    sweep = small({"epochs": 8}, grid={TAU: [0.05, 0.1, 0.2, 0.3]}, parallel=2)
    run, swept = open_sweep(home, sweep, on_slurm(ranks=1, gpus=1, nice=7))
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
    sweep = small({"epochs": 400}, grid={TAU: [0.05, 0.1, 0.2, 0.3]}, parallel=2)
    files = written(home.parent, sweep_file(sweep), {"pretrain": JOB})
    process = started(home, files)
    try:
        until(lambda: list(elements(home).values()).count("RUNNING") == 2, 180)
        done = cancel_run(home, find_run(home, "many"))
        assert len(done.ended) == 4
        assert process.wait(timeout=60) == 1
        assert set(elements(home).values()) == {"CANCELLED"}
    finally:
        process.kill()
    assert find_sweep(home, "many").state == "cancelled"
    assert counts(cell_lines(home, find_sweep(home, "many"))) == {"failed": 4}


TWELVE = {TAU: [0.05, 0.1, 0.2, 0.3]}  # with three seeds each


@pytest.mark.timeout(900)
def test_twelve_cells_outlive_their_node_a_preemption_and_the_orchestrator(cluster, home):
    sweep = small({"epochs": 40}, grid=TWELVE, parallel=3)
    jobs = {"pretrain": JOB | {"partition": "low"}, "suite": {"executor": "slurm", "threads": 1, "timeout_min": 60}}
    files = written(home.parent, sweep_file(sweep) | {"seeds": [0, 1, 2]}, jobs)
    done = subprocess.run(
        command(home, "sweep", str(files[0]), "--cluster", str(files[1]), "--plan", "--json"),
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    planned = {each["level"]: each for each in json.loads(done.stdout)}
    assert (planned["pretrain"]["stages"], planned["pretrain"]["arrays"], planned["pretrain"]["at_once"]) == (12, 1, 3)

    process = started(home, files)
    until(lambda: "RUNNING" in elements(home).values(), 180)
    kill(process)  # while the first trainings run
    process = started(home, files)
    try:
        lost = lose_the_node_of_a_cell(cluster, home)
        preempted = preempt_a_cell(home)
        until(lambda: len(elements(home, "suite linear")) > 0, 400)
        kill(process)  # while suites run
        process = started(home, files)
        assert process.wait(timeout=400) == 0, home.with_suffix(".log").read_text()
    finally:
        process.kill()
    record = find_sweep(home, "many")
    assert counts(cell_lines(home, record)) == {"done": 12} and record.state == "completed"
    entries = [Book(home).latest(cell.training.digest) for cell in record.cells]
    assert {(each.state, each.attempt) for each in entries} == {(JobState.COMPLETED, 1)}
    assert restarts(lost) >= 1 and restarts(preempted) >= 1
    assert (planned["pretrain"]["arrays"], planned["suite linear"]["arrays"]) == (1, 4)
    for kind in ("pretrain", "suite linear"):  # submissions as planned, and every cell once
        assert len(arrays(home, kind)) <= planned[kind]["arrays"]
        assert list(elements(home, kind).values()) == ["COMPLETED"] * 12
    judged = [Book(home).latest(cell.suites[0].digest) for cell in record.cells]
    assert min(each.claimed for each in judged) < max(
        each.ended for each in entries
    )  # none waits for the last training
    shown = json.loads(xclr(home, "compare", "--sweep", "many", "--json"))
    assert len(shown) == 12 and all(each["state"] == "done" and each["scores"] for each in shown)
    assert "12 of 12 cells done" in xclr(home, "status")


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


def lose_the_node_of_a_cell(cluster: private.Private, home: Path) -> str:
    """A power cut at the node of a running cell; its id, once Slurm has started it again elsewhere."""
    (job, *_) = until(lambda: running(home), 180)
    node = slurm("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    private.stop_daemon(cluster, f"slurmd.{node}", kill=True)
    here = slurm("squeue", "--noheader", "--array", f"--nodelist={node}", "--states=running", "--format=%A").split()
    for process in processes_of_jobs(here):
        process.kill()
    until(lambda: restarts(job) == 1, 120)
    private.start_node(cluster, node)
    return job


def processes_of_jobs(numbers: list[str]) -> list[psutil.Process]:
    """The step daemons and processes of jobs by Slurm's own numbers."""
    found = []
    for process in psutil.process_iter():
        try:
            step = process.name() == "slurmstepd" and any(f"[{each}." in "".join(process.cmdline()) for each in numbers)
            if step or process.environ().get("SLURM_JOB_ID") in numbers:
                found.append(process)
        except psutil.Error:
            continue
    return found


def preempt_a_cell(home: Path) -> str:
    """A job that stands higher takes the node of a running cell for a moment; the cell's id, once it starts again."""
    (job, *_) = until(lambda: running(home), 180)
    node = slurm("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
    before = restarts(job)
    rival = ["--output=/dev/null", "--partition=high", f"--nodelist={node}", "--exclusive", "--wrap=sleep 2"]
    slurm("sbatch", "--parsable", *rival)
    until(lambda: restarts(job) > before, 120)
    return job


def xclr(home: Path, *arguments: str) -> str:
    done = subprocess.run(command(home, *arguments), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sweep_file(sweep) -> dict[str, object]:
    """The file of a sweep of the small recipe."""
    return {
        "name": "many",
        "grid": {field: list(values) for field, values in sweep.grid.items()},
        "recipe": "small.yaml",
    } | {
        "parallel": sweep.parallel,
        "own": sweep.recipe.model_dump(mode="json"),
    }


def written(folder: Path, sweep: dict[str, object], place: dict[str, object]) -> tuple[Path, Path]:
    """Files of a sweep, with its recipe beside it, and of a cluster."""
    (folder / "small.yaml").write_text(yaml.safe_dump(sweep.pop("own")))
    (folder / "many.yaml").write_text(yaml.safe_dump(sweep))
    (folder / "place.yaml").write_text(yaml.safe_dump({"default": {"executor": "inline"}, "stages": place}))
    return folder / "many.yaml", folder / "place.yaml"


def started(home: Path, files: tuple[Path, Path], *flags: str) -> subprocess.Popen[bytes]:
    """`xclr sweep`, as a process of its own."""
    log = home.with_suffix(".log").open("ab")
    arguments = command(home, "sweep", str(files[0]), "--cluster", str(files[1]), *flags)
    return subprocess.Popen(arguments, stdout=log, stderr=log, start_new_session=True)
