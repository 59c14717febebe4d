"""What embedding captions and comparing them will cost: formulas of docs/graph.md, fitted on one core.

The constants were measured on a server core of 2024 with AVX-512 and VNNI (`python -m tests.bench.costs`); a core
without int8 instructions takes three times as long for the exact graph.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from xclr.graph.textmodel import locate
from xclr.recipe import SOURCES, DataConfig, Recipe
from xclr.shards import pairs, parts
from xclr.stage import Estimate, Rows, Stage
from xclr.store import Store

if TYPE_CHECKING:  # whose kinds name these functions
    from xclr.graph.stages import EmbeddingsConfig, GraphKnnConfig

TOKENS = 20  # of a caption; Conceptual Captions' have about ten words and the special tokens
GFLOPS = {"float32": 65.0, "bfloat16": 165.0, "float16": 20.0, "int8": 190.0}  # of a core, while it embeds
PAIR_NS, PAIR_DIM_NS = 1.05, 0.0046  # exact: of a pair of captions, and of each number of their vectors
EDGE_US = 0.2  # exact: of a neighbour kept
MEASURED, MEASURED_WIDTH, MEASURED_S, GROWTH = 200_000, 384, 20.8, 1.6  # approximate: captions, width, CPU s, exponent
EXACT_BYTES, APPROXIMATE_BYTES = 24, 100  # a caption and neighbour kept
GIB = 2**30


def embeddings(stage: Stage[EmbeddingsConfig], store: Store, recipe: Recipe) -> Estimate | None:
    """The costs of the embeddings; None while nobody knows how many captions there are."""
    captions, shape = expected_captions(stage, store, recipe.data), _shape(locate(recipe.embed.model))
    return None if captions is None or shape is None else embedding(captions, shape, stage.config)


def embeddings_bytes(stage: Stage[EmbeddingsConfig], recipe: Recipe, rows: Rows) -> int:
    """float16, as .npy and as Parquet."""
    shape = _shape(locate(recipe.embed.model))
    return 0 if shape is None else 2 * 2 * shape[1] * rows(recipe.data)


def graph(stage: Stage[GraphKnnConfig], store: Store, recipe: Recipe) -> Estimate | None:
    """The costs of the graph; None while nobody knows how many captions there are."""
    captions, shape = expected_captions(stage, store, recipe.data), _shape(locate(recipe.embed.model))
    return None if captions is None or shape is None else comparison(captions, shape[1], stage.config)


def compare_methods(stage: Stage[GraphKnnConfig], store: Store, recipe: Recipe) -> str | None:
    """A line that says what the graph costs exactly and approximately; None where it is made, or nobody knows."""
    captions, shape = expected_captions(stage, store, recipe.data), _shape(locate(recipe.embed.model))
    if captions is None or shape is None or store.find(stage.digest) is not None:
        return None
    parts = []
    for method in ("exact", "approximate"):
        config = stage.config.model_copy(update={"method": method})
        costs, pieces = comparison(captions, shape[1], config), elements(captions, config)
        array = f" in {pieces} elements" if pieces > 1 else ""
        parts.append(f"{method} {costs.core_hours:,.3g} core-hours{array}, {costs.memory_gb:,.1f} GiB each")
    return f"graph of {captions:,} captions, estimated: " + "; ".join(parts)


def expected_captions(stage: Stage, store: Store, data: DataConfig) -> int | None:
    """Distinct captions where they are known, else how many a published data set has."""
    captions = stage.inputs["captions"]
    if store.find(captions.digest) is not None:
        return int(store.manifest(captions).stats["distinct"])
    known = SOURCES[data.source].published
    return min(known, data.limit or known) if known else None


def embedding(captions: int, shape: tuple[int, int], config: EmbeddingsConfig) -> Estimate:
    """2 FLOP a weight and token: layers x 12 width^2 weights."""
    layers, width = shape
    weights = layers * 12 * width**2
    flop = 2.0 * weights * TOKENS * captions
    return Estimate(flop / GFLOPS[config.precision] / 1e9 / 3600, (8 * weights + 400 * captions) / GIB + 1.5)


def comparison(captions: int, width: int, config: GraphKnnConfig) -> Estimate:
    """Exact: n^2/2 (a + b d) + c n k, the second term once a part. Approximate: in proportion to n^1.6 (a + b d)."""
    n, k = float(captions), config.k
    pair_ns = PAIR_NS + PAIR_DIM_NS * width
    if config.method == "approximate":
        wider = pair_ns / (PAIR_NS + PAIR_DIM_NS * MEASURED_WIDTH)
        seconds = MEASURED_S * (n / MEASURED) ** GROWTH * wider
        memory = n * (5 * width + APPROXIMATE_BYTES * k)
    else:
        number = len(parts(captions, config.part))
        side = -(-captions // number) * (1 if number == 1 else 2)
        seconds = n * n / 2 * pair_ns * 1e-9 + EDGE_US * 1e-6 * n * k * number
        memory = side * (5 * width + EXACT_BYTES * k * 3)
    return Estimate(seconds / 3600, memory / GIB + 0.7)


def elements(captions: int, config: GraphKnnConfig) -> int:
    """How many elements the job array of a graph has."""
    return 1 if config.method == "approximate" else len(pairs(len(parts(captions, config.part))))


def _shape(model: Path) -> tuple[int, int] | None:
    """Layers and width of a transformer, as its folder says."""
    path = model / "config.json"
    if not path.is_file():
        return None
    config = json.loads(path.read_text())
    return int(config["num_hidden_layers"]), int(config["hidden_size"])
