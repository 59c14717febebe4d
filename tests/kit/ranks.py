"""Processes that are ranks, forked from a server that has imported once what all of them need."""

import os
import signal
import sys
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.kit.polling import until
from xclr import job
from xclr.stage import Stage

FORKS = mp.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["pandas", "torch.testing", "torch._dynamo", "xclr.training.pretrain", "xclr.evaluation.finetune", "tests.kit.home"]
)
PATIENCE_S = 120


def run_on_ranks(function, world, folder):
    """[function(rank, world) of each rank]; results are (nested dicts of) tensors, the rendezvous is a file."""
    mp.start_processes(_on_rank, (function, world, str(folder)), nprocs=world, start_method="forkserver")
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(world)]


def shard(rows, rank, world, *, views=1):
    """This rank's part of rows that stand view by view: of every view its samples, in order."""
    by_view = rows.unflatten(0, (views, world, -1))
    return by_view[:, rank].flatten(0, 1)


def _on_rank(rank, function, world, folder):
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    rendezvous = f"file://{folder}/rendezvous"
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, rendezvous, rank=rank, world_size=world, timeout=timedelta(seconds=PATIENCE_S))
    torch.save(function(rank, world), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


class Pause(NamedTuple):
    """Where a rank stops its own process, as SIGSTOP does: before a call of a method, counted from 1."""

    rank: int
    owner: type
    method: str
    call: int

    def set(self) -> None:
        """From now on, in this process."""
        method, calls = getattr(self.owner, self.method), count(1)

        def stop_or_call(*arguments, **options):
            if next(calls) == self.call:
                signal.raise_signal(signal.SIGSTOP)
            return method(*arguments, **options)

        setattr(self.owner, self.method, stop_or_call)


def after_step(step: int) -> Pause:
    """Rank 0 stops when a step is done and logged."""
    return Pause(0, job.ProgressFile, "__call__", step)


class Ranks:
    """A job's ranks, each a process with a session of its own; what they say is in <out>/rank<number>.log."""

    def __init__(self, stage: Stage, out: Path, world: int, *, attempt: int = 0, pause: Pause | None = None) -> None:
        out.mkdir(exist_ok=True)
        (out / "stage.json").write_text(stage.to_json())
        self.pause = pause
        self.processes = [FORKS.Process(target=_job, args=(out, rank, world, attempt, pause)) for rank in range(world)]
        for each in self.processes:
            each.start()

    def code(self, rank: int) -> int | None:
        """The exit code of a rank, once it has ended."""
        self.processes[rank].join(PATIENCE_S)
        return self.processes[rank].exitcode

    def codes(self) -> list[int | None]:
        """The exit codes of all."""
        return [self.code(rank) for rank in range(len(self.processes))]

    def until_paused(self) -> None:
        """Wait until the rank that was to stop did."""
        process = psutil.Process(self.processes[self.pause.rank].pid)
        until(lambda: process.status() == psutil.STATUS_STOPPED)

    def send(self, rank: int, number: signal.Signals) -> None:
        """A signal to one rank."""
        os.kill(self.processes[rank].pid, number)

    def kill(self) -> None:
        """Kill all ranks and what they started, as Slurm does."""
        for each in self.processes:
            if each.is_alive():
                os.killpg(each.pid, signal.SIGKILL)
        self.codes()


def _job(out: Path, rank: int, world: int, attempt: int, pause: Pause | None) -> None:
    os.setsid()
    log = os.open(out / f"rank{rank}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank), "XCLR_THREADS": "1",
        "XCLR_RENDEZVOUS": f"file://{out}/.meeting-{attempt}", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    if pause and pause.rank == rank:
        pause.set()
    sys.exit(job.main(out / "stage.json", out))
