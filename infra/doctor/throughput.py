"""How many pictures a second do training steps take here? `python -m infra.doctor.throughput WORLD DEVICE SECONDS`.

The steps are the trainer's own, of SimCLR, on pictures made up in memory: ResNet-50 at 224 pixels and 128 pictures a
rank on cuda, a small network on cpu. Prints Throughput as JSON.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pydantic import BaseModel, ConfigDict

from xclr.recipe import SimCLRConfig, TrainConfig
from xclr.training import Batch, Learner, Materials, Pretrainer, Rank, build_backbone, build_objective, precision_of
from xclr.training.model import memory_format

RESULT = "throughput.json"
WARMUP_STEPS = 5
ON_CPU = TrainConfig(width=4, image_size=16, projector_hidden=16, projector_out=8, batch_size=16)


class Throughput(BaseModel):
    """Pictures a second over all ranks, each picture in two views; what was trained, and how much memory it took."""

    model_config = ConfigDict(frozen=True)
    world: int
    device: str
    backbone: str
    precision: str
    steps: int
    images_per_s: float
    memory_gb: float


class Meeting(NamedTuple):
    """Where the processes meet, and how long they train."""

    folder: str
    world: int
    device: str
    seconds: float


def on_cuda(world: int) -> TrainConfig:
    """The paper's network at 128 pictures a GPU, in bfloat16 where the GPU has it."""
    half = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    return TrainConfig(
        backbone="resnet50", image_size=224, projector_hidden=2048, batch_size=128 * world, optimizer="lars",
        precision=half,
    )  # fmt: skip


def measure(world: int, device: str, seconds: float) -> Throughput:
    """Train on `world` processes of this machine for some seconds after a few steps to warm up."""
    torch.device(device)
    with tempfile.TemporaryDirectory() as folder:
        meeting = Meeting(folder, world, device, seconds)
        mp.start_processes(_on_rank, (meeting,), nprocs=world, start_method="spawn")  # type: ignore[attr-defined, no-untyped-call]
        return Throughput.model_validate_json((Path(folder) / RESULT).read_text())


def _on_rank(rank: int, meeting: Meeting) -> None:
    cuda = meeting.device == "cuda"
    os.environ["LOCAL_RANK"] = str(rank)
    if cuda:
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    if meeting.world > 1:
        address = f"file://{meeting.folder}/meeting"
        dist.init_process_group("nccl" if cuda else "gloo", address, rank=rank, world_size=meeting.world)
    _train(meeting, on_cuda(meeting.world) if cuda else ON_CPU)
    if meeting.world > 1:
        dist.barrier()
        dist.destroy_process_group()


def _train(meeting: Meeting, config: TrainConfig) -> None:
    """Rank 0 leaves what was measured."""
    backbone, features = build_backbone(config)
    objective = build_objective(SimCLRConfig(), Materials({}, features, config))
    assert objective is not None
    place = Rank.here()
    learner = Learner.of(Pretrainer(backbone, objective, precision_of(config)), config, place)
    steps, elapsed_s = _steps(learner, _batch(config, place), meeting.seconds)
    memory_gb = torch.cuda.max_memory_allocated() / 1e9 if place.device.type == "cuda" else 0.0
    if place.rank == 0:
        found = Throughput(
            world=meeting.world, device=meeting.device, backbone=config.backbone, precision=config.precision,
            steps=steps, images_per_s=steps * config.batch_size / elapsed_s, memory_gb=memory_gb,
        )  # fmt: skip
        (Path(meeting.folder) / RESULT).write_text(found.model_dump_json())


def _batch(config: TrainConfig, place: Rank) -> Batch:
    share, side = config.batch_size // place.world, config.image_size
    views = torch.randn(2 * share, 3, side, side, device=place.device)
    return Batch(torch.arange(share, device=place.device), views.contiguous(memory_format=memory_format(config)))


def _steps(learner: Learner, batch: Batch, seconds: float) -> tuple[int, float]:
    """How many steps all ranks took, and in how many seconds; rank 0's clock says when to end."""
    for step in range(WARMUP_STEPS):
        learner.step(batch, 1e-3, step)
    started, steps = time.perf_counter(), 0
    while True:
        _, norm = learner.step(batch, 1e-3, steps)
        norm.item()  # so that the step is over
        steps += 1
        elapsed_s = time.perf_counter() - started
        over = torch.tensor([float(elapsed_s >= seconds)], device=batch.rows.device)
        if learner.place.world > 1:
            dist.broadcast(over, 0)
        if over > 0:
            return steps, elapsed_s


if __name__ == "__main__":
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    print(measure(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])).model_dump_json())
