"""The stage `suite`: one suite on one checkpoint's features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from xclr import schema
from xclr.artifact import Artifact, Manifest
from xclr.errors import RecipeError
from xclr.evaluation.background import background_suite
from xclr.evaluation.data import FeatureSet, Labels, SuiteResult, load_features, load_labels
from xclr.evaluation.keywords import keywords_suite
from xclr.evaluation.knn import knn_suite
from xclr.evaluation.linear import linear_suite
from xclr.evaluation.score import Score
from xclr.recipe import graph_name, method_name
from xclr.stages import PretrainConfig, Produced, Progress, Stage, SuiteConfig
from xclr.store import MANIFEST

SuiteFunction = Callable[[Mapping[str, FeatureSet], Labels, SuiteConfig], SuiteResult]
SUITES: Mapping[str, SuiteFunction] = {
    "linear": linear_suite,
    "keywords": keywords_suite,
    "background": background_suite,
    "imagenet": linear_suite,
    "imagenet-knn": knn_suite,
}


def run(stage: Stage, out: Path, progress: Progress) -> Produced:
    """Judge a checkpoint's features (inputs features, checkpoint, captions); writes scores and predictions.

    scores.parquet has a row a score, with what the checkpoint's manifest says of its pretraining;
    predictions.parquet the answers behind them. Raises RecipeError for an unknown suite, DataError for data that
    the suite cannot use.
    """
    assert isinstance(stage.config, SuiteConfig)
    if stage.config.suite not in SUITES:
        raise RecipeError(f"no suite {stage.config.suite!r}", "suites there are: " + ", ".join(SUITES))
    progress(0, 2)
    source = stage.inputs["captions"] if "captions" in stage.inputs else stage.inputs["features"]
    features, labels = load_features(stage.inputs["features"].path), load_labels(source.path)
    progress(1, 2)
    result = SUITES[stage.config.suite](features, labels, stage.config)
    about = {"digest": stage.digest, "config": stage.identity}
    table = score_table(result.scores, stage.inputs["checkpoint"])
    schema.write(table, out / "scores.parquet", schema.SCORES, about)
    schema.write(result.predictions, out / "predictions.parquet", result.predictions.schema, about)
    progress(2, 2)
    stats = {f"{score.split}_{score.metric}": score.value for score in result.scores}
    return Produced(("scores.parquet", "predictions.parquet"), stats)


def score_table(scores: Sequence[Score], checkpoint: Artifact) -> pa.Table:
    """The rows of schema.SCORES for a checkpoint's scores; method, graph, seed and step are from its manifest."""
    manifest = Manifest.model_validate_json((checkpoint.path / MANIFEST).read_text(encoding="utf-8"))
    pretrain = PretrainConfig.model_validate(manifest.config)
    method = method_name(pretrain.objective)
    origin = {
        "run": f"{method}-{checkpoint.digest[:8]}",
        "method": method,
        "dataset": pretrain.dataset,
        "graph": graph_name(pretrain.objective),
        "seed": pretrain.seed,
        "checkpoint": str(checkpoint.digest),
        "step": int(manifest.stats["step"]),
    }
    return pa.Table.from_pylist([origin | asdict(score) for score in scores], schema=schema.SCORES)
