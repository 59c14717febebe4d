"""The exact self-join against faiss.knn on clustered vectors like captions."""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import torch
import torch.nn.functional as F

from tests.bench.losses import unit
from tests.bench.measure import Figure, compare
from xclr.graph import self_join

N = 16_384


def figures() -> Iterator[Figure]:
    faiss.omp_set_num_threads(1)
    centres, generator = unit(400, 384, 2), torch.Generator().manual_seed(3)
    picked = centres[torch.randint(400, (N,), generator=generator)]
    vectors = F.normalize(picked + 0.6 * unit(N, 384, 4), dim=1)
    array = vectors.numpy()
    yield compare(
        f"exact graph / faiss.knn, n = {N}",
        lambda: self_join(vectors, 32, block=2048, cutoff=0.6),
        lambda: faiss.knn(array, array, 33, metric=faiss.METRIC_INNER_PRODUCT),
        0.70,
    )
