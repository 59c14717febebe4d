"""The ledger: one claim a attempt, and decisions that follow from what is observed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.ledger import UNSEEN_GRACE, Adopt, Attach, Book, Entry, GiveUp, JobState, Ledger, Submit, reconcile
from tests.kit.disks import refusing
from xclr.recipe import RetriesConfig

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BASE = Entry(digest="d" * 32, kind="pretrain", stage="pretrain", run="r", attempt=1, owner="host/1/1", claimed=NOW)


def decide(entry, observed, now=NOW):
    (action,) = reconcile(Ledger((entry,)), observed, now)
    return action


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (JobState.RUNNING, Attach),
        (JobState.COMPLETED, Adopt),
        (JobState.FAILED, GiveUp),
        (JobState.GONE, Submit),
    ],
)
def test_the_action_follows_from_what_is_observed_of_the_job(state, kind):
    entry = BASE.model_copy(update={"job": "host/2/2"})
    assert isinstance(decide(entry, {"host/2/2": state}), kind)


def test_a_reported_fault_is_tried_again_as_often_as_the_recipe_says():
    retries, entry, again = RetriesConfig(failures=2), BASE.model_copy(update={"job": "host/2/2"}), []
    while True:
        (action,) = reconcile(Ledger((entry,), retries), {"host/2/2": JobState.FAILED}, NOW)
        if not isinstance(action, Submit):
            break
        again.append(action)
        entry = entry.model_copy(update={"attempt": action.attempt, "before": action.before})
    assert [(each.attempt, each.before) for each in again] == [(2, (JobState.FAILED,)), (3, (JobState.FAILED,) * 2)]
    assert action == GiveUp(entry.digest, 3, "it failed, 3 times in all")


def test_other_ends_are_not_counted_among_the_faults_and_too_little_memory_is_final():
    retries = RetriesConfig(failures=1)
    entry = BASE.model_copy(update={"state": JobState.FAILED, "before": (JobState.TIMEOUT, JobState.GONE)})
    (action,) = reconcile(Ledger((entry,), retries), {}, NOW)
    assert isinstance(action, Submit)
    (action,) = reconcile(
        Ledger((entry.model_copy(update={"state": JobState.OUT_OF_MEMORY, "before": ()}),), retries), {}, NOW
    )
    assert isinstance(action, GiveUp)


def test_a_reported_fault_is_final_unless_the_recipe_says_otherwise():
    entry = BASE.model_copy(update={"state": JobState.FAILED})
    assert reconcile(Ledger((entry,)), {}, NOW) == (GiveUp(entry.digest, 1, "it failed"),)


def test_a_written_end_outweighs_a_process_with_the_same_number():
    entry = BASE.model_copy(update={"job": "host/2/2", "state": JobState.FAILED})
    assert decide(entry, {"host/2/2": JobState.RUNNING}) == GiveUp(entry.digest, 1)


def test_a_claim_without_a_job_is_waited_for_while_its_claimer_lives():
    assert decide(BASE, {BASE.owner: JobState.RUNNING}) == Attach(BASE.digest, None)
    assert isinstance(decide(BASE, {BASE.owner: JobState.GONE}), Submit)


def test_a_claim_from_an_unseen_machine_is_taken_over_after_the_grace_time():
    assert isinstance(decide(BASE, {}, NOW + UNSEEN_GRACE / 2), Attach)
    assert isinstance(decide(BASE, {}, NOW + UNSEEN_GRACE * 2), Submit)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, *JobState]), st.sampled_from([None, *JobState]), st.sampled_from([None, *JobState])
        ),
        min_size=1,
        max_size=20,
    ),
    st.integers(0, 100_000),
)
def test_a_running_job_is_never_doubled_and_a_result_never_lost(histories, age_s):
    entries, observed = [], {}
    for index, (job, owner, end) in enumerate(histories):
        entry = BASE.model_copy(update={"digest": f"{index:032x}", "owner": f"host/{index}/0", "state": end})
        if job is not None:
            entry = entry.model_copy(update={"job": f"host/{index}/1"})
            observed[f"host/{index}/1"] = job
        if owner is not None:
            observed[f"host/{index}/0"] = owner
        entries.append(entry)
    actions = reconcile(Ledger(tuple(entries)), observed, NOW + timedelta(seconds=age_s))
    assert [action.digest for action in actions] == [entry.digest for entry in entries]
    for (job, _, end), action in zip(histories, actions, strict=True):
        if (end or job) is JobState.RUNNING:
            assert not isinstance(action, Submit)
        if (end or job) is JobState.COMPLETED:
            assert isinstance(action, Adopt)
        if isinstance(action, Submit):
            assert action.attempt == 2


@pytest.mark.parametrize("links", [True, False])
def test_one_of_many_claims_wins_with_hard_links_and_without(links, tmp_path: Path, monkeypatch):
    if not links:
        monkeypatch.setattr("os.link", refusing(errno.EPERM))
    book = Book(tmp_path)
    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(lambda n: book.claim(BASE.model_copy(update={"run": str(n)})), range(64)))
    assert won.count(True) == 1
    assert book.latest(BASE.digest).run == str(won.index(True))


def test_one_of_many_processes_wins_the_claim(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from infra.ledger import Book, Entry;"
        "print(Book(Path(sys.argv[1])).claim(Entry.model_validate_json(sys.argv[2])))"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path), BASE.model_dump_json()]
    processes = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = [process.communicate()[0].strip() for process in processes]
    assert sorted(answers) == ["False", "False", "False", "True"]


def test_attempts_follow_each_other_and_the_newest_counts(tmp_path: Path):
    book = Book(tmp_path)
    assert book.latest(BASE.digest) is None
    assert book.claim(BASE)
    assert book.claim(BASE.model_copy(update={"attempt": 2}))
    book.update(BASE.model_copy(update={"attempt": 2, "state": JobState.COMPLETED}))
    assert book.latest(BASE.digest).attempt == 2
    assert book.read().entries == (book.latest(BASE.digest),)


def test_a_disk_without_hard_links_has_one_claim_an_attempt_too(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")  # of exFAT, which nothing here can make

    monkeypatch.setattr(os, "link", refuse)
    with ThreadPoolExecutor(8) as pool:
        claimed = list(
            pool.map(lambda number: Book(tmp_path).claim(BASE.model_copy(update={"run": str(number)})), range(8))
        )
    assert sum(claimed) == 1
    assert Book(tmp_path).latest(BASE.digest).run == str(claimed.index(True))
    assert [path.name for path in (tmp_path / "ledger" / BASE.digest).iterdir() if path.suffix] == ["0001.json"]
