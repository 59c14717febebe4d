"""`ensure_all`: many stages of one kind at once. Where a scheduler has job arrays, they are elements.

Levels run beside each other, in threads: one takes up its stages as their inputs come to an end. An element makes an
output of its own, and its digest has a ledger entry of its own, so that whatever happens to one concerns no other: each
is claimed, waited for, tried again and committed as if it were alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.text import Text

from infra.executors.executor import Attempt, executor_named
from infra.home.costs import settle_lost
from infra.home.swept import joined
from infra.ledger import Adopt, Submit
from infra.resources import Resources
from infra.run import Run
from infra.stage import (
    POLL_S,
    announce,
    claim,
    commit,
    decide,
    ensure,
    open_stage,
    submit,
    tell_silence,
    track_found,
    track_lost,
    track_made,
)
from infra.watchdog import Watchdog
from xclr.artifact import Artifact
from xclr.errors import JobError, XclrError
from xclr.stage import Stage

AT_ONCE = 16  # stages that wait for cores, or are tracked, in threads
Failures = dict[str, XclrError]  # by digest


def ensure_all(run: Run, what: str, stages: Sequence[Stage], parallel: int | None = None) -> Failures:
    """Find or make every stage, `parallel` jobs at once; returns why some could not be made, and stops no other.

    A stage is begun when its inputs have come to an end, in this call or in one that runs beside it, and is among what
    could not be made where one of them is. `what` names the stages together; they have the same kind.
    """
    try:
        while not ready(run, stages):
            time.sleep(POLL_S)
        began, there = time.monotonic(), sum(run.store.find(each.digest) is not None for each in stages)
        failures = _ensure(run, what, stages, parallel)
    except BaseException:
        run.stopping.set()  # what is beside it would wait in vain
        raise
    parts = [f"{len(stages) - len(failures)} of {len(stages)}"]
    parts += [f"{there} were there"] * bool(there) + [f"{len(failures)} failed"] * bool(failures)
    run.board.say(Text.assemble(f"{what}: {', '.join(parts)}  ", (f"{time.monotonic() - began:.1f} s", "dim")))
    return failures


def ready(run: Run, stages: Sequence[Stage]) -> list[Stage]:
    """The stages whose inputs have come to an end, well or not; all, when nothing new may begin."""
    if run.should_stop:
        return list(stages)
    return [stage for stage in stages if all(each.digest in run.outcomes for each in stage.inputs.values())]


def _ensure(run: Run, what: str, stages: Sequence[Stage], parallel: int | None) -> Failures:
    """Ensure stages as they become ready: what belongs to cells in arrays, where there are some."""
    resources = run.cluster.resources_of(stages[0])
    # others have arrays of shards of their own
    if executor_named(resources.executor).has_arrays and stages[0].network:
        return Level(run, what, resources, parallel or resources.parallel).ensure(stages)
    futures: dict[str, Future[Any]] = {}
    with ThreadPoolExecutor(parallel or AT_ONCE) as pool:
        blocked = list(stages)
        while blocked:
            for stage in ready(run, blocked):
                blocked.remove(stage)
                futures[stage.digest] = pool.submit(_ensure_one, run, stage)
            if blocked:
                time.sleep(POLL_S)
    return _reasons(futures)


def _ensure_one(run: Run, stage: Stage) -> None:
    with _settled(run, stage):
        check_inputs(run, stage)
        ensure(run, stage)


def check_inputs(run: Run, stage: Stage) -> None:
    """Raise JobError when an input of a stage was not made."""
    for role, each in stage.inputs.items():
        if each.digest not in run.outcomes or run.outcomes[each.digest] is not None:
            raise JobError(f"{stage.name}: its {role} was not made", "see why that failed")


@contextmanager
def _settled(run: Run, stage: Stage) -> Iterator[None]:
    """Let what waits for a stage know what came of it, once that is tracked."""
    try:
        yield
    except XclrError as error:
        run.outcomes[stage.digest] = error
        raise
    run.outcomes[stage.digest] = None


def join_sweep(run: Run) -> None:
    """Tag the MLflow runs of a sweep's networks."""
    if run.record.sweep is not None:
        run.tracker.join_sweep(run.record.sweep.name, joined(run.record))


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


class End(NamedTuple):
    """A stage that has come to an end: how that is tracked, or why it could not be made."""

    stage: Stage
    after: Callable[[Run, Stage, Artifact], object] | XclrError


class Level:
    """Stages as elements of job arrays, from the first look at them to the last commit."""

    def __init__(self, run: Run, what: str, resources: Resources, cap: int) -> None:
        self.run, self.what, self.resources, self.cap = run, what, resources, cap
        self.executor = executor_named(resources.executor)
        self.blocked: list[Stage] = []  # their inputs are still to come
        self.waiting: list[Open] = []
        self.watchdog = Watchdog(run.board.say)
        self.told = False  # that the scheduler does not answer

    def ensure(self, stages: Sequence[Stage]) -> Failures:
        """Find or make the stages; returns why some could not be made.

        At most `cap` jobs run at once: an array is told so, and what comes later waits until others have ended. While
        inputs are still to come, an array is submitted when it fills the cap.
        """
        self.blocked = list(stages)
        missing = sum(self.run.store.find(each.digest) is None for each in stages)
        tracked: dict[str, Future[None]] = {}
        # accounts and MLflow are slower than elements
        with ThreadPoolExecutor(AT_ONCE) as pool, self.run.board.counting(self.what, missing) as count:
            while self.blocked or self.waiting:
                for each in [*self._open(), *self._round()]:
                    tracked[each.stage.digest] = pool.submit(self._track, each)
                    if each.after is not track_found:
                        count()
                if self.blocked or self.waiting:
                    time.sleep(POLL_S)
        return _reasons(tracked)

    def _open(self) -> list[End]:
        """Take on the stages that became ready; returns those of which nothing is to be made."""
        over = []
        for stage in ready(self.run, self.blocked):
            self.blocked.remove(stage)
            try:
                check_inputs(self.run, stage)
                if self.run.store.find(stage.digest) is not None:
                    over.append(End(stage, track_found))
                else:
                    self.waiting.append(Open(stage, open_stage(self.run, stage), set()))
            except XclrError as error:
                over.append(End(stage, error))
        return over

    def _track(self, end: End) -> None:
        """Bring what came of a stage to the ledger and MLflow, then to those that wait for it."""
        with _settled(self.run, end.stage):
            if isinstance(end.after, XclrError):
                settle_lost(self.run.book, end.stage)
                track_lost(self.run, end.stage)
                raise end.after
            end.after(self.run, end.stage, self.run.store.reference(end.stage.digest))

    def _round(self) -> list[End]:
        """Look at every stage once and submit what may be; returns those that have come to an end."""
        over, orders, active = [], [], []
        for each in self.waiting:
            try:
                order = self._look(each)
            except XclrError as error:
                over.append(End(each.stage, error))
                continue
            if order is not None:
                orders.append((each, order))
            elif self.run.store.find(each.stage.digest) is not None:
                over.append(End(each.stage, track_made))
            else:
                active.append(each)
        self.waiting = [*(each for each, _ in orders), *active]
        self.watchdog.look((self.run.book.latest(each.stage.digest), each.out) for each in active)
        self.told = tell_silence(self.run, self.what, self.executor, told=self.told)
        free = self.cap - len(active)
        if orders and (free >= self.cap <= len(orders) if self.blocked else free > 0):
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
            commit(self.run.store, self.run.book, each.stage, each.out)
        else:
            self.run.tracker.follow(each.stage, each.out)
        return None

    def _submit(self, orders: Sequence[tuple[Open, Submit]], parallel: int) -> None:
        """Claim what nobody else has claimed and submit it, in as few arrays as there may be."""
        size = self.executor.array_size
        for start in range(0, len(orders), size):
            name = self.executor.draw_name(self.what)
            claimed: list[Attempt] = []
            for (stage, out, waited_for), order in orders[start : start + size]:
                announce(self.run, stage, order, waited_for)
                entry = claim(self.run, stage, out, order, name, element=len(claimed))
                if entry is not None:
                    claimed.append(Attempt(entry, stage, out))
            if claimed:
                self._submit_array(claimed, parallel)

    def _submit_array(self, claimed: Sequence[Attempt], parallel: int) -> None:
        run, resources = self.run, self.resources.model_copy(update={"parallel": parallel})
        sweep = f"sweep={run.record.sweep.name} " if run.record.sweep else ""
        job = submit(run, resources, claimed, f"{sweep}stage={self.what}")
        if job is not None:
            array = self.executor.call(job.removesuffix(f"_{claimed[-1].entry.element}"))
            run.board.say(f"{self.what}: an array of {len(claimed)} in {array}, at most {parallel} at once")
