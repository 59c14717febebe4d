"""What graphs cost at 25,000 to 200,000 captions, and the constants of xclr/graph/estimate.py that follow.

`python -m tests.bench.costs`: CPU seconds of one thread and peak memory, each in a process of its own, beside the
estimates; and what these say of 3 and 12 million captions.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from tests.bench.graphs import BLOCK, CUTOFF, RECALL, WORDS, words
from xclr.graph import self_join
from xclr.graph.approximate import approximate_join
from xclr.graph.estimate import comparison
from xclr.graph.stages import GraphKnnConfig

SIZES = (25_000, 50_000, 100_000, 200_000)
K = 32


def config(method: str) -> GraphKnnConfig:
    return GraphKnnConfig(k=K, cutoff=CUTOFF, method=method, recall=RECALL, block=BLOCK)


def measure(method: str, n: int) -> None:
    """Print the costs of one graph."""
    torch.set_num_threads(1)
    vectors = words(WORDS)[:n]
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if method == "exact":
        edges = int(self_join(torch.from_numpy(vectors), K, block=BLOCK, cutoff=CUTOFF).counts.clamp_max(K).sum())
        more = {}
    else:
        joined, more = approximate_join(vectors, np.arange(n), config(method), lambda *numbers: None)
        edges = int(joined.counts.sum())
    took = time.process_time() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = {"cpu_s": round(took, 2), "gib": peak / 2**20, "above_gib": (peak - before) / 2**20, "edges": edges}
    print(json.dumps(said | more))


def main() -> None:
    width = words(WORDS).shape[1]
    for method in ("exact", "approximate"):
        for n in SIZES:
            command = [sys.executable, "-m", "tests.bench.costs", method, str(n)]
            found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            said = comparison(n, width, config(method))
            print(f"{method:12} {n:>10,}  measured {found}")
            print(f"{'':23}  estimate {said.core_hours * 3600:.1f} s, {said.memory_gb:.2f} GiB", flush=True)
        for n, wide in ((1_000_000, 384), (3_318_333, 768), (12_423_374, 768)):
            said = comparison(n, wide, config(method))
            print(
                f"{method:12} {n:>10,} x {wide}  estimate {said.core_hours:,.1f} core-hours, {said.memory_gb:.1f} GiB"
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], int(sys.argv[2]))
    else:
        main()
