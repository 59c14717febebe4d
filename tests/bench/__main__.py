"""Print one JSON line a figure, then a table with the bars; one thread, process CPU time, medians of five."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

from collections.abc import Iterator

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tests.bench.measure import Figure, compare
from xclr.graph import self_join
from xclr.objective import xclr_loss, xclr_loss_from_embeddings
from xclr.recipe import SimCLRConfig, TrainConfig
from xclr.training import Materials, Pretrainer, build_backbone, build_objective


def unit(rows: int, width: int, seed: int) -> Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def losses() -> Iterator[Figure]:
    """The block-wise loss against the plain one, forward and backward."""
    for views, bar in ((4096, 0.50), (8192, 0.45)):
        z, e = unit(views, 128, 0).requires_grad_(), unit(views, 384, 1)

        def blockwise(z: Tensor = z, e: Tensor = e) -> None:
            xclr_loss_from_embeddings(z, e).backward()

        def plain(z: Tensor = z, e: Tensor = e) -> None:
            xclr_loss(z, e @ e.T).backward()

        yield compare(f"loss, block-wise / plain, {views} views", blockwise, plain, bar)


def graphs() -> Iterator[Figure]:
    """The exact self-join against faiss.knn on clustered vectors like captions."""
    centres = unit(400, 384, 2)
    for n in (16_384,):
        generator = torch.Generator().manual_seed(3)
        picked = centres[torch.randint(400, (n,), generator=generator)]
        vectors = F.normalize(picked + 0.6 * unit(n, 384, 4), dim=1)
        array = vectors.numpy()

        def ours(vectors: Tensor = vectors) -> None:
            self_join(vectors, 32, block=2048, cutoff=0.6)

        def peer(array: np.ndarray = array) -> None:
            faiss.knn(array, array, 33, metric=faiss.METRIC_INNER_PRODUCT)

        yield compare(f"exact graph / faiss.knn, n = {n}", ours, peer, 0.70)


def steps() -> Iterator[Figure]:
    """A SimCLR step against lightly's loss on the same network."""
    config = TrainConfig()
    views, rows = torch.randn(512, 3, 32, 32), torch.arange(256)
    views = views.contiguous(memory_format=torch.channels_last)
    backbone, features = build_backbone(config)
    objective = build_objective(SimCLRConfig(), Materials({}, features, config))
    model = Pretrainer(backbone, objective)
    criterion = NTXentLoss(temperature=0.1)

    def ours() -> None:
        model(views, rows).loss.backward()

    def peer() -> None:
        criterion(*objective.head(backbone(views)).chunk(2)).backward()

    yield compare("SimCLR step / lightly's loss, same network", ours, peer, 1.0)


def main() -> None:
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    table = Table("figure", "ours, CPU-s", "peer, CPU-s", "ratio", "bar", "")
    for figure in (*losses(), *graphs(), *steps()):
        print(figure.to_json(), flush=True)
        met = "met" if figure.ratio <= figure.bar else "not met"
        cells = (f"{figure.ours_s:.3f}", f"{figure.peer_s:.3f}", f"{figure.ratio:.2f}", f"<= {figure.bar:.2f}", met)
        table.add_row(figure.name, *cells)
    Console(stderr=True, width=120).print(table)


if __name__ == "__main__":
    main()
