"""What came of a study's networks: answers by arm and seed, and how their likeness follows that of captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
from xclr.study.spec import Also, Study
from xclr.training.stages import PRETRAIN, title_of

Right = NDArray[np.float64]  # 1 for a picture that is right, 0 for one that is not; over several draws their mean
FEWEST, MOST = 10, 2_000  # pictures whose pairs are compared: 2 million pairs


@dataclass(frozen=True, eq=False)
class Outcome:
    """Of one arm: right [S, n] by seed and picture; likeness [S], or none: Spearman's correlation.

    `also` are the same numbers of what else the study tells, by its name.
    """

    right: Right
    likeness: NDArray[np.float64]
    also: Mapping[str, Right] = field(default_factory=dict)


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
    shape = len(networks), study.seeds, -1
    right = _right(every, study.primary.split).reshape(shape)
    also = {name: _told(every, each).reshape(shape) for name, each in study.also.items()}
    return {
        arm: Outcome(
            right[place],
            np.array([likeness[str(each)] for each in seeds if str(each) in likeness]),
            {name: each[place] for name, each in also.items()},
        )
        for place, (arm, seeds) in enumerate(networks.items())
    }


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


def _told(suites: Sequence[Artifact | None], also: Also) -> Right:
    """Of a split, or of one less another that has as many pictures: the first of one beside the first of the other."""
    right = _right(suites, also.split)
    if also.less is None:
        return right
    other = _right(suites, also.less)
    if other.shape != right.shape:
        raise DataError(
            f"splits {also.split!r} and {also.less!r} differ in their numbers of pictures", "leave `less` out"
        )
    return right - other


def _right(suites: Sequence[Artifact | None], split: str) -> Right:
    """How right each of some suites is on the pictures of a split, sorted: [suites, n]."""
    answers = [_answers(each, split) for each in suites]
    if any(not np.array_equal(rows, answers[0][0]) for rows, _ in answers):
        raise DataError("networks were judged on other pictures", "xclr verify, then xclr study again")
    return np.stack([right for _, right in answers])


def _answers(suite: Artifact | None, split: str) -> tuple[NDArray[np.int64], Right]:
    """The rows of a split, sorted, and how right they are: over its draws, "split/0" and so on, where it has such."""
    assert suite is not None
    table = pq.read_table(suite.path / "predictions.parquet", columns=["row_id", "split", "right"])
    own = table.filter(pc.equal(pc.list_element(pc.split_pattern(table["split"], "/"), 0), split))
    if own.num_rows < 2 or own["right"].null_count:
        there = ", ".join(sorted(set(table["split"].to_pylist())))
        raise DataError(f"the suite judges no pictures of split {split!r}, right or wrong", f"splits: {there}")
    rows, place, times = np.unique(own["row_id"].to_numpy(), return_inverse=True, return_counts=True)
    return rows, np.bincount(place, own["right"].to_numpy(zero_copy_only=False)) / times


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
