"""Where jobs run and how: what a backend is asked, and the backends there are, by name.

A backend is a subclass of Executor and a line in EXECUTORS, or an entry point of the group `xclr.executors` in another
package. Which one a job is of follows from its id: `NAME/...`, but for processes, which are `<host>/<pid>/<start>`.
"""

from __future__ import annotations

import difflib
import functools
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import ClassVar, NamedTuple

from infra.finding import Finding
from infra.ledger import LIVE, Entry, JobState
from infra.processes import JobId, is_process
from infra.resources import Resources, cores
from xclr.artifact import Usage
from xclr.errors import NodeError, RecipeError
from xclr.job import FAILURE, RESULT, STOPPED, Failure
from xclr.stage import Stage
from xclr.store import Store

EXECUTORS: dict[str, str] = {  # loaded when first asked for
    "inline": "infra.executors.inline:Inline",
    "local": "infra.executors.local:Local",
    "slurm": "infra.executors.slurm:Slurm",
}
GROUP = "xclr.executors"
STAGE = "stage.json"
FAULTS = {
    MemoryError.__name__: JobState.OUT_OF_MEMORY,
    NodeError.__name__: JobState.NODE_FAULT,
}  # what failed a job by the name of its error
ARRAYS = "arrays"  # in HOME: folders of arrays whose elements make an output each


class Attempt(NamedTuple):
    """A claimed attempt at a stage, and the shards that an array would have an element for."""

    entry: Entry
    stage: Stage
    out: Path
    pieces: tuple[int, ...] = ()

    @property
    def stage_json(self) -> Path:
        """The stage as a job reads it."""
        return self.out / STAGE


class Submission(NamedTuple):
    """What is submitted together: one attempt, or several under one name as elements of one array."""

    attempts: tuple[Attempt, ...]
    resources: Resources
    code: Callable[[], Path]  # the frozen packages, which are copied at the first call
    comment: str
    timeouts: int  # after which a job is requeued no more


class Sight(NamedTuple):
    """A job as its scheduler shows it to people; empty or None is what it does not say."""

    node: str = ""
    elapsed_s: float | None = None
    remaining_s: float | None = None  # of its time limit
    array: str | None = None  # how many elements ended, run and wait
    reason: str = ""  # why it waits
    starts: datetime | None = None  # about when it will
    remedy: str = ""  # where it waits for a person to do something


class Executor(ABC):
    """A backend: how a job is submitted, observed, found again, ended, and named for people."""

    name: ClassVar[str]  # in cluster files, and before the slash of its ids
    title: ClassVar[str]  # for people
    is_here: ClassVar[bool] = False  # its jobs take cores of this machine
    has_arrays: ClassVar[bool] = False  # pieces of a stage, and cells of a sweep, are elements of arrays

    @abstractmethod
    def submit(self, submission: Submission) -> Iterator[Entry]:
        """Submit jobs; yields the attempts with what is to be written down of them, each time there is more.

        An element has the id of its array, `_` and its number. Raises JobError when they are refused.
        """

    @abstractmethod
    def state(self, entry: Entry, out: Path) -> JobState:
        """How an attempt's job stands."""

    @abstractmethod
    def cancel(self, entries: Sequence[Entry]) -> bool:
        """End the jobs of attempts that share a name; False when that is not possible from here, now."""

    def check_here(self) -> None:  # noqa: B027 - most can
        """Raise JobError where nothing can be submitted from this machine, which shows at once."""

    def find(self, entry: Entry, out: Path) -> Entry:
        """An attempt with the job that bears its name, if there is one; raises OSError when nobody can tell."""
        return entry

    def goes_on(self, entry: Entry, out: Path) -> bool:
        """True while a job that was ended is still there."""
        return self.state(entry, out) in LIVE

    def failed_nodes(self, entry: Entry, out: Path) -> tuple[str, ...]:
        """The nodes at whose fault an attempt ended, as far as is known."""
        failure = failure_of(out)
        return (failure.node,) if failure is not None and failure.error == NodeError.__name__ and failure.node else ()

    def look(self, entry: Entry) -> Sight | None:
        """A job as it is shown; None when it is not."""
        return None

    def draw_name(self, what: str) -> str:
        """A name for jobs that is found nowhere else; none where jobs are not found by name."""
        slug = re.sub(r"[^a-z0-9.]+", "-", what.lower()).strip("-")
        return f"{self.name}/xclr-{slug}-{secrets.token_hex(4)}"

    def ids(self, job: JobId) -> tuple[str, ...]:
        """The scheduler's own ids behind one of ours."""
        return tuple(job.partition("/")[2].split("+"))

    def call(self, job: JobId) -> str:
        """What people call a job, such as Slurm job 4711."""
        return f"{self.title} job {' + '.join(self.ids(job))}"

    def log(self, entry: Entry, asked: str, rank: int) -> Path:
        """The log of a rank of the job that was `asked` for, perhaps by an element's id."""
        return Path(str(entry.log))

    def used(self, ids: Sequence[str]) -> Usage | None:
        """What jobs used, by the scheduler's own ids; None where nobody counts."""
        return None

    def threads(self, resources: Resources) -> int:
        """Threads each rank computes with; untold, ranks share this machine, and have one core each elsewhere."""
        shared = max(1, cores() // resources.ranks) if self.is_here else 1
        return resources.threads or resources.cpus or shared

    def cores(self, resources: Resources) -> int:
        """Cores of this machine that a job takes."""
        return resources.ranks * self.threads(resources) if self.is_here else 0

    @property
    def answers(self) -> bool:
        """True unless the scheduler did not, the last time."""
        return True

    @property
    def array_size(self) -> int:
        """Elements of an array at most."""
        return 1

    def examine(self, kinds: Mapping[str, Resources], home: Path) -> Iterator[Finding]:
        """Whether the jobs of stage kinds would be taken."""
        yield from ()


@functools.cache
def executor_named(name: str) -> Executor:
    """The backend of that name, one a process; raises RecipeError when there is none."""
    place = EXECUTORS.get(name) or _others().get(name)
    if place is None:
        names = executor_names()
        near = difflib.get_close_matches(name, names, n=1)
        said = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
        raise RecipeError(f"no executor {name!r}: {said}", "see `executor` in the cluster file")
    module, _, attribute = place.partition(":")
    executor: Executor = getattr(import_module(module), attribute)()
    return executor


def executor_names() -> list[str]:
    """The names that a cluster file may use."""
    return sorted({*EXECUTORS, *_others()})


def executor_of(job: str) -> Executor:
    """The backend of a job's id, or of the name that was drawn for it."""
    if not job or is_process(job):
        return executor_named("local")
    prefix, slash, _ = job.partition("/")
    return executor_named(prefix if slash else "slurm")  # its names have no prefix


def _others() -> dict[str, str]:
    return {each.name: each.value for each in entry_points(group=GROUP)}


def folder_of(out: Path, name: str, element: int | None) -> Path:
    """Where the script and logs of a job are: beside the output, or HOME/arrays for several outputs."""
    return out / "jobs" / name if element is None else Store.of(out).home / ARRAYS / name


def outcome_of(out: Path) -> JobState | None:
    """What a job left beside its output."""
    states = {RESULT: JobState.COMPLETED, FAILURE: JobState.FAILED, STOPPED: JobState.STOPPED}
    state = next((state for name, state in states.items() if (out / name).exists()), None)
    return FAULTS.get(failure.error, state) if state is JobState.FAILED and (failure := failure_of(out)) else state


def failure_of(out: Path) -> Failure | None:
    """What a job said of why it could not finish, if anything."""
    with suppress(OSError, ValueError):
        return Failure.model_validate_json((out / FAILURE).read_text())
    return None


def rank_log(first: Path, rank: int, element: str = "") -> Path:
    """submitit's log of a rank, and of another element where there are some; `first` is that of rank 0."""
    job, *rest = first.name.rsplit("_", 2)
    if len(rest) < 2:
        return first
    return first.with_name(f"{element if element and '_' in job else job}_{rank}_{rest[1]}")
