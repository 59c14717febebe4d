"""Scores, and runs that have them with the answers that they were counted from; nothing is computed."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from infra.home.runs import new_record
from xclr import schema
from xclr.artifact import Digest, Manifest
from xclr.evaluation.stages import COMPARISON, ComparisonConfig
from xclr.recipe import Recipe
from xclr.stage import Stage
from xclr.store import Store, describe, write_atomically

ORIGIN = {"run": "r", "dataset": "emoji", "step": 1, "n": 50, "ci95": 0.02, "ci_kind": "bootstrap"}
PICTURES = ("linear", "pictures", "top1")
IMAGENET = ("imagenet", "val", "top1")
KEYWORDS = ("keywords", "concepts", "map")
GAP = ("imagenet9", "gap", "gap")


def score(method, graph, value, seed=0, where=PICTURES):
    suite, split, metric = where
    checkpoint = f"{method} {graph} {seed}"
    row = {"method": method, "graph": graph, "seed": seed, "checkpoint": checkpoint, "value": value}
    return ORIGIN | row | {"suite": suite, "split": split, "metric": metric}


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema.SCORES)


SCORES = table(
    score("xclr", "captions", 0.5),
    score("clip", "pairs", 0.4),
    score("random", "none", 0.1),
    score("xclr", "captions", 0.30, where=KEYWORDS),
    score("clip", "pairs", 0.20, where=KEYWORDS),
)
BOTH = table(
    *SCORES.to_pylist(),
    score("xclr", "captions", 0.70, where=IMAGENET),
    score("clip", "pairs", 0.60, where=IMAGENET),
    score("clip", "pairs", 0.05, where=GAP),
    score("xclr", "captions", 0.08, where=GAP),
)


def record(home, run, recipe, hour, scores="0" * 32):
    known = {"run": run, "state": "failed", "started": datetime(2026, 1, 1, hour, tzinfo=UTC), "scores": scores}
    made = new_record(Recipe(name=recipe), []).model_copy(update=known)
    write_atomically(home / "runs" / f"{run}.json", made.model_dump_json())


def commit(store, digest, inputs, tables):
    """An artifact with these tables: name -> (table, schema)."""
    out = store.begin(digest)
    for name, (rows, columns) in tables.items():
        schema.write(rows, out / name, columns, {"digest": digest, "config": {}})
    manifest = Manifest(
        kind=digest.kind, digest=digest, inputs=tuple(inputs), config={}, code=1, stats={}, created="2026-01-01",
        files=tuple(describe(out, name) for name in tables),
    )  # fmt: skip
    return store.commit(store.reference(digest), manifest)


def finished_run(home, run, answers, hour=1, dataset="emoji"):
    """A run with scores and answers, {(method, graph, seed, suite, split): right [n]}, as its suites leave them."""
    store, suites, everything = Store(home), [], []
    for index, ((method, graph, seed, suite, split), right) in enumerate(answers.items()):
        row = score(method, graph, float(np.mean(right)), seed, (suite, split, "top1"))
        row |= {"n": len(right), "dataset": dataset}
        columns = schema.predictions(pa.int64())
        data = [range(len(right)), [split] * len(right), [[each % 5] for each in range(len(right))], [0] * len(right)]
        arrays = [pa.array(each, field.type) for each, field in zip([*data, right], columns, strict=True)]
        tables = {
            "scores.parquet": (table(row), schema.SCORES),
            "predictions.parquet": (pa.Table.from_arrays(arrays, schema=columns), columns),
        }
        suites.append(commit(store, Digest("suite", f"{hour:016x}{index:016x}"), (), tables))
        everything.append(row)
    stage = Stage(COMPARISON, "comparison", ComparisonConfig(dataset=run), {})
    commit(
        store, stage.digest, [each.digest for each in suites], {"scores.parquet": (table(*everything), schema.SCORES)}
    )
    record(home, run, run.split("-")[0], hour, str(stage.digest))
    return suites


RIGHT = {"clip": [True] * 50 + [False] * 50, "xclr": [True] * 62 + [False] * 38, "simclr": [False] * 49 + [True] * 51}
