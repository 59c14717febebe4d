"""Submission to Slurm by submitit's executor: what the batch script says, and how a crash leaves no job astray."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from submitit.core.utils import DelayedSubmission
from submitit.slurm.slurm import SlurmExecutor, SlurmJob

from infra.processes import JobId
from infra.resources import Resources
from infra.slurm.queue import ELSEWHERE, PREFIX, Queue
from infra.stagejob import ArrayJob, StageJob
from xclr.errors import JobError
from xclr.ownership import guarded
from xclr.printable import in_one_line

KEEP = re.compile(  # of the submitter's environment; whatever else a job needs is a setup line of the cluster file
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|LD_LIBRARY_PATH|VIRTUAL_ENV|CONDA_PREFIX|CUDA_HOME|SLURM_CONF|MUNGE_SOCKET"
    r"|XCLR_HOME|XCLR_STATE|HF_HOME|HF_HUB_OFFLINE|HF_HUB_CACHE|SENTENCE_TRANSFORMERS_HOME|TORCH_HOME|NLTK_DATA"
    r"|OMP_\w+|MKL_\w+|NCCL_\w+|GLOO_\w+"
)
PASSING = ("Socket timed out", "Unable to contact", "try again", "temporarily", "Connection refused", "Zero Bytes")
TRIES, PAUSE_S = 4, 5.0


class Order(NamedTuple):
    """What is to be submitted."""

    jobs: tuple[StageJob, ...]  # one, or those of an array's elements
    folder: Path  # of the batch script, the pickle and the logs
    name: str  # of the job, found nowhere else
    comment: str
    code: Path  # the frozen packages
    timeouts: int  # after which submitit requeues no more
    home: Path
    array: bool = False


class FrozenExecutor(SlurmExecutor):  # type: ignore[misc]
    """submitit's Slurm executor, whose jobs run frozen code and find their pickle wherever the submitter dies.

    submitit gives a pickle its job's name after sbatch has answered. A submitter that is killed between the two leaves
    a job that waits for it in vain. Here the batch script itself copies the pickle, which was written before.
    """

    def __init__(self, order: Order, timeouts: int, python: str | None = None) -> None:
        super().__init__(order.folder, max_num_timeout=timeouts, python=python)
        self.order = order

    def _submit_command(self, command: str) -> SlurmJob[Any]:
        script = self.folder / f"{self.order.name}.sh"
        with guarded():
            script.write_text(self._make_submission_file_text(command, self.order.name))
        answer = _sbatch(script)
        return SlurmJob(folder=self.folder, job_id=answer.partition(";")[0], tasks=list(range(self._num_tasks())))


def submit(order: Order, resources: Resources, queue: Queue) -> Iterator[JobId]:
    """Submit a job, or arrays of as many elements as Slurm takes; yields the id after each, the last one is whole.

    Raises JobError when Slurm refuses.
    """
    ids: list[str] = []
    size = queue.array_size if order.array else 1
    for start in range(0, len(order.jobs), size):
        piece = order._replace(jobs=order.jobs[start : start + size])
        with guarded():
            executor = executor_for(piece, resources, start)
            _write_pickle(executor, _pickle(piece, start), resources)
        job = executor._submit_command(executor._submitit_command_str)
        ids.append(job.job_id)
        queue.forget()
        yield PREFIX + "+".join(ids)


def executor_for(order: Order, resources: Resources, start: int = 0) -> FrozenExecutor:
    """submitit's executor with everything that the batch script says; the order begins with job number `start`."""
    order.folder.mkdir(parents=True, exist_ok=True)
    executor = FrozenExecutor(order, order.timeouts, python_in(resources, order.home))
    executor.update_parameters(**_parameters(order, resources, _pickle(order, start)))
    if order.array:
        executor.parameters["map_count"] = len(order.jobs)
    return executor


def test_only(order: Order, resources: Resources) -> str:
    """What `sbatch --test-only` says of the job that would be submitted; raises JobError when Slurm would refuse it."""
    executor = executor_for(order, resources)
    script = executor.folder / "test.sh"
    script.write_text(executor._make_submission_file_text(executor._submitit_command_str, order.name))
    return _sbatch(script, "--test-only")


def clean_environment() -> dict[str, str]:
    """What a job inherits: where programs and files are, and nothing that may be secret or a surrounding job's."""
    return {name: value for name, value in os.environ.items() if KEEP.fullmatch(name)}


def _parameters(order: Order, resources: Resources, pickle: Path) -> dict[str, Any]:
    optional = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "cpus_per_task": resources.cpus or resources.threads,
        "gpus_per_node": resources.gpus // resources.nodes or None,
        "mem": f"{round(resources.memory_gb * 1024)}M" if resources.memory_gb else None,
    }
    return {name: value for name, value in optional.items() if value is not None} | {
        "job_name": order.name,
        "comment": in_one_line(order.comment),  # a line of its own would be one of the script
        "time": resources.timeout_min,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks // resources.nodes,
        "signal_delay_s": min(resources.warn_s, 60 * resources.timeout_min - 10),
        "array_parallelism": resources.parallel,
        "stderr_to_stdout": True,
        "wckey": None,
        # a rank that is alone would wait for the others in vain
        "srun_args": ["--kill-on-bad-exit=1", *_pyxis(resources, order.home)],
        "setup": [*resources.setup, *_arrival(order, pickle)],
        "additional_parameters": {
            "chdir": str(order.code),
            "requeue": True,
            **({} if resources.nice is None else {"nice": resources.nice}),
            **resources.sbatch,
        },
    }


def python_in(resources: Resources, home: Path) -> str | None:
    """How Python is called where a job runs in a container; None for this process's own."""
    if resources.container is None:
        return None
    if resources.container.runtime == "pyxis":  # srun does the rest
        return "python3"
    gpus = ["--nv"] if resources.gpus else []
    binds = ",".join([str(home), *resources.container.mounts])
    return shlex.join(["apptainer", "exec", *gpus, "--bind", binds, resources.container.image, "python3"])


def _pyxis(resources: Resources, home: Path) -> Iterator[str]:
    """Options of srun that pyxis takes."""
    if resources.container is not None and resources.container.runtime == "pyxis":
        yield f"--container-image={resources.container.image}"
        yield "--container-mounts=" + ",".join(f"{each}:{each}" for each in [str(home), *resources.container.mounts])


def _arrival(order: Order, pickle: Path) -> Iterator[str]:
    """Lines of the batch script: the frozen code first on the path, and the pickle where submitit looks for it."""
    job = "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}" if order.array else "${SLURM_JOB_ID}"
    yield from _trust([pickle, order.code, *(each for each in sorted(order.code.glob("*")) if each.is_dir())])
    there = f'{shlex.quote(str(order.folder))}/"{job}"_submitted.pkl'
    yield f"export PYTHONPATH={shlex.quote(str(order.code))}"
    yield f"[ -e {there} ] || cp {shlex.quote(str(pickle))} {there}"


def _trust(paths: Sequence[Path]) -> Iterator[str]:
    """Lines that end the job where somebody else could have written what it is about to run."""
    names = " ".join(shlex.quote(str(each)) for each in paths)
    said = "belongs to another user, or others may write it: what it holds is not run"
    yield f"for each in {names}; do"
    yield '  if [ ! -O "$each" ] || [ -n "$(find "$each" -maxdepth 0 -perm /022)" ]; then'
    yield f'    echo "$each {said}" >&2; exit 1'
    yield "  fi"
    yield "done"


def _write_pickle(executor: FrozenExecutor, path: Path, resources: Resources) -> None:
    order = executor.order
    job = DelayedSubmission(ArrayJob(order.jobs) if order.array else order.jobs[0])
    job.set_timeout(resources.timeout_min, executor.max_num_timeout)
    job.dump(path)


def _pickle(order: Order, start: int) -> Path:
    """Where the pickle is written before there is a job; each array of several has its own."""
    return order.folder / f"job{f'-from-{start}' if order.array else ''}.pkl"


def _sbatch(script: Path, *flags: str) -> str:
    """Run sbatch; a controller that does not answer is asked again. Raises JobError with what it says."""
    said = ""
    for attempt in range(TRIES):
        try:
            done = subprocess.run(
                ["sbatch", "--parsable", *flags, str(script)],
                capture_output=True, text=True, check=False, env=clean_environment(), timeout=120,
            )  # fmt: skip
        except FileNotFoundError:
            raise JobError("no sbatch on this machine", ELSEWHERE) from None
        if done.returncode == 0:
            return done.stdout.strip() or done.stderr.strip()
        said = done.stderr.strip()
        if found := Queue().named(script.stem) if "timed out" in said else []:  # it was taken, only the answer was lost
            return found[-1]
        if not any(word in said for word in PASSING) or attempt == TRIES - 1:
            break
        time.sleep(PAUSE_S)
    remedy = "see the cluster file; xclr doctor --cluster FILE asks Slurm about every stage kind in it"
    raise JobError(f"sbatch: {said.removeprefix('sbatch: ')}", remedy)
