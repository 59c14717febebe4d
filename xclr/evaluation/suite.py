"""The stage `suite`: one suite on one checkpoint's features."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from xclr import schema
from xclr.artifact import Artifact
from xclr.captions.shared import once
from xclr.errors import DataError
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged, SuiteResult, load_features, load_labels
from xclr.evaluation.heads import load_head
from xclr.evaluation.probe import PROBE
from xclr.evaluation.score import Score
from xclr.evaluation.stages import REFERENCE, SuiteConfig
from xclr.recipe import SUITES, SuiteName
from xclr.stage import Kind, Produced, Progress, Stage
from xclr.store import Store
from xclr.training.stages import PRETRAIN

NETWORKS: dict[str, Kind] = {kind.name: kind for kind in (PRETRAIN, REFERENCE)}
SuiteFunction = Callable[[Features, Labels, SuiteConfig], SuiteResult]


def function_of(name: SuiteName) -> SuiteFunction:
    """The suite's function: NAME_suite of the file of its name, imported when it is asked for."""
    module = name.replace("-", "_")
    found: SuiteFunction = getattr(importlib.import_module(f"xclr.evaluation.suites.{module}"), f"{module}_suite")
    return found


def run(stage: Stage[SuiteConfig], out: Path, progress: Progress) -> Produced:
    """Judge a checkpoint's features (inputs as stages.read names them); writes scores and predictions.

    scores.parquet has a row a score, with what the checkpoint's manifest says of its pretraining;
    predictions.parquet the answers behind them. Raises DataError for data that the suite cannot use.
    """
    progress(0, 2)
    features, labels = read(stage)
    progress(1, 2)
    result = function_of(stage.config.suite)(features, labels, stage.config)
    about = {"digest": stage.digest, "config": stage.identity}
    table = score_table(result.scores, stage.inputs["checkpoint"])
    schema.write(table, out / "scores.parquet", schema.SCORES, about)
    schema.write(result.predictions, out / "predictions.parquet", result.predictions.schema, about)
    progress(2, 2)
    stats = {f"{score.split}_{score.metric}": score.value for score in result.scores}
    return Produced(("scores.parquet", "predictions.parquet"), stats)


def read(stage: Stage[SuiteConfig]) -> tuple[Features, Labels]:
    """What a suite judges, and what is known of it."""
    inputs, config = stage.inputs, stage.config
    features, labels = Features(load_features(inputs["features"].path)), load_labels(inputs["labels"].path)
    if "names" in inputs:
        labels = by_name(labels, load_labels(inputs["names"].path))
    if config.once:
        features = replace(features, pictures=each_once(features.pictures, labels, inputs["labels"].path))
    if "probe" in inputs:
        features = replace(features, probe=load_head(inputs["probe"].path / PROBE))
    if not SUITES[config.suite].towers:
        return features, labels
    from xclr.evaluation.projected import class_projections, own_projections, pair_projections  # brings the text model

    if SUITES[config.suite].own:
        return own_projections(features.pictures, labels, inputs["labels"], inputs["checkpoint"], config), labels
    if SUITES[config.suite].pictures is not None:
        return class_projections(features.pictures, labels, inputs["checkpoint"], config), labels
    return pair_projections(features.pictures, inputs["labels"].path, inputs["checkpoint"], config)


def each_once(pictures: FeatureSet, labels: Labels, captions: Path) -> FeatureSet:
    """Of the pictures of captions that have a class the first row with each."""
    known = pictures.rows[labels.target[pictures.rows] >= 0]
    return pictures.where(np.isin(pictures.rows, once(captions, known)))


def by_name(labels: Labels, pictures: Labels) -> Labels:
    """Labels that are given by file name, as ReaL's are, for the rows of the pictures of split "val".

    Raises DataError when a picture has no entry.
    """
    place = {_stem(name): row for row, name in enumerate(labels.names)}
    held_out = np.flatnonzero(pictures.split == "val")
    lost = [pictures.names[row] for row in held_out if _stem(pictures.names[row]) not in place]
    if lost:
        raise DataError(
            f"{len(lost)} of {len(held_out)} pictures have no entry in real.json, first {lost[0]}",
            "keep the names of the validation pictures as ImageNet publishes them: ILSVRC2012_val_00000001.JPEG",
        )
    lengths = np.zeros(len(pictures.split), dtype=np.int64)
    chosen = labels.targets.take(np.array([place[_stem(pictures.names[row])] for row in held_out], dtype=np.int64))
    lengths[held_out] = chosen.lengths
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return replace(pictures, targets=Ragged(offsets, chosen.values))


def _stem(name: str) -> str:
    return PurePosixPath(name).stem


def score_table(scores: Sequence[Score], checkpoint: Artifact) -> pa.Table:
    """The rows of schema.SCORES for a checkpoint's scores; method, graph, seed and step are from its manifest."""
    manifest = Store.of(checkpoint.path).manifest(checkpoint)
    kind = NETWORKS[manifest.kind]
    assert kind.network is not None
    origin = kind.network(kind.config.model_validate(manifest.config))
    about = {
        "run": f"{origin.method}-{checkpoint.digest[:8]}",
        "checkpoint": str(checkpoint.digest),
        "step": int(manifest.stats.get("step", 0)),
        **origin._asdict(),
    }
    return pa.Table.from_pylist([about | asdict(score) for score in scores], schema=schema.SCORES)
