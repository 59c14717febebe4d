"""Jobs of a Slurm cluster: submitted by submitit, seen in squeue and sacct, ended by scancel."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

from infra.executors.executor import Executor, Sight, Submission, folder_of, outcome_of, rank_log
from infra.executors.memory import tells_of_memory
from infra.finding import Finding
from infra.ledger import Entry, JobState
from infra.processes import JobId
from infra.resources import Resources
from infra.slurm.accounting import ran_out_of_memory, used
from infra.slurm.look import ask
from infra.slurm.queue import ELSEWHERE, PREFIX, Queue, Whole, shown, slurm_ids, whole, why_waiting
from xclr.artifact import Usage
from xclr.errors import JobError
from xclr.job import RESULT
from xclr.store import Store

COMMANDS = ("sbatch", "squeue", "scancel")
UP = re.compile("(idle|mixed|allocated|completing|planned|reserved)[^*]*$")  # an asterisk is a node that is silent
CLOCKS = timedelta(minutes=5)  # between this machine's and the controller's


class Slurm(Executor):
    """A job is one of Slurm's, or arrays of them; the queue is looked at for all threads of this process together."""

    name, title, has_arrays = "slurm", "Slurm", True

    def __init__(self) -> None:
        self.queue = Queue()

    def submit(self, submission: Submission) -> Iterator[Entry]:
        """Submit one job, or as few arrays as Slurm takes."""
        from infra.slurm.submit import Order, submit  # status and plans need no submitit, which takes half a second
        from infra.stagejob import StageJob

        first, threads = submission.attempts[0], self.threads(submission.resources)
        folder = folder_of(first.out, first.entry.name, first.entry.element)
        jobs = tuple(
            StageJob(each.stage_json, each.out, threads, piece)
            for each in submission.attempts
            for piece in each.pieces or (None,)
        )
        array = bool(first.pieces) or first.entry.element is not None
        order = Order(
            jobs,
            folder,
            first.entry.name,
            submission.comment,
            submission.code(),
            submission.timeouts,
            Store.of(first.out).home,
            array,
        )
        for job in submit(order, submission.resources, self.queue):
            for entry, *_ in submission.attempts:
                yield _with_job(entry, job if entry.element is None else f"{job}_{entry.element}", folder, first.pieces)

    def check_here(self) -> None:
        """Look for Slurm's commands."""
        if lacking := [each for each in COMMANDS if shutil.which(each) is None]:
            raise JobError(f"no {', '.join(lacking)} on this machine", ELSEWHERE)

    def state(self, entry: Entry, out: Path) -> JobState:
        """Slurm's word while it lives or was cancelled, else what it left, else Slurm's word again.

        Where Slurm kills for memory without cgroups, its word is FAILED; the log or the accounts know better.
        """
        self.queue.home = Store.of(out).home
        seen = self._elements(entry)
        if seen is not None and seen.live:
            return seen.state
        if seen is not None and seen.state is JobState.CANCELLED:
            return JobState.COMPLETED if (out / RESULT).exists() else JobState.CANCELLED
        outcome = outcome_of(out)
        if outcome is not None:
            return outcome
        if seen is None:
            return JobState.UNSEEN
        return JobState.OUT_OF_MEMORY if seen.state is JobState.GONE and self._lacked_memory(entry) else seen.state

    def cancel(self, entries: Sequence[Entry]) -> bool:
        """Cancel jobs that bear the name they were submitted by."""
        ids = [each for entry in entries for each in self.ids(str(entry.job))]
        try:
            ask("scancel", f"--name={entries[0].name}", *ids)
        except OSError:  # it is asked for again, and told if it stays
            return False
        finally:
            self.queue.forget()
        return True

    def find(self, entry: Entry, out: Path) -> Entry:
        """Ask Slurm for jobs of that name."""
        ids = self.queue.named(entry.name)
        if not ids:
            return entry
        folder = folder_of(out, entry.name, entry.element)
        if entry.element is not None:
            return _with_job(entry, f"{PREFIX}{ids[-1]}_{entry.element}", folder)
        elements = sorted(folder.glob(f"{ids[0]}_*_log.out"))
        found = _with_job(entry, PREFIX + "+".join(ids), folder)
        return found.model_copy(update={"log": str(elements[0])}) if elements else found

    def goes_on(self, entry: Entry, out: Path) -> bool:
        """True until all its processes are being ended, whatever the ledger says."""
        seen = self._elements(entry)
        return seen is not None and (seen.state is JobState.UNKNOWN or not seen.is_ending)

    def failed_nodes(self, entry: Entry, out: Path) -> tuple[str, ...]:
        """Those that the job names, else those of its nodes that are not up; the one of a job that had one."""
        if named := super().failed_nodes(entry, out):
            return named
        seen = self._elements(entry)
        listed = ",".join(dict.fromkeys(each.node for each in (seen.elements if seen else ()) if each.node))
        return nodes_down(listed) if listed else ()

    def look(self, entry: Entry) -> Sight | None:
        """A job that has not ended."""
        seen = self._elements(entry) if entry.state is None else None
        return None if seen is None else sight(seen)

    def draw_name(self, what: str) -> str:
        """As people read it in squeue: without the prefix."""
        return super().draw_name(what).removeprefix(PREFIX)

    def log(self, entry: Entry, asked: str, rank: int) -> Path:
        """submitit's."""
        return rank_log(Path(str(entry.log)), rank, asked if re.fullmatch(r"\d+_\d+", asked) else "")

    def used(self, ids: Sequence[str]) -> Usage | None:
        """As sacct has it, over all requeues."""
        return used(ids, self.queue.accounts)

    @property
    def answers(self) -> bool:
        """True unless the controller did not, the last time."""
        return self.queue.answers

    @property
    def array_size(self) -> int:
        """Slurm's MaxArraySize."""
        return self.queue.array_size

    def examine(self, kinds: Mapping[str, Resources], home: Path) -> Iterator[Finding]:
        """Ask the live Slurm, stage kind by stage kind."""
        from infra.slurm.check import examine

        return examine(kinds, home)

    def _lacked_memory(self, entry: Entry) -> bool:
        ids, folder = self.ids(str(entry.job)), Path(str(entry.log)).parent
        return tells_of_memory(path for each in ids for path in folder.glob(f"{each}_*log.out")) or (
            ran_out_of_memory(ids, self.queue.accounts)
        )

    def _elements(self, entry: Entry) -> Whole | None:
        """The attempt's job as Slurm shows it; None when it shows none, or another of the same number."""
        found = self.queue.find(str(entry.job))
        if found is None or found.state is JobState.UNKNOWN:
            return found
        ours = tuple(
            each
            for each in found.elements
            if each.name == entry.name and (each.submitted is None or each.submitted > entry.claimed - CLOCKS)
        )
        return whole(ours) if ours else None


def nodes_down(listed: str) -> tuple[str, ...]:
    """Of nodes as Slurm lists them (n[1-3]) those that are not up, as sinfo has it; one that is alone is meant."""
    try:
        lines = ask("sinfo", "--noheader", "--Node", f"--nodes={listed}", "--format=%N|%T").splitlines()
    except OSError:
        return ()
    states = dict(line.strip().split("|", 1) for line in lines if "|" in line)
    return tuple(states) if len(states) == 1 else tuple(name for name, state in states.items() if not UP.match(state))


def sight(seen: Whole) -> Sight:
    """A job's elements, for people."""
    ended, running, waiting = shown(seen.elements)
    several = f"{ended} of {len(seen.elements)} ended, {running} running, {waiting} waiting"
    reasons = [why_waiting(each) for each in seen.live]
    starts = [each.starts for each in seen.live if each.starts is not None]
    return Sight(
        node=",".join(dict.fromkeys(each.node for each in seen.live if each.node)),
        elapsed_s=max((each.elapsed_s for each in seen.live), default=None),
        remaining_s=min((each.remaining_s for each in seen.live if each.remaining_s is not None), default=None),
        array=several if len(seen.elements) > 1 else None,
        reason="; ".join(dict.fromkeys(each.words for each in reasons if each.words)),
        starts=min(starts, default=None),
        remedy=next((each.remedy for each in reasons if each.remedy), ""),
    )


def _with_job(entry: Entry, job: JobId, folder: Path, pieces: Sequence[int] = ()) -> Entry:
    """An attempt with its job and the log of rank 0, of an array's first piece."""
    log = folder / f"{slurm_ids(job)[0]}{'_0' if pieces else ''}_0_log.out"
    return entry.model_copy(update={"job": job, "log": str(log)})
