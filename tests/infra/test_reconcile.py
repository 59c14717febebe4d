"""Random histories of jobs: never two live jobs of one digest, never a lost result, every history ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.ledger import LIVE, Adopt, Attach, Entry, GiveUp, JobState, Ledger, Submit, reconcile
from xclr.recipe import RetriesConfig

START = datetime(2026, 1, 1, tzinfo=UTC)
RETRIES = RetriesConfig(timeouts=2, node_failures=1, crashes=1, lost_after_s=60)
BASE = Entry(
    digest="d" * 32, kind="pretrain", stage="pretrain", run="r", attempt=1, owner="host/1/1", claimed=START, name="x"
)
ENDS = (
    JobState.COMPLETED, JobState.FAILED, JobState.GONE, JobState.STOPPED, JobState.PREEMPTED, JobState.TIMEOUT,
    JobState.NODE_FAIL, JobState.OUT_OF_MEMORY, JobState.CANCELLED, JobState.UNSEEN,
)  # fmt: skip
PASSING = (JobState.PENDING, JobState.RUNNING, JobState.UNKNOWN, JobState.UNSEEN, JobState.PREEMPTED)


def decide(entry, observed, now=START):
    (action,) = reconcile(Ledger((entry,), RETRIES), observed, now)
    return action


@given(
    st.lists(
        st.tuples(st.lists(st.sampled_from(PASSING), max_size=5), st.sampled_from(ENDS)),
        min_size=1,
        max_size=15,
    ),
    st.integers(5, 50),
)
@settings(max_examples=300)
def test_every_history_ends_with_one_result_and_never_two_jobs(histories, tick_s):
    """Each attempt goes through passing states and ends; a step of the orchestrator looks at it in between."""
    entry, now, live = BASE.model_copy(update={"job": "slurm/1"}), START, {"slurm/1"}
    submitted = 1
    for passing, end in histories:
        for state in passing:
            gone = state in {JobState.UNSEEN, JobState.PREEMPTED}
            entry = entry.model_copy(update={"unseen_since": (entry.unseen_since or now) if gone else None})
            now += timedelta(seconds=tick_s if gone else 600)
            action = decide(entry, {entry.job: state}, now)
            if gone and now - entry.unseen_since >= timedelta(seconds=60):
                break
            assert isinstance(action, Attach), (state, action)
        else:
            state = end
        if end is JobState.COMPLETED and state is end:
            assert isinstance(decide(entry, {entry.job: end}, now), Adopt), "a result was lost"
            return
        entry = entry.model_copy(update={"unseen_since": entry.unseen_since or now})
        now += timedelta(seconds=61)
        action = decide(entry, {entry.job: state}, now)
        live.discard(entry.job)
        if isinstance(action, GiveUp):
            limited = {JobState.TIMEOUT, JobState.NODE_FAIL, JobState.GONE, JobState.UNSEEN}
            assert state in limited | {JobState.FAILED, JobState.OUT_OF_MEMORY}
            return
        assert isinstance(action, Submit) and not live, "two jobs of one digest"
        assert action.attempt == entry.attempt + 1
        submitted += 1
        entry = BASE.model_copy(
            update={"attempt": action.attempt, "job": f"slurm/{submitted}", "before": action.before, "claimed": now}
        )
        live.add(entry.job)
    unlimited = {JobState.PREEMPTED, JobState.STOPPED, JobState.CANCELLED}
    counted = [state for state in entry.before if state not in unlimited]
    assert len(counted) <= RETRIES.timeouts + RETRIES.node_failures + RETRIES.crashes


@pytest.mark.parametrize(
    ("state", "times"), [(JobState.TIMEOUT, 2), (JobState.NODE_FAIL, 1), (JobState.GONE, 1), (JobState.UNSEEN, 1)]
)
def test_each_way_to_end_has_its_own_number_of_retries(state, times):
    long_ago = START - timedelta(hours=1)
    entry = BASE.model_copy(update={"job": "slurm/1", "unseen_since": long_ago, "before": (JobState.PREEMPTED,) * 50})
    for _ in range(times):
        action = decide(entry, {"slurm/1": state})
        assert isinstance(action, Submit)
        entry = entry.model_copy(update={"before": action.before})
    assert isinstance(decide(entry, {"slurm/1": state}), GiveUp)


def test_preemption_is_retried_without_limit_and_faults_of_the_job_never():
    entry = BASE.model_copy(update={"job": "slurm/1", "before": (JobState.PREEMPTED,) * 1000})
    assert isinstance(decide(entry, {"slurm/1": JobState.STOPPED}), Submit)
    assert isinstance(decide(entry, {"slurm/1": JobState.FAILED}), GiveUp)
    assert isinstance(decide(entry, {"slurm/1": JobState.OUT_OF_MEMORY}), GiveUp)


@pytest.mark.parametrize("state", [JobState.UNSEEN, JobState.PREEMPTED, JobState.NODE_FAIL])
def test_a_job_is_lost_only_after_continuous_absence(state):
    entry = BASE.model_copy(update={"job": "slurm/1"})
    assert isinstance(decide(entry, {"slurm/1": state}), Attach)
    absent = entry.model_copy(update={"unseen_since": START})
    assert isinstance(decide(absent, {"slurm/1": state}, START + timedelta(seconds=59)), Attach)
    assert isinstance(decide(absent, {"slurm/1": state}, START + timedelta(seconds=60)), Submit)


@pytest.mark.parametrize("state", sorted(LIVE))
def test_what_lives_or_cannot_be_asked_for_is_waited_for(state):
    entry = BASE.model_copy(update={"job": "slurm/1", "unseen_since": START - timedelta(days=9)})
    assert decide(entry, {"slurm/1": state}, START + timedelta(days=9)) == Attach(entry.digest, "slurm/1")
