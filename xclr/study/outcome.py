"""What came of a study's networks: answers by arm and seed, and how their likeness follows that of captions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xclr.artifact import Artifact, Digest
from xclr.errors import DataError, StoreError, XclrError
from xclr.evaluation.data import load_features
from xclr.evaluation.stages import FEATURES, SUITE
from xclr.graph.embed import read_captions
from xclr.graph.stages import EMBEDDINGS
from xclr.pipeline import pipeline
from xclr.recipe import with_graph
from xclr.stage import Plan
from xclr.store import Store
from xclr.study.numbers import rank_correlation
from xclr.study.spec import Study
from xclr.training.stages import PRETRAIN, title_of

FEWEST, MOST = 10, 2_000  # pictures whose pairs are compared: 2 million pairs


@dataclass(frozen=True, eq=False)
class Outcome:
    """Of one arm: right bool [S, n] by seed and picture; likeness [S], or none: Spearman's correlation."""

    right: NDArray[np.bool_]
    likeness: NDArray[np.float64]


def read_outcomes(study: Study, store: Store) -> dict[str, Outcome]:
    """The outcome of each arm, in their order; raises StoreError while networks are not judged."""
    plan = pipeline(study.recipe, store)
    networks = networks_of(study, plan)
    judged = {
        str(each.inputs["checkpoint"].digest): store.find(each.digest)
        for each in plan.of(SUITE)
        if each.config.suite == study.primary.suite
    }
    every = [judged.get(str(digest)) for seeds in networks.values() for digest in seeds]
    if missing := sum(each is None for each in every):
        raise StoreError(f"{missing} of {len(every)} networks are not judged yet", f"xclr study {study.name}")
    likeness = _likenesses(study, store, plan) if study.mechanism else {}
    found, rows = {}, None
    for arm, seeds in networks.items():
        answers = [_answers(judged[str(each)], study.primary.split) for each in seeds]
        rows = answers[0][0] if rows is None else rows
        if any(not np.array_equal(each, rows) for each, _ in answers):
            raise DataError("networks were judged on other pictures", "xclr verify, then xclr study again")
        alike = np.array([likeness[str(each)] for each in seeds if str(each) in likeness])
        found[arm] = Outcome(np.stack([right for _, right in answers]), alike)
    return found


def is_judged(study: Study, store: Store) -> bool:
    """Whether every network of a study is there and judged; false where its data cannot be planned yet."""
    try:
        plan = pipeline(study.recipe, store)
    except XclrError:
        return False
    wanted = [each.digest for each in plan if each.kind in {SUITE, FEATURES}]
    return all(store.find(each) is not None for each in wanted)


def networks_of(study: Study, plan: Plan) -> dict[str, list[Digest]]:
    """The checkpoints of each arm, by seed."""
    named = {stage.name: stage.digest for stage in plan.of(PRETRAIN)}
    recipe = plan.recipe
    objectives = with_graph(list(study.arms.values()), recipe.graph)
    return {
        arm: [named[f"pretrain {title_of(each, seed, recipe.data.source)}"] for seed in recipe.seeds]
        for arm, each in zip(study.arms, objectives, strict=True)
    }


def _answers(suite: Artifact | None, split: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The rows of a split, sorted, and which of them are right."""
    assert suite is not None
    table = pq.read_table(suite.path / "predictions.parquet", columns=["row_id", "split", "right"])
    own = table.filter(pc.equal(table["split"], split)).sort_by("row_id")
    if own.num_rows < 2 or own["right"].null_count:
        there = ", ".join(sorted(set(table["split"].to_pylist())))
        raise DataError(f"the suite judges no pictures of split {split!r}, right or wrong", f"splits: {there}")
    return own["row_id"].to_numpy(), own["right"].to_numpy(zero_copy_only=False)


def _likenesses(study: Study, store: Store, plan: Plan) -> Mapping[str, float]:
    """By checkpoint, Spearman's correlation of the cosines of pictures and of captions, over pairs of other classes.

    Pictures of the primary split, at most MOST of them, evenly spaced; pairs of one class or caption are left out.
    """
    features = plan.of(FEATURES)
    (vectors,) = (store.reference(each.digest).path / "vectors.npy" for each in plan.of(EMBEDDINGS))
    captions = read_captions(features[0].inputs["captions"].path / "captions.parquet")
    split, key = (np.array(captions[name].to_pylist()) for name in ("split", "caption_key"))
    label = captions["label"].fill_null(-1).to_numpy()
    made = {
        str(each.inputs["checkpoint"].digest): load_features(store.reference(each.digest).path) for each in features
    }
    there = next(iter(made.values())).rows
    rows = there[split[there] == study.primary.split]
    if len(rows) < FEWEST:
        raise DataError(
            f"{len(rows)} own pictures of split {study.primary.split!r} say nothing of likeness",
            "leave `mechanism` out",
        )
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST)).round().astype(np.int64))]
    left, right = np.triu_indices(len(rows), k=1)
    a, b = rows[left], rows[right]
    other = (key[a] != key[b]) & ((label[a] < 0) | (label[a] != label[b]))
    left, right = left[other], right[other]
    texts = _cosines(np.load(vectors, mmap_mode="r")[rows], left, right)
    return {
        name: rank_correlation(_cosines(each.vectors[np.searchsorted(each.rows, rows)], left, right), texts)
        for name, each in made.items()
    }


def _cosines(vectors: NDArray[np.float16], left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float32]:
    unit = np.asarray(vectors, dtype=np.float32)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    return np.asarray((unit @ unit.T)[left, right])
