"""The orchestrator dies, is told to end, is cancelled, is there twice: jobs go on, are found, or end, only ours."""

from __future__ import annotations

import getpass
import json
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from infra import servers
from infra.cancel import cancel_flow_run, cancel_run, find_run
from infra.cluster import load_cluster
from infra.executors.executor import Attempt, Submission, executor_named
from infra.executors.observe import observe
from infra.executors.snapshot import freeze
from infra.home.runs import read_runs, write_record
from infra.ledger import Book, Entry, JobState
from infra.processes import now, process_id
from infra.slurm import private
from infra.stage import STAGE, ensure
from tests.kit.command import command
from tests.kit.databases import give_databases
from tests.kit.finished import begin
from tests.kit.polling import until
from tests.kit.recipes import STEPS, TINY, tiny
from tests.kit.runs import open_run
from tests.kit.servers import serving
from tests.kit.slurm import HELD_AT, JOB, RECIPE, everything_taken, on_slurm, sbatch, slurm, state_of, submissions
from tests.kit.tracked import states
from tests.kit.trainings import Training
from tests.kit.worker import client_environment, deployed, end_worker, start_worker
from xclr.errors import JobError
from xclr.pipeline import pipeline
from xclr.recipe import Recipe, load_recipe
from xclr.store import MANIFEST, Store

SHORT, ALONE = tiny(epochs=1), on_slurm(ranks=1, gpus=1)


def test_the_end_of_the_orchestrator_ends_no_job_and_the_next_run_finds_it(cluster, home):
    with Training(home, SHORT, ALONE, held_at=2) as training:
        for place, number in enumerate((signal.SIGTERM, signal.SIGKILL), start=1):
            process, job = training.start(), training.job()
            until(lambda: home.with_suffix(".log").read_text().count(f"Slurm job {job}") == place)  # noqa: B023
            training.reach(2)
            process.send_signal(number)
            process.wait()
            assert state_of(job) == "RUNNING"
        last = training.follow()
        training.release()
        last.result()
        assert training.manifest().jobs == (f"slurm/{job}",)
        assert submissions(home) == 1


def test_a_job_whose_number_was_never_written_down_is_found_by_its_name(cluster, home):
    training = Training(home, SHORT, ALONE)
    stage, out, run = training.stage, training.out, open_run(home, recipe=SHORT, cluster=ALONE)
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    slurm_jobs = executor_named("slurm")
    entry = Entry(
        digest=stage.digest, kind=stage.kind.name, stage=stage.name, run=run.id, attempt=1, owner=process_id(ended.pid),
        claimed=now(), name=slurm_jobs.draw_name(stage.name),
    )  # fmt: skip
    run.book.claim(entry)
    (out / STAGE).write_text(stage.to_json())
    work, resources = (Attempt(entry, stage, out),), ALONE.resources("pretrain")
    (submitted,) = slurm_jobs.submit(Submission(work, resources, lambda: freeze(home), f"xclr run={run.id} alone", 3))
    ended.kill()
    ended.wait()
    assert run.book.latest(stage.digest).job is None
    made = ensure(run, stage)
    assert run.store.manifest(made).jobs == (submitted.job,)
    assert (submissions(home), run.book.latest(stage.digest).attempt) == (1, 1)


def test_a_number_that_slurm_gave_away_again_is_not_taken_for_ours(cluster, home):
    foreign = sbatch(wrap="sleep 600")
    training = Training(home, SHORT, ALONE)
    stage, run = training.stage, open_run(home, recipe=SHORT, cluster=ALONE)
    mine = {"digest": stage.digest, "kind": stage.kind.name, "stage": stage.name, "run": run.id, "owner": "host/1/1"}
    entry = Entry(**mine, attempt=1, claimed=now(), name="xclr-pretrain-lost", job=f"slurm/{foreign}")
    run.book.claim(entry)
    assert observe(entry, training.out) == {entry.job: JobState.UNSEEN}
    ensure(run, stage)
    assert run.book.latest(stage.digest).attempt == 2
    run.save(state="running")
    cancel_run(home, run.record)
    assert state_of(foreign) == "RUNNING"


def test_a_controller_that_is_killed_and_started_again_loses_nothing(cluster, home):
    with Training(home, RECIPE, ALONE, held_at=HELD_AT) as training:
        followed = training.follow()
        training.reach(HELD_AT)
        written_down(cluster, training.job())
        private.stop_daemon(cluster, "slurmctld", kill=True)
        training.release()
        training.reach(3 * STEPS)
        private.start_controller(cluster)
        followed.result()
        assert submissions(home) == 1


def written_down(cluster, job):
    """Wait until the controller's files hold that a job runs: it writes changes seconds later, and one that was killed
    before takes the job for a waiting one, starts it twice and drains the node (Slurm's "Duplicate jobid")."""
    changed = time.time()
    slurm("scontrol", "update", f"jobid={job}", "admincomment=runs")
    until(lambda: (cluster.root / "state" / "job_state").stat().st_mtime > changed)


def test_two_runs_share_the_job_and_a_cancelled_one_leaves_it_to_the_other(cluster, home):
    with Training(home, SHORT, ALONE, held_at=1) as training:
        followed = [training.follow() for _ in range(2)]
        job, submitter = training.job(), next(each for each in training.runs if each.id == training.entry().run)
        cancelled, other = followed if training.runs[0] is submitter else reversed(followed)
        done = cancel_run(home, submitter.record)
        assert done.ended == () and [each.job for each in done.left] == [f"slurm/{job}"]
        assert f"the run {submitter.id} was cancelled" in fault_of(cancelled)
        training.release()
        other.result()
        assert submissions(home) == 1


def fault_of(followed: Future[None]) -> str:
    """Why nothing came of it."""
    with pytest.raises(JobError) as caught:
        followed.result()
    return str(caught.value)


def test_cancelling_ends_the_runs_jobs_and_no_other(cluster, home):
    foreign = sbatch(wrap="sleep 600")
    with Training(home, SHORT, ALONE, held_at=2) as training:
        followed, job = training.follow(), training.job()
        training.reach(2)
        done = cancel_run(home, find_run(home, "tiny"))  # raises what takes longer than 30 s
        assert [each.job for each in done.ended] == [f"slurm/{job}"]
        assert "was cancelled" in fault_of(followed)
        until(lambda: state_of(job) == "CANCELLED")
        assert state_of(foreign) == "RUNNING"
        assert (training.entry().state, read_runs(home)[-1].state) == (JobState.CANCELLED, "cancelled")
        assert states(home, "tiny")[training.entry().digest] == "KILLED"


def test_a_waiting_job_of_a_dead_run_is_cancelled_by_its_prefect_id(cluster, home):
    with everything_taken(), Training(home, SHORT, ALONE) as training:
        process, job = training.start(), training.job()
        process.kill()
        process.wait()
        write_record(home, read_runs(home)[-1].model_copy(update={"flow_run": "0f2b"}))
        assert cancel_flow_run(home, "0f2b") == 1
        assert state_of(job) == "CANCELLED"


def test_a_job_that_somebody_cancels_fails_the_run_with_its_reason(cluster, home):
    with Training(home, SHORT, ALONE, held_at=2) as training:
        followed, job = training.follow(), training.job()
        training.reach(2)
        slurm("scancel", job)
        assert "its job was cancelled" in fault_of(followed)
        assert states(home, "tiny")[training.entry().digest] == "KILLED"
        assert submissions(home) == 1


# The whole pipeline by the command line, killed at a moment that a seed chooses.

WHOLE = TINY | {
    "name": "whole", "objectives": ["simclr"], "train": TINY["train"] | {"epochs": 4, "checkpoint_every": 4},
    "retries": {"lost_after_s": 20},
}  # fmt: skip
PLACE = {
    "tracking": {"models": False},
    "default": {"executor": "inline"},
    "stages": {"graph": JOB, "pretrain": JOB | {"ranks": 2, "gpus": 2}, "features": JOB, "suite": JOB},
}


@pytest.fixture
def files(tmp_path) -> tuple[Path, Path]:
    """A recipe file and a cluster file."""
    paths = tmp_path / "whole.yaml", tmp_path / "place.yaml"
    for path, content in zip(paths, (WHOLE, PLACE), strict=True):
        path.write_text(yaml.safe_dump(content))
    return paths


def started(home: Path, files: tuple[Path, Path]) -> subprocess.Popen[bytes]:
    """`xclr run`, as a process of its own, which finds embeddings."""
    give_databases(begin(home, Recipe.model_validate(WHOLE), "embeddings"))
    log = home.with_suffix(".log").open("ab")
    return subprocess.Popen(
        command(home, "run", str(files[0]), "--cluster", str(files[1])), stdout=log, stderr=log, start_new_session=True
    )


def expected(home: Path, files: tuple[Path, Path]) -> int:
    """How many jobs the run has, when nothing happens to it."""
    place, planned = load_cluster(str(files[1])), pipeline(Recipe.model_validate(WHOLE), Store(home))
    return sum(place.resources_of(stage).executor == "slurm" for stage in planned)


def jobs_so_far(home: Path) -> int:
    return sum(entry.job is not None and bool(entry.name) for entry in Book(home).read().entries)


def survive(seed: int, home: Path, files: tuple[Path, Path]) -> None:
    """Kill something with SIGKILL at a moment that the seed chooses, run again to the end: every job once."""
    rng = random.Random(seed)
    kill, after, delay_s = KILLS[seed % len(KILLS)], rng.randrange(1, 6), rng.uniform(0, 3)
    print(f"seed {seed}: {kill.__name__} {delay_s:.2f} s after job {after}")
    kill(home, files, after, delay_s)
    for _ in range(2):
        again = started(home, files)
        if again.wait() == 0:
            break
    log = home.with_suffix(".log").read_text()
    assert again.returncode == 0, log
    assert read_runs(home)[-1].state == "completed"
    planned = pipeline(Recipe.model_validate(WHOLE), Store(home))
    assert all((Store(home).reference(stage.digest).path / MANIFEST).exists() for stage in planned)
    assert submissions(home) == expected(home, files), log


def kill_a_waiting_flow(home: Path, files: tuple[Path, Path], after: int, delay_s: float) -> None:
    """While its jobs wait for a node."""
    process = started(home, files)
    try:
        with everything_taken():
            until(lambda: waiting(home))
            time.sleep(delay_s)
            process.kill()
            process.wait()
            assert waiting(home)
    finally:
        process.kill()


def kill_a_flow(home: Path, files: tuple[Path, Path], after: int, delay_s: float) -> None:
    """While its jobs run."""
    process = started(home, files)
    until(lambda: jobs_so_far(home) >= after or process.poll() is not None)
    time.sleep(delay_s)  # the moment of the kill, which no condition names
    process.kill()
    process.wait()


def kill_a_server(home: Path, files: tuple[Path, Path], after: int, delay_s: float) -> None:
    """The Prefect server of a running flow, with all that it started; then the flow, unless it ends by itself."""
    process = started(home, files)
    until(lambda: jobs_so_far(home) >= after or process.poll() is not None)
    time.sleep(delay_s)
    if process.poll() is None and (found := servers.find(servers.PREFECT, home / "state")):
        server = psutil.Process(int(found.process.rsplit("/", 2)[1]))
        for each in (*server.children(recursive=True), server):
            each.kill()
        with suppress(subprocess.TimeoutExpired):  # it works on, and asks for its server for minutes
            process.wait(timeout=5)
    process.kill()
    process.wait()


def kill_a_worker(home: Path, files: tuple[Path, Path], after: int, delay_s: float) -> None:
    """The worker of a deployment, whose flow goes on; the deployment is run again beside it."""
    with serving(give_databases(begin(home, Recipe.model_validate(WHOLE), "embeddings"))) as served:
        environment = client_environment(served, home, home.parent / "client") | {"XCLR_CLUSTER": str(files[1])}
        whole = load_recipe(str(files[0])).model_dump(mode="json")
        with deployed(environment) as prefect:
            arguments = ["deployment", "run", "xclr-full/smoke", "--param", f"recipe={json.dumps(whole)}"]
            assert prefect(*arguments).returncode == 0
            until(lambda: jobs_so_far(home) >= after)
            time.sleep(delay_s)
            for process in psutil.process_iter():
                with suppress(psutil.Error):
                    if "worker" in process.cmdline() and process.environ().get("XCLR_HOME") == str(home):
                        process.kill()
            second = start_worker(environment)
            try:
                done = prefect(*arguments, "--watch")
                assert done.returncode == 0, done.stdout
            finally:
                end_worker(second)


KILLS = (kill_a_waiting_flow, kill_a_server, kill_a_worker, kill_a_flow)


def waiting(home: Path) -> list[str]:
    """Our jobs that wait."""
    names = {entry.name for entry in Book(home).read().entries if entry.name}
    lines = slurm("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%T %j").splitlines()
    return [line for line in lines if line.split()[0] == "PENDING" and line.split()[1] in names]


def test_a_run_whose_server_and_flow_are_killed_submits_nothing_twice(cluster, home, files):
    survive(1, home, files)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [0, *range(2, 33)])
def test_thirty_kills(seed, cluster, home, files):
    survive(seed, home, files)


def test_ctrl_c_twice_ends_the_jobs_and_once_leaves_them(cluster, home, files):
    files[0].write_text(yaml.safe_dump(WHOLE | {"train": TINY["train"] | {"epochs": 5000}}))
    give_databases(home)
    with servers.using(servers.PREFECT, home / "state"):  # else each of two runs starts one
        interrupted_twice_and_once(home, files)


def interrupted_twice_and_once(home: Path, files: tuple[Path, Path]) -> None:
    """Two runs by the command line."""
    process = started(home, files)
    until(lambda: jobs_so_far(home) >= 2)
    process.send_signal(signal.SIGINT)
    until(lambda: "Ctrl-C once more" in home.with_suffix(".log").read_text())
    process.send_signal(signal.SIGINT)
    process.wait()
    until(lambda: not live(home))
    process = started(home, files)
    until(lambda: live(home))
    process.send_signal(signal.SIGINT)
    process.wait()
    assert live(home)


def live(home: Path) -> list[str]:
    names = {entry.name for entry in Book(home).read().entries if entry.name}
    lines = slurm("squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%T %j").splitlines()
    return [line for line in lines if line.split()[1] in names and not line.startswith("COMPLETING")]
