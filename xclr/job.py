"""`python -m xclr.job STAGE.json OUT`: the one entry point of every job, on a laptop or a compute node.

The outcome is a file beside the output: result.json when the stage is done, failure.json when it cannot be,
stopped.json when it was asked to stop and can go on.
Ranks, rendezvous and threads come from RANK, WORLD_SIZE, XCLR_RENDEZVOUS and XCLR_THREADS.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from xclr import shards
from xclr.artifact import Cost, FileEntry
from xclr.disk import fault_of
from xclr.environment import node_name, setting
from xclr.errors import BusyError, NodeError, Stopped, XclrError
from xclr.owncode import Code, own_code
from xclr.pipeline import KINDS
from xclr.stage import Stage
from xclr.store import Store, describe, only_writer, write_atomically

RESULT, FAILURE, STOPPED, PROGRESS = "result.json", "failure.json", "stopped.json", "progress.json"
OUTCOMES = (RESULT, FAILURE, STOPPED)
OTHERS_WAIT_S = 300  # for rank 0, which is saving or handing a signal on
LINGER_S = 3  # after SIGTERM, for the SIGUSR2 that a preemption may send with it
PEER_LOST = ("reset by peer", "closed by peer", "Broken pipe", "remote process exited")  # of gloo and NCCL
FAULTY = re.compile(  # what CUDA says of a GPU that is out of order
    r"uncorrectable (?:ECC|NVLink)|fallen off the bus|device\(s\) is/are busy or unavailable|GPU is lost"
    r"|CUDA error: (?:hardware|an illegal instruction|unknown error)",
    re.IGNORECASE,
)
FIRST_SPEAKS_S = 10  # how long another rank that failed waits for rank 0, which knows more


class Result(BaseModel):
    """What a finished job says of its output."""

    model_config = ConfigDict(frozen=True)
    files: tuple[FileEntry, ...]
    stats: dict[str, Any]
    cost: Cost
    made_by: Code | None = None


class Failure(BaseModel):
    """Why a job could not finish; `remedy` is set where the user can mend it."""

    model_config = ConfigDict(frozen=True)
    error: str
    message: str
    remedy: str
    node: str = ""


class ProgressFile:
    """Writes {done, total, ok, per_s, whole} to a file, at most a few times a second.

    `ok` counts what came to something, where that is told; `per_s` is the rate since the first report; `whole` is the
    number of items of a stage of which this is a shard.
    """

    def __init__(self, path: Path, whole: int | None = None, interval_s: float = 0.25) -> None:
        self.path, self.whole, self.interval_s, self.last = path, whole, interval_s, 0.0
        self.first: tuple[float, int] | None = None

    def __call__(self, done: int, total: int, ok: int | None = None, /) -> None:
        """Take note of items done and in all."""
        now = time.monotonic()
        began, already = self.first = self.first or (now, done)
        if done >= total or now - self.last >= self.interval_s:
            self.last = now
            per_s = round((done - already) / (now - began), 3) if now > began else None
            seen = {"done": done, "total": total, "ok": ok, "per_s": per_s, "whole": self.whole}
            draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            draft.write_text(json.dumps(seen))
            draft.replace(self.path)


def run_stage(stage: Stage, out: Path, threads: int = 0) -> None:
    """Run a stage in this process as its only writer and leave result.json; raises what the runner raises.

    `threads` is what it may compute with beside others in the process; 0 where the process is the stage's alone.
    """
    with only_writer(out, wait=False) as mine:
        if not mine:
            raise BusyError(f"{out} is being written by another process", "wait for it; see xclr status")
        for stale in (*OUTCOMES, PROGRESS):
            (out / stale).unlink(missing_ok=True)
        clock = time.thread_time if threads == 1 else _cpu_s  # whose process has others beside it
        started, used = time.perf_counter(), clock()
        check_inputs(stage)
        run = _runner(stage)
        if threads:
            set_threads(threads)
        produced = run(stage, out, ProgressFile(out / PROGRESS))
        entries = tuple(describe(out, name) for name in produced.files)
        wall_s = time.perf_counter() - started
        cpu_s = clock() - used
        if threads:  # an orchestrator's jobs end beside a stage in it
            cpu_s = min(cpu_s, wall_s * threads)
        ranks = int(os.environ.get("WORLD_SIZE", "1"))
        cost = Cost(cpu_s=cpu_s * ranks, gpu_s=wall_s * ranks if _on_gpu() else 0.0, wall_s=wall_s)
        result = Result(files=entries, stats=produced.stats, cost=cost, made_by=own_code())
        write_atomically(out / RESULT, result.model_dump_json())
        for folder in produced.scratch:
            shutil.rmtree(out / folder, ignore_errors=True)


def check_inputs(stage: Stage) -> None:
    """Raise StoreError unless the stage's inputs hold what was committed; each rank hashes its share of the files."""
    own = slice(int(os.environ.get("RANK", "0")), None, int(os.environ.get("WORLD_SIZE", "1")))
    for artifact in stage.inputs.values():
        Store.of(artifact.path).check(artifact, own)


def run_shard(stage: Stage, out: Path, shard: int) -> None:
    """Make one shard of a stage; whoever makes the last one also puts all together."""
    folder, pieces = shards.folder(out, shard), stage.pieces(Store.of(out))
    if not folder.is_dir():
        check_inputs(stage)
        folder.parent.mkdir(exist_ok=True)
        progress = ProgressFile(folder.with_name(f"{folder.name}.{PROGRESS}"), pieces.items)
        importlib.import_module(stage.kind.run).run_shard(stage, out, shard, progress)
    if not shards.missing(out, pieces.shards) and not (out / RESULT).exists():
        with suppress(BusyError):  # another element was last as well
            run_stage(stage, out)


def main(stage_json: Path, out: Path, shard: int | None = None) -> int:
    """Run a stage, or one shard of it, as one rank of a job.

    The outcome is a file, the exit code 0, 1, 3 (another process writes) or 4 (stopped).
    """
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    stage = Stage.from_json(stage_json.read_text(), KINDS)
    try:
        run = _runner(stage)
        set_threads(int(setting("XCLR_THREADS") or 0))
        if world > 1 or "torch" in sys.modules:
            _prepare_torch(rank, world, stage)
        if shard is not None:
            run_shard(stage, out, shard)
        elif rank == 0:
            run_stage(stage, out)
        else:
            check_inputs(stage)
            run(stage, out, lambda done, total: None)
        _part(world)
    except BusyError as error:  # the other writer's outcome counts, so this one leaves none
        print(error, file=sys.stderr)
        return 3
    except Stopped as stopped:  # what runs next goes on from here
        print(stopped, file=sys.stderr)
        _hand_on(stopped, rank, out)
        return 4
    except Exception as error:  # noqa: BLE001 - the process boundary: whatever it was is written down
        traceback.print_exc()
        _report(error, rank, out)
        return 1
    return 0


def _report(error: Exception, rank: int, out: Path) -> None:
    """Leave failure.json; another rank's counts when rank 0, which may name the culprit, says nothing in time.

    A rank whose peer was killed has nothing to report: the job ended without a word, and may be tried again.
    """
    if any(words in f"{error} {error.__cause__}" for words in PEER_LOST):
        return
    if rank:
        _wait_for(FIRST_SPEAKS_S, out / FAILURE)
    if rank == 0 or not (out / FAILURE).exists():
        record_failure(out, error)


def record_failure(out: Path, error: BaseException) -> None:
    """Leave failure.json; where a disk took nothing more, that is why."""
    error = error if isinstance(error, XclrError) else fault_of(error, out) or error
    known = isinstance(error, XclrError)
    message, remedy = (error.message, error.remedy) if isinstance(error, XclrError) else (str(error), "")
    text = f"{'' if known else type(error).__name__ + ': '}{message}"
    name = (NodeError if FAULTY.search(text) and not known else type(error)).__name__
    failure = Failure(error=name, message=text, remedy=remedy, node=node_name())
    write_atomically(out / FAILURE, failure.model_dump_json())


def _hand_on(stopped: Stopped, rank: int, out: Path) -> None:
    """Give rank 0's signal to the handler that was there before; submitit's requeues the job on SIGUSR2 and ends here.

    SIGTERM alone leaves stopped.json. The other ranks wait for rank 0, because Slurm ends the step with the first that
    fails.
    """
    if rank:
        _wait_for(OTHERS_WAIT_S, out / STOPPED, out / FAILURE)
        return
    if stopped.number is not None and callable(handler := signal.getsignal(stopped.number)):
        handler(stopped.number, None)
        time.sleep(LINGER_S)  # SIGUSR2 may still come, and its handler does not return
    write_atomically(out / STOPPED, json.dumps({"why": str(stopped)}))


def _wait_for(most_s: float, *paths: Path) -> None:
    """Until one of them is there."""
    began = time.monotonic()
    while not any(each.exists() for each in paths) and time.monotonic() - began < most_s:
        time.sleep(0.2)


def _runner(stage: Stage) -> Any:  # noqa: ANN401
    return importlib.import_module(stage.kind.run).run


def set_threads(number: int) -> None:
    """Let this thread compute with so many, if any, where its runner's module imported torch since it has a use for it.

    Beside another stage OpenMP's threads wait for each other in loops: a head took 1.9 times the CPU time on 2 of them.
    """
    if number and (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(number)


def _prepare_torch(rank: int, world: int, stage: Stage) -> None:
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if world > 1:
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        patience = stage.kind.ranks(stage.config) if stage.kind.ranks else 600
        dist.init_process_group(
            backend,
            init_method=os.environ["XCLR_RENDEZVOUS"],
            rank=rank,
            world_size=world,
            timeout=timedelta(seconds=2 * patience),  # later than the ranks' own meeting, which names who is missing
        )


def _part(world: int) -> None:
    """Leave the group together: a rank whose peers are gone aborts."""
    if world > 1:
        import torch.distributed as dist

        dist.barrier()
        dist.destroy_process_group()


def _on_gpu() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_available())


def _cpu_s() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
