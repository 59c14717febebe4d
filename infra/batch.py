"""`ensure_all`: many stages of one kind at once. On Slurm they are the elements of one job array.

An element makes an output of its own, and its digest has a ledger entry of its own, so that whatever happens to one
concerns no other: each is claimed, waited for, tried again and committed as if it were alone.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from infra.cancel import end_jobs
from infra.cluster import Resources
from infra.costs import account_lost
from infra.ledger import Adopt, Entry, Submit
from infra.slurm.job import StageJob
from infra.slurm.queue import QUEUE, folder_of, job_name, log_of, max_array_size, slurm_name
from infra.slurm.submit import Order
from infra.slurm.submit import submit as slurm_submit
from infra.stage import POLL_S, STAGE, Run, announce, begin, claim, commit, decide, ensure, found, made, refused
from xclr.errors import JobError, XclrError
from xclr.stages import Stage
from xclr.sweep import is_of_cell, spelled

AT_ONCE = 16  # stages that wait for cores, or are tracked, in threads
Failures = dict[str, XclrError]  # by digest


def ensure_all(run: Run, what: str, stages: Sequence[Stage], parallel: int | None = None) -> Failures:
    """Find or make every stage, `parallel` jobs at once; returns why some could not be made, and stops no other.

    A stage whose inputs are not there is among these. `what` names the stages together; they have the same kind.
    """
    began, there = time.monotonic(), sum(run.store.find(each.digest) is not None for each in stages)
    failures: Failures = {}
    ready = []
    for stage in stages:
        missing = [role for role, each in stage.inputs.items() if run.store.find(each.digest) is None]
        if missing:
            failures[stage.digest] = JobError(f"{stage.name}: its {missing[0]} was not made", "see why that failed")
        else:
            ready.append(stage)
    failures |= _ensure(run, what, ready, parallel)
    run.tracker.mark_failed(failures)
    parts = [f"{len(stages) - len(failures)} of {len(stages)}"]
    parts += [f"{there} were there"] * bool(there) + [f"{len(failures)} failed"] * bool(failures)
    run.board.say(f"{what}: {', '.join(parts)}  [dim]{time.monotonic() - began:.1f} s")
    return failures


def _ensure(run: Run, what: str, ready: Sequence[Stage], parallel: int | None) -> Failures:
    """Ensure stages whose inputs are there: what belongs to cells in arrays, where that runs on Slurm."""
    resources = run.cluster.resources_of(ready[0]) if ready else Resources()
    if resources.executor == "slurm" and is_of_cell(ready[0]):  # others have arrays of shards of their own
        return Batch(run, what, resources, parallel or resources.parallel).ensure(ready)
    with ThreadPoolExecutor(parallel or AT_ONCE) as pool:
        return _reasons({stage.digest: pool.submit(ensure, run, stage) for stage in ready})


def join_sweep(run: Run) -> None:
    """Tag the MLflow runs of a sweep's networks."""
    if run.record.sweep is not None:
        values: dict[str, dict[str, None]] = {}  # by network, each once: cells that differ by a suite share it
        for cell in run.record.cells:
            values.setdefault(cell.training.digest, {})[spelled(cell.values) or "every value"] = None
        run.tracker.join_sweep(run.record.sweep.name, {digest: "; ".join(each) for digest, each in values.items()})


def _reasons(futures: Mapping[str, Future[Any]]) -> Failures:
    """What made futures fail, once all have ended; raises what is no XclrError."""
    errors = {digest: future.exception() for digest, future in futures.items()}
    for error in errors.values():
        if error is not None and not isinstance(error, XclrError):
            raise error
    return {digest: error for digest, error in errors.items() if isinstance(error, XclrError)}


class Open(NamedTuple):
    """A stage that is not there yet, and the attempts whose end this run sees."""

    stage: Stage
    out: Path
    waited_for: set[int]


class Batch:
    """Stages as elements of job arrays, from the first look at them to the last commit."""

    def __init__(self, run: Run, what: str, resources: Resources, cap: int) -> None:
        self.run, self.what, self.resources, self.cap = run, what, resources, cap
        self.failures: Failures = {}
        self.told = False  # that Slurm does not answer

    def ensure(self, stages: Sequence[Stage]) -> Failures:
        """Find or make the stages; returns why some could not be made.

        At most `cap` jobs run at once: an array is told so, and what is tried again waits until others have ended.
        """
        with ThreadPoolExecutor(AT_ONCE) as pool:  # accounts and MLflow are slower than Slurm's elements
            tracked: dict[str, Future[Any]] = {}
            waiting = []
            for stage in stages:
                artifact = self.run.store.find(stage.digest)
                if artifact is None:
                    waiting.append(Open(stage, begin(self.run, stage), set()))
                else:
                    tracked[stage.digest] = pool.submit(found, self.run, stage, artifact)
            with self.run.board.counting(self.what, len(waiting)) as count:
                while waiting:
                    for each in self._round(waiting):
                        waiting.remove(each)
                        count()
                        artifact = self.run.store.find(each.stage.digest)
                        if artifact is not None:
                            tracked[each.stage.digest] = pool.submit(made, self.run, each.stage, artifact)
                        else:
                            tracked[each.stage.digest] = pool.submit(account_lost, self.run.book, each.stage)
                    if waiting:
                        time.sleep(POLL_S)
        return self.failures | _reasons(tracked)

    def _round(self, waiting: Sequence[Open]) -> list[Open]:
        """Look at every stage once and submit what may be; returns those that have come to an end."""
        over, orders = [], []
        for each in waiting:
            try:
                order = self._look(each)
            except XclrError as error:
                self.failures[each.stage.digest] = error
                over.append(each)
                continue
            if order is not None:
                orders.append((each, order))
            elif self.run.store.find(each.stage.digest) is not None:
                over.append(each)
        self._tell()
        free = self.cap - (len(waiting) - len(over) - len(orders))
        if orders and free > 0:
            self._submit(orders, free)
        return over

    def _look(self, each: Open) -> Submit | None:
        """What is to be submitted for a stage; what is done is committed, and a running one's metrics go to MLflow."""
        if self.run.store.find(each.stage.digest) is not None:
            return None
        action = decide(self.run, each.stage, each.out, each.waited_for)
        if isinstance(action, Submit):
            return action
        if isinstance(action, Adopt):
            commit(self.run, each.stage, each.out)
        else:
            self.run.tracker.follow(each.stage, each.out)
        return None

    def _tell(self) -> None:
        if not (self.told or QUEUE.answers):
            self.run.board.say(f"{self.what}: Slurm does not answer; its jobs go on and are waited for")
        self.told = not QUEUE.answers

    def _submit(self, orders: Sequence[tuple[Open, Submit]], parallel: int) -> None:
        """Claim what nobody else has claimed and submit it, in as few arrays as Slurm takes."""
        size = max_array_size()
        for start in range(0, len(orders), size):
            name = slurm_name(self.what)
            claimed: list[tuple[Open, Entry]] = []
            for each, order in orders[start : start + size]:
                announce(self.run, each.stage, order, each.waited_for)
                entry = claim(self.run, each.stage, each.out, order, name, element=len(claimed))
                if entry is not None:
                    claimed.append((each, entry))
            if claimed:
                self._submit_array(name, claimed, parallel)

    def _submit_array(self, name: str, claimed: Sequence[tuple[Open, Entry]], parallel: int) -> None:
        run, resources = self.run, self.resources.model_copy(update={"parallel": parallel})
        folder = folder_of(claimed[0][0].out, name, element=0)
        jobs = (StageJob(each.out / STAGE, each.out, resources.threads_per_rank) for each, _ in claimed)
        sweep = f" sweep={run.record.sweep.name}" if run.record.sweep else ""
        comment = f"xclr run={run.id}{sweep} stage={self.what}"
        order = Order(tuple(jobs), folder, name, comment, run.code, run.recipe.retries.timeouts, array=True)
        try:
            (array,) = slurm_submit(order, resources)
        except JobError as error:
            for each, entry in claimed:
                refused(run, entry, each.out, error)
            return
        for _, entry in claimed:
            job = f"{array}_{entry.element}"
            run.book.update(entry.model_copy(update={"job": job, "log": str(log_of(folder, job, array=False))}))
        if run.cancelled:  # while it was being submitted
            end_jobs(run.store.home, run.record, {entry.digest for _, entry in claimed})
        run.board.say(f"{self.what}: an array of {len(claimed)} in {job_name(array)}, at most {parallel} at once")
