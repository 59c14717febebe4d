"""A training on a real cluster is preempted, timed out, requeued, loses its node: the losses are the same.

It is held at a step until what happens to it has happened, so that it is never over before.
"""

from __future__ import annotations

import signal
from pathlib import Path

from infra.ledger import JobState
from infra.slurm import private
from tests.kit.polling import until
from tests.kit.slurm import HELD_AT, RECIPE, lose, node_of, on_slurm, processes, restarts, sbatch, slurm
from tests.kit.trainings import Training


def test_a_preempted_training_goes_on(cluster, home, whole):
    with Training(home, RECIPE, on_slurm(partition="low"), held_at=HELD_AT) as training:
        followed, job = training.follow(), training.job()
        training.reach(HELD_AT)
        sbatch("--partition=high", "--nodes=2", "--exclusive", wrap="sleep 2")
        until(lambda: restarts(job) == 1)
        training.release()
        followed.result()
        assert training.losses() == whole
        assert restarts(job) == 1 and training.book.latest(training.digest).attempt == 1
        assert "this job is preempted" in Path(training.entry().log).read_text()


def test_a_training_that_reaches_its_time_limit_goes_on(cluster, home, whole):
    with Training(home, RECIPE, on_slurm(timeout_min=10, warn_s=60), held_at=HELD_AT) as training:
        followed, job = training.follow(), training.job()
        training.reach(HELD_AT)  # a process that has only begun has nobody to hear the warning
        slurm("scontrol", "update", f"jobid={job}", "endtime=now+90")  # Slurm looks at limits only twice a minute
        until(lambda: restarts(job) == 1)
        training.release()
        followed.result()
        assert training.losses() == whole
        assert restarts(job) == 1 and training.book.latest(training.digest).attempt == 1
        assert "this job is timed-out" in Path(training.entry().log).read_text()


def test_a_requeued_training_goes_on(cluster, home, whole):
    with Training(home, RECIPE, on_slurm(), held_at=HELD_AT) as training:
        followed, job = training.follow(), training.job()
        training.reach(HELD_AT)
        slurm("scontrol", "requeue", job)
        until(lambda: restarts(job) == 1)
        training.release()
        followed.result()
        assert training.losses() == whole
        assert restarts(job) == 1 and training.book.latest(training.digest).attempt == 1


def test_a_training_that_loses_its_node_goes_on_at_another(cluster, home, whole):
    with Training(home, RECIPE, on_slurm(), held_at=HELD_AT) as training:
        followed, job = training.follow(), training.job()
        training.reach(HELD_AT)
        node = node_of(job)
        lose(cluster, node)
        training.release()
        try:
            followed.result()
        finally:
            private.start_node(cluster, node)
        assert training.losses() == whole
        assert node_of(job) != node


def test_a_training_that_is_only_told_to_end_saves_and_is_submitted_again(cluster, home, whole):
    with Training(home, RECIPE, on_slurm(), held_at=HELD_AT) as training:
        followed, job = training.follow(), training.job()
        training.reach(HELD_AT)
        slurm("scancel", "--signal=TERM", job)
        assert training.entry(attempt=2).before == (JobState.STOPPED,)
        training.release()
        followed.result()
        assert training.losses() == whole


def test_a_killed_rank_ends_the_job_at_once_and_it_is_submitted_again(cluster, home, whole):
    with Training(home, RECIPE, on_slurm(), held_at=HELD_AT) as training:
        followed, job = training.follow(), training.job()
        training.reach(HELD_AT)
        next(processes(SLURM_JOB_ID=job, SLURM_PROCID="1")).send_signal(signal.SIGKILL)
        assert training.entry(attempt=2).before == (JobState.GONE,)
        training.release()
        followed.result()
        assert training.losses() == whole
