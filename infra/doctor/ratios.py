"""What this machine's device makes of xclr's work, beside a plain way to do the same, in turn and in one process.

`python -m infra.doctor.ratios DEVICE [SECTION ...]` prints one JSON line a figure; without names the quick sections.
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.nn import functional as F

from infra.doctor.throughput import ON_CPU, on_cuda
from xclr.errors import DataError
from xclr.graph import SentenceEncoder, self_join
from xclr.graph.textmodel import locate
from xclr.images import EncodedPictures
from xclr.objective import xclr_loss_from_embeddings
from xclr.recipe import EmbedConfig, SimCLRConfig, TargetGraph, TrainConfig, TrainedConfig, XCLRConfig
from xclr.training import (
    Batch,
    Learner,
    Materials,
    Pretrainer,
    Rank,
    StreamedBatches,
    build_backbone,
    build_objective,
    precision_of,
)
from xclr.training.device_cut import lacking
from xclr.training.model import memory_format

ROUNDS, WARMUP = 9, 4
CAPTIONS = 20_000  # rows of made-up vectors
TAU = 0.1
Work = Callable[[], object]
WORDS = ("a", "the", "two", "red", "small", "dog", "cat", "horse", "boat", "tree", "man", "street", "house", "on", "in")


class Ratio(BaseModel):
    """A figure of ours and of a peer's, lower is better; `bar` is the largest ratio that is good enough."""

    model_config = ConfigDict(frozen=True)
    name: str
    ours: float
    peer: float
    bar: float
    unit: str = "ms"
    remedy: str = ""

    @property
    def ratio(self) -> float:
        """ours / peer."""
        return self.ours / self.peer

    @property
    def met(self) -> bool:
        """Whether it is good enough."""
        return self.ratio <= self.bar


class Sizes(NamedTuple):
    """How much of each thing is measured."""

    train: TrainConfig
    losses: tuple[int, ...]  # rows
    graph: tuple[int, int]  # rows with a cut-off and without
    width: int  # of vectors
    captions: int
    pictures: int
    larger: tuple[int, ...]  # batches by micro_batch


def sizes_of(device: torch.device) -> Sizes:
    """The paper's on a GPU; on a CPU what shows that it runs."""
    if device.type == "cuda":
        larger = (1024, 4096)
        return Sizes(on_cuda(1), (8192, 32_768), (400_000, 100_000), 768, 40_000, 4096, larger)
    return Sizes(ON_CPU, (256,), (1000, 500), 64, 64, 64, (32,))


def in_turn(works: Mapping[str, Work], device: torch.device, rounds: int = ROUNDS) -> dict[str, float]:
    """Median milliseconds of each of some works that take turns, after some rounds to warm up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(WARMUP + rounds):
        for name, work in works.items():
            wait(device)
            started = time.perf_counter()
            work()
            wait(device)
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(each[WARMUP:]) for name, each in times.items()}


def wait(device: torch.device) -> None:
    """Until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shown(config: TrainConfig, device: torch.device) -> Tensor:
    """Two views [2b, 3, s, s] of a batch of pictures that are made up."""
    side = config.image_size
    views = torch.randn(2 * config.batch_size, 3, side, side, device=device)
    return views.contiguous(memory_format=memory_format(config))


def plain_step(config: TrainConfig, device: torch.device) -> Work:
    """A step of SimCLR as a user would write it in an afternoon: the same network, views and precision, fused SGD."""
    backbone, features = build_backbone(config)
    hidden, out = config.projector_hidden, config.projector_out
    head = nn.Sequential(
        nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(True), nn.Linear(hidden, out)
    )
    model = nn.Sequential(backbone, head).to(device).train()
    if config.compile:
        model.compile()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-6, fused=True)
    views, n, kind = shown(config, device), 2 * config.batch_size, precision_of(config)
    own = torch.eye(n, dtype=torch.bool, device=device)
    other = (torch.arange(n, device=device) + n // 2) % n

    def step() -> None:
        with torch.autocast(device.type, kind, enabled=kind != torch.float32):
            z = model(views)
        z = F.normalize(z.float(), dim=1)
        loss = F.cross_entropy((z @ z.T / TAU).masked_fill(own, -torch.inf), other)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def learner_of(objective: TrainedConfig, config: TrainConfig, device: torch.device) -> Learner:
    """The trainer's own, on captions whose vectors are made up."""
    backbone, features = build_backbone(config)
    with tempfile.TemporaryDirectory() as folder:
        vectors = F.normalize(torch.randn(CAPTIONS, 768), dim=1)
        np.save(Path(folder) / "vectors.npy", vectors.half().numpy())
        made = build_objective(objective, Materials({"embeddings": Path(folder)}, features, config, device))
    assert made is not None
    return Learner.of(Pretrainer(backbone, made, precision_of(config)), config, Rank(0, 1, device))


def our_step(objective: TrainedConfig, config: TrainConfig, device: torch.device) -> Work:
    """A step of the trainer's on views and captions' vectors that are there already."""
    learner, rows = learner_of(objective, config, device), torch.randperm(CAPTIONS)[: config.batch_size]
    batch = Batch(rows, shown(config, device), learner.model.look(rows)).to(device)
    steps = iter(range(10**9))
    return lambda: learner.step(batch, 1e-3, next(steps))


XCLR = XCLRConfig(graph=TargetGraph())


def steps(device: torch.device) -> Iterator[Ratio]:
    """Eager steps at the paper's share of a GPU."""
    config = sizes_of(device).train
    works = {
        "plain": plain_step(config, device),
        "simclr": our_step(SimCLRConfig(), config, device),
        "xclr": our_step(XCLR, config, device),
    }
    ms, at = in_turn(works, device), f"{config.batch_size} pictures"
    remedy = "train.compile=true fuses what small kernels cost"
    yield Ratio(name=f"X-CLR step / plain step, {at}", ours=ms["xclr"], peer=ms["plain"], bar=1.05, remedy=remedy)
    yield Ratio(name=f"SimCLR step / plain step, {at}", ours=ms["simclr"], peer=ms["plain"], bar=1.05, remedy=remedy)
    yield Ratio(name=f"X-CLR step / SimCLR step, {at}", ours=ms["xclr"], peer=ms["simclr"], bar=1.02)


def compiled(device: torch.device) -> Iterator[Ratio]:
    """Compiled steps, at twice the paper's share."""
    config = sizes_of(device).train
    config = config.model_copy(update={"compile": True, "batch_size": 2 * config.batch_size})
    ms = in_turn({"plain": plain_step(config, device), "xclr": our_step(XCLR, config, device)}, device)
    name = f"compiled X-CLR step / compiled plain step, {config.batch_size} pictures"
    yield Ratio(name=name, ours=ms["xclr"], peer=ms["plain"], bar=1.08)


def waits(device: torch.device) -> Iterator[Ratio]:
    """What a step launches and waits for; of a GPU only."""
    if device.type != "cuda":
        return
    step = our_step(XCLR, sizes_of(device).train, device)
    for _ in range(WARMUP):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        wait(device)
    events = profile.key_averages()
    kernels = sum(each.count for each in events if each.self_device_time_total > 0)
    yield Ratio(name="kernels and copies of a step", ours=kernels, peer=1, bar=1200, unit="")
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
        waited = 0
    except RuntimeError as error:
        waited = 1
        print(f"a step waits: {error}", file=sys.stderr)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    yield Ratio(name="a step waits for the device", ours=waited, peer=1, bar=0, unit="")


def optimiser(device: torch.device) -> Iterator[Ratio]:
    """LARS over all weights."""
    learner = learner_of(SimCLRConfig(), sizes_of(device).train.model_copy(update={"optimizer": "lars"}), device)
    for each in learner.model.parameters():
        each.grad = torch.randn_like(each)
    ms = in_turn({"lars": learner.descents[0].optimizer.step}, device)
    yield Ratio(name="one LARS step over ResNet-50 / 1 ms", ours=ms["lars"], peer=1, bar=1.5)


def losses(device: torch.device) -> Iterator[Ratio]:
    """The loss from embeddings, forward and backward, beside its matrix products in float32."""
    sizes = sizes_of(device)
    for n in sizes.losses:
        z = F.normalize(torch.randn(n, 128, device=device), dim=1).requires_grad_()
        e = F.normalize(torch.randn(n // 2, sizes.width, device=device), dim=1).repeat(2, 1)

        def ours(z: Tensor = z, e: Tensor = e) -> None:
            torch.autograd.grad(xclr_loss_from_embeddings(z, e), z)

        @torch.no_grad()
        def products(z: Tensor = z, e: Tensor = e) -> Tensor:
            logits = z @ z.T
            e @ e.T
            return logits @ z + logits.T @ z

        ms = in_turn({"ours": ours, "products": products}, device, rounds=5)
        yield Ratio(name=f"loss from embeddings, n = {n} / its products", ours=ms["ours"], peer=ms["products"], bar=2.0)


def graphs(device: torch.device) -> Iterator[Ratio]:
    """The exact graph, with a cut-off and without, beside a product in half precision with topk in blocks."""
    sizes = sizes_of(device)
    for n, cutoff, bar in zip(sizes.graph, (0.6, None), (1.0, 2.0), strict=True):
        x = clustered(n, sizes.width, device)
        works = {"ours": join(x, cutoff), "plain": topk_in_blocks(x)}
        ms = in_turn(works, device, rounds=1 if device.type == "cuda" else 3)
        what = "cut-off 0.6" if cutoff else "no cut-off"
        name = f"exact graph, {n} x {sizes.width}, k 32, {what} / fp16 matmul + topk"
        yield Ratio(name=name, ours=ms["ours"], peer=ms["plain"], bar=bar)


def clustered(n: int, width: int, device: torch.device) -> Tensor:
    """Unit rows [n, width] in half precision, fifty or so of them near each other."""
    centres = torch.randn(max(1, n // 50), width, device=device)
    rows = centres[torch.randint(len(centres), (n,), device=device)] + 0.7 * torch.randn(n, width, device=device)
    return F.normalize(rows, dim=1).half()


def join(x: Tensor, cutoff: float | None) -> Work:
    """Ours."""
    return lambda: self_join(x, 32, cutoff=cutoff)


def topk_in_blocks(x: Tensor, block: int = 4096) -> Work:
    """What a user would write: the whole product, block by block, and the best of each row."""
    return lambda: [(x[start : start + block] @ x.T).topk(33, dim=1) for start in range(0, len(x), block)]


def embeddings(device: torch.device) -> Iterator[Ratio]:
    """Captions through MiniLM in half precision, beside sentence-transformers with a batch of 512."""
    from sentence_transformers import SentenceTransformer

    draw, model = np.random.default_rng(0), locate(EmbedConfig().model)
    lengths = draw.normal(10, 4, sizes_of(device).captions).clip(3).astype(int)
    texts = [" ".join(draw.choice(WORDS, length)) for length in lengths]
    half = device.type == "cuda"
    encoder, peer = SentenceEncoder(model, "float16" if half else "float32"), SentenceTransformer(str(model))
    peer = peer.half() if half else peer
    works = {
        "ours": lambda: encoder.encode(texts),
        "peer": lambda: peer.encode(texts, batch_size=512, convert_to_tensor=True, show_progress_bar=False),
    }
    ms = in_turn(works, device, rounds=2)
    name = f"{len(texts)} captions through MiniLM / sentence-transformers, batch 512"
    yield Ratio(name=name, ours=ms["ours"], peer=ms["peer"], bar=1 / 1.3)


@dataclass(frozen=True, eq=False)
class MadePictures(EncodedPictures):
    """JPEGs in memory."""

    jpegs: tuple[bytes, ...]
    rows: np.ndarray
    shards: np.ndarray

    @classmethod
    def of(cls, count: int, size: tuple[int, int] = (500, 375)) -> MadePictures:
        """Smooth noise, as large as ImageNet's pictures are."""
        draw, jpegs = np.random.default_rng(0), []
        for _ in range(min(count, 256)):
            noise = Image.fromarray(draw.integers(0, 255, (24, 32, 3), dtype=np.uint8))
            with io.BytesIO() as stream:
                noise.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
                jpegs.append(stream.getvalue())
        rows = np.arange(count, dtype=np.int64)
        return cls(tuple(jpegs), rows, np.zeros_like(rows))

    def encoded(self, position: int) -> bytes:
        return self.jpegs[position % len(self.jpegs)]

    def unreadable(self, position: int, error: Exception, *, there: bool) -> DataError:
        return DataError(f"picture {position} cannot be read: {error}", "this is a fault of the measurement")


def loader(device: torch.device) -> Iterator[Ratio]:
    """X-CLR's steps on photographs from JPEGs of 500 x 375, beside the same steps on views that are there already.

    Decoded by workers, and where it can be by the GPU.
    """
    sizes, cores = sizes_of(device), len(os.sched_getaffinity(0))
    views = {"views": "simclr", "min_crop": 0.08, "workers": max(1, cores - 2)}
    for decode in ("cpu",) if lacking(device) else ("cpu", "gpu"):
        yield fed(sizes, sizes.train.model_copy(update=views | {"decode": decode}), device)


def fed(sizes: Sizes, config: TrainConfig, device: torch.device) -> Ratio:
    """Steps on photographs that come as the config says."""
    batches = StreamedBatches(MadePictures.of(max(sizes.pictures, config.batch_size)), config, 0)
    learner, count = learner_of(XCLR, config, device), 30 if device.type == "cuda" else 4
    stream = batches.stream(0, 4 + count, learner.place, learner.model.look)
    for step in range(4):
        learner.step(next(stream), 1e-3, step)
    wait(device)
    started = time.perf_counter()
    for step, batch in enumerate(stream, start=4):
        learner.step(batch, 1e-3, step)
    wait(device)
    took = 1e3 * (time.perf_counter() - started) / count
    alone = in_turn({"alone": our_step(XCLR, config, device)}, device)["alone"]
    those = f"{config.workers} workers" + (" and nvJPEG" if config.decode == "gpu" else "")
    remedy = f"the loader is the narrow place: about {config.workers * took / alone:.0f} cores a GPU would feed it"
    name = f"X-CLR step fed by {those} / on views that are there"
    return Ratio(name=name, ours=took, peer=alone, bar=1 / 0.95, remedy=remedy)


def larger(device: torch.device) -> Iterator[Ratio]:
    """A picture in batches whose activations memory does not hold, beside one in a batch whose it does."""
    sizes = sizes_of(device)
    plain = sizes.train.batch_size
    base = in_turn({"plain": our_step(XCLR, sizes.train, device)}, device)["plain"] / plain
    for batch in sizes.larger:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        config = sizes.train.model_copy(update={"batch_size": batch, "micro_batch": plain})
        ms = in_turn({"ours": our_step(XCLR, config, device)}, device, rounds=2)["ours"] / batch
        most = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
        name = f"a picture in a batch of {batch} by micro_batch {plain} ({most:.1f} GB) / in one of {plain}"
        yield Ratio(name=name, ours=ms, peer=base, bar=1.4)


Section = Callable[[torch.device], Iterator[Ratio]]
QUICK: Mapping[str, Section] = {
    each.__name__: each for each in (steps, waits, optimiser, losses, graphs, embeddings, loader)
}
SECTIONS: Mapping[str, Section] = {**QUICK, "larger": larger, "compiled": compiled}


def main(device: str, names: list[str]) -> None:
    for name in names or QUICK:
        for ratio in SECTIONS[name](torch.device(device)):
            print(ratio.model_dump_json(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
