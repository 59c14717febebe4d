"""The stage kinds `embeddings`, `graph`, `graph_report`, `class_graph` and `own_graph`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from xclr.artifact import Artifact, Manifest
from xclr.errors import RecipeError
from xclr.graph import estimate
from xclr.graph.function import find_module
from xclr.graph.textmodel import given_model, text_model
from xclr.recipe import OWN, RUNTIME, Config, NamedBy, Precision, Recipe, TargetGraph
from xclr.shards import pairs, parts
from xclr.stage import Given, Kind, Pieces, Stage
from xclr.store import Store

EDGE_BYTES = 12  # an int64 and a float32
CLASS_GRAPHS = frozenset({"class_captions", "wordnet", "random_class"})  # similarities of all pairs of classes
MADE = CLASS_GRAPHS | frozenset(OWN)  # graphs that have a stage of their own


class EmbeddingsConfig(Config):
    """The text model, named by the hash of its files.

    Where activations are quantised, what else is in a batch changes a vector: `pieces` (batch_tokens, shard) then names
    the output too.
    """

    weights: str
    precision: Precision = "float32"
    pieces: tuple[int | None, int] | None = None
    model: str = Field(json_schema_extra=RUNTIME)
    batch_tokens: int | None = Field(None, json_schema_extra=RUNTIME)
    shard: int = Field(1 << 15, json_schema_extra=RUNTIME)


class GraphKnnConfig(Config):
    """Nearest neighbours among the distinct captions; the approximate ones also depend on the recall asked for."""

    k: int
    cutoff: float | None
    method: Literal["exact", "approximate"] = "exact"
    recall: float | None = None
    part: int = Field(1 << 20, json_schema_extra=RUNTIME)
    block: int | None = Field(None, json_schema_extra=RUNTIME)


class ReportConfig(Config):
    """A page about the graph, for people."""

    dataset: str
    seed: int = 0


class ClassGraphConfig(Config):
    """A fixed similarity for every pair of classes; the text model and its template where class names are encoded."""

    source: str
    seed: int = 0
    weights: str | None = None
    template: str | None = None
    model: str | None = Field(None, json_schema_extra=RUNTIME)


class OwnGraphConfig(Config):
    """A graph that the user gives, named by the content of what holds it, or of what makes it and what that reads."""

    source: str
    sha256: tuple[str, ...]
    by: NamedBy = "row"
    function: str | None = None
    paths: tuple[Path, ...] = Field(json_schema_extra=RUNTIME)


def cut_captions(stage: Stage[EmbeddingsConfig], store: Store) -> Pieces:
    """A shard of the embeddings holds `embed.shard` distinct captions."""
    items = count_distinct(stage, store)
    return Pieces(items, -(-items // stage.config.shard))


def cut_pairs(stage: Stage[GraphKnnConfig], store: Store) -> Pieces:
    """A shard of the exact graph compares two parts of `graph.part` captions; the approximate one is whole."""
    nodes, config = count_distinct(stage, store), stage.config
    shards = 1 if config.method == "approximate" else len(pairs(len(parts(nodes, config.part))))
    return Pieces(nodes * (nodes - 1) // 2, shards)


def count_distinct(stage: Stage[EmbeddingsConfig] | Stage[GraphKnnConfig], store: Store) -> int:
    """How many distinct captions a stage reads."""
    return int(store.manifest(stage.inputs["captions"]).stats["distinct"])


def tell_precision(embeddings: Manifest) -> Iterator[str]:
    """A line that says what a precision below float32 cost."""
    stats = embeddings.stats
    if "loss_mean" in stats:
        yield (
            f"embeddings: {stats['precision']} moves a caption by 1 - cos = {stats['loss_mean']:.1e} in the mean and "
            f"{stats['loss_max']:.1e} at most, and a similarity by {stats['similarity_moved']:.1e} in the mean "
            f"(of {stats['loss_sample']} captions, against float32)"
        )


def given_graph(config: OwnGraphConfig, store: Store) -> Iterator[Given]:
    """The files of an own graph."""
    yield Given("graph", config.paths, config.sha256, lambda: tuple(map(store.content_hash, config.paths)))


def tell_uncovered(graph: Manifest) -> Iterator[str]:
    """Lines that say which rows an own graph says nothing of, and what of its file the data do not have."""
    stats = graph.stats
    if stats.get("alone"):
        yield f"own graph: {stats['alone']:,} of {stats['rows']:,} rows have no edge"
    if stats.get("left_out"):
        what = "classes" if graph.config["source"] == "matrix" else "edges"
        yield f"own graph: {stats['left_out']:,} of its file's {what} were of other data, and left out"


EMBEDDINGS = Kind(
    "embeddings",
    EmbeddingsConfig,
    code=2,
    run="xclr.graph.embed",
    step="embeddings",
    given=lambda config, store: given_model(config.weights, config.model, store),
    pieces=cut_captions,
    tell=tell_precision,
    writes=estimate.embeddings_bytes,
    estimate=estimate.embeddings,
)
GRAPH = Kind(
    "graph",
    GraphKnnConfig,
    code=2,
    run="xclr.graph.neighbours",
    step="graph",
    pieces=cut_pairs,
    writes=lambda stage, recipe, rows: EDGE_BYTES * stage.config.k * rows(recipe.data),
    estimate=estimate.graph,
)
GRAPH_REPORT = Kind("graph_report", ReportConfig, code=1, run="xclr.report.graph", step="graph")
CLASS_GRAPH = Kind(
    "class_graph",
    ClassGraphConfig,
    code=2,
    run="xclr.graph.classes",
    step="graph",
    given=lambda config, store: given_model(config.weights, config.model, store),
)
OWN_GRAPH = Kind(
    "own_graph",
    OwnGraphConfig,
    code=1,
    run="xclr.graph.own",
    step="graph",
    given=given_graph,
    tell=tell_uncovered,
)
KINDS = (EMBEDDINGS, GRAPH, GRAPH_REPORT, CLASS_GRAPH, OWN_GRAPH)


def embeddings(recipe: Recipe, store: Store, captions: Artifact) -> Stage[EmbeddingsConfig]:
    """Encode each distinct caption once."""
    embed = recipe.embed
    config = EmbeddingsConfig(
        precision=embed.precision,
        pieces=(embed.batch_tokens, embed.shard) if embed.precision == "int8" else None,
        batch_tokens=embed.batch_tokens,
        shard=embed.shard,
        **text_model(embed.model, store),
    )
    return Stage(EMBEDDINGS, "embeddings", config, {"captions": captions})


def graph(recipe: Recipe, captions: Artifact, embeddings: Artifact) -> Stage[GraphKnnConfig]:
    """Nearest neighbours, as Parquet."""
    chosen = recipe.graph
    config = GraphKnnConfig(
        k=chosen.k, cutoff=chosen.cutoff, method=chosen.method, part=chosen.part, block=chosen.block,
        recall=chosen.recall if chosen.method == "approximate" else None,
    )  # fmt: skip
    return Stage(GRAPH, "graph", config, {"captions": captions, "embeddings": embeddings})


def graph_report(
    recipe: Recipe, captions: Artifact, images: Artifact, embeddings: Artifact, graph: Artifact
) -> Stage[ReportConfig]:
    """The page about the graph."""
    inputs = {"captions": captions, "images": images, "embeddings": embeddings, "graph": graph}
    return Stage(GRAPH_REPORT, "graph report", ReportConfig(dataset=recipe.data.source), inputs)


def class_graph(
    recipe: Recipe, target: TargetGraph, store: Store, captions: Artifact, embeddings: Artifact
) -> Stage[ClassGraphConfig]:
    """A similarity for every pair of classes, as Parquet."""
    config, inputs = ClassGraphConfig(source=target.source, seed=target.seed), {"captions": captions}
    if target.source == "random_class":
        inputs["embeddings"] = embeddings
    if target.source == "class_captions":
        named = text_model(recipe.embed.model, store)
        config = ClassGraphConfig(source=target.source, template=recipe.data.caption_template, **named)
    return Stage(CLASS_GRAPH, f"class graph {target.label}", config, inputs)


def own_graph(target: TargetGraph, store: Store, captions: Artifact) -> Stage[OwnGraphConfig]:
    """The similarities that the user gives, checked; raises RecipeError where there is no such file or function."""
    path = target.path or Path()
    if target.function is not None:
        path = find_module(target.function, path, store.home)
    paths = tuple(each.absolute() for each in (path, *target.reads))
    if missing := [each for each in paths if not each.is_file()]:
        raise RecipeError(f"graph: there is no file {missing[0]}", "give a path that starts at the recipe's file")
    sha256 = tuple(map(store.content_hash, paths))
    config = OwnGraphConfig(source=target.source, sha256=sha256, by=target.by, function=target.function, paths=paths)
    return Stage(OWN_GRAPH, f"own graph {target.label}", config, {"captions": captions})


def made_graph(
    recipe: Recipe, target: TargetGraph, store: Store, captions: Artifact, embeddings: Artifact
) -> Stage[ClassGraphConfig] | Stage[OwnGraphConfig]:
    """What makes a graph that has a stage of its own."""
    if target.source in OWN:
        return own_graph(target, store, captions)
    return class_graph(recipe, target, store, captions, embeddings)
