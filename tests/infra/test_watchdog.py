"""What holds stages up is said once, with what to do; what gets on is left alone."""

from __future__ import annotations

import os
import threading
import time
from datetime import timedelta

import pytest

from infra.executors.executor import Sight
from infra.home.status import Job, Overview, status
from infra.ledger import Entry, JobState, Submit
from infra.processes import now, this_process
from infra.stage import claim, watch
from infra.watchdog import Watchdog, silent_s
from tests.kit.recipes import CLUSTER
from tests.kit.runs import open_run, planned
from xclr.job import PROGRESS
from xclr.shards import SHARDS
from xclr.training.spool import SPOOL

HOUR = 3600


def attempt(**changes: object) -> Entry:
    """One that was claimed two hours ago, and is named after half an hour without progress."""
    fields = {"digest": "d" * 32, "kind": "pretrain", "stage": "pretrain clip", "run": "r", "attempt": 1}
    fields |= {"owner": "elsewhere/1/1", "claimed": now() - timedelta(hours=2), "job": "elsewhere/2/2"}
    return Entry.model_validate(fields | {"stuck_after_s": 1800} | changes)


def wrote(path, ago_s: float) -> None:
    """A file that was last written so long ago."""
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.utime(path, (time.time() - ago_s, time.time() - ago_s))


def said(entry: Entry, out, looks: int = 1) -> list[str]:
    lines: list[str] = []
    watchdog = Watchdog(lines.append)
    for _ in range(looks):
        watchdog.due = 0.0
        watchdog.look([(entry, out)])
    return lines


@pytest.mark.parametrize("name", [PROGRESS, SPOOL, "job_log.out", f"{SHARDS}/3.{PROGRESS}"])
def test_whatever_a_stage_writes_is_progress_and_its_silence_is_said_once(name, tmp_path):
    entry = attempt(log=str(tmp_path / "job_log.out"))
    wrote(tmp_path / name, 1700)
    assert said(entry, tmp_path) == []
    wrote(tmp_path / name, 1900)
    (line,) = said(entry, tmp_path, looks=3)
    assert "pretrain clip: no progress for 31 min" in line and entry.log in line and "xclr retry" in line


def test_one_that_wrote_nothing_at_all_is_silent_since_it_was_claimed(tmp_path):
    assert "no progress for 2 h" in said(attempt(), tmp_path)[0]
    assert said(attempt(claimed=now()), tmp_path) == said(attempt(stuck_after_s=None), tmp_path) == []


def test_a_silence_after_more_progress_is_another_one(tmp_path):
    lines: list[str] = []
    watchdog = Watchdog(lines.append)
    for silent in (2 * HOUR, HOUR):
        wrote(tmp_path / PROGRESS, silent)
        watchdog.due = 0.0
        watchdog.look([(attempt(), tmp_path)])
    assert len(lines) == 2


def test_what_is_over_or_waits_makes_no_progress_and_is_not_stuck(tmp_path):
    assert said(attempt(state=JobState.FAILED), tmp_path) == said(attempt(job=None), tmp_path) == []
    assert silent_s(attempt(), tmp_path, Sight(elapsed_s=0.0)) == 0, "a job in the queue"
    assert silent_s(attempt(), tmp_path, Sight(elapsed_s=60.0)) == 60, "that began a minute ago"


def test_status_says_so_too(tmp_path):
    line = status(Overview((), (Job(attempt(), tmp_path, JobState.RUNNING),))).jobs[0]
    assert line.reason == "no progress for 2 h 0 min"


def test_the_cluster_file_says_how_long_and_a_stage_in_the_runs_own_process_is_watched_too(home):
    quick = CLUSTER.default.model_copy(update={"stuck_after_s": 7})
    run = open_run(home, cluster=CLUSTER.model_copy(update={"default": quick}))
    stage = planned(run.recipe, run.store)["captions"]
    out, lines, over = run.store.begin(stage.digest), [], threading.Event()
    entry = claim(run, stage, out, Submit(str(stage.digest), 1, ""), "")
    assert entry.stuck_after_s == 7
    run.book.update(entry.model_copy(update={"job": this_process(), "claimed": now() - timedelta(seconds=61)}))
    run.board.say = lambda line: (lines.append(line), over.set())
    watched = threading.Thread(target=watch, args=(run, stage, out, over), daemon=True)
    watched.start()
    watched.join(60)
    assert lines[0].startswith("captions: no progress for 1 min")
