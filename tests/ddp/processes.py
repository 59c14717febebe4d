"""Runs a function on several gloo processes of this machine and brings their results back."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_on_ranks(function, world, folder):
    """[function(rank, world) of each rank]; results are (nested dicts of) tensors, the rendezvous is a file."""
    mp.get_context("forkserver").set_forkserver_preload(["torch.testing"])  # torch is imported once, not per process
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
    dist.init_process_group(backend, rendezvous, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    torch.save(function(rank, world), f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()
