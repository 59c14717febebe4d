"""What zero-shot and retrieval read: features through the heads of an objective between pictures and captions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from xclr.artifact import Artifact
from xclr.captions.shared import picture_of_row
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged, of_split
from xclr.evaluation.networks.towers import PairTowers, load_towers
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.retrieval import SAMPLE
from xclr.evaluation.suites.zero_shot import class_vectors, curated, prompts_of
from xclr.files import NOT_TRAINED
from xclr.graph import open_encoder
from xclr.graph.embed import representatives
from xclr.recipe import PairsConfig
from xclr.store import Store
from xclr.training.stages import PretrainConfig


def open_towers(checkpoint: Artifact, config: SuiteConfig) -> PairTowers:
    """The heads that a checkpoint was trained with."""
    manifest = Store.of(checkpoint.path).manifest(checkpoint)
    pretrain = PretrainConfig.model_validate(manifest.config)
    frozen = isinstance(pretrain.objective, PairsConfig) and pretrain.objective.text == "frozen"
    towers = load_towers(
        checkpoint.path, pretrain, open_encoder(str(config.model), config.precision) if frozen else None
    )
    assert towers is not None  # suites_of asks for these suites only where there are captions
    return towers


def class_projections(pictures: FeatureSet, labels: Labels, checkpoint: Artifact, config: SuiteConfig) -> Features:
    """Pictures of split "val" and the classes' names, both in the space of the towers."""
    towers, held_out = open_towers(checkpoint, config), of_split(pictures, labels, "val")
    names = curated(labels.classes, labels.synsets)
    texts = class_vectors(towers, names, prompts_of(config)).numpy()
    projected = FeatureSet(held_out.rows, towers.pictures(held_out.tensor()).numpy())
    return Features(projected, texts=FeatureSet(labels.numbers, texts))


def pair_projections(
    pictures: FeatureSet, captions: Path, checkpoint: Artifact, config: SuiteConfig
) -> tuple[Features, Labels]:
    """Held-out pictures and their captions in the space of the towers; without any, pictures of split "train".

    At most SAMPLE of them, evenly spaced, with all their captions; labels.group is the first row with the same caption,
    labels.attribute that with the same picture.
    """
    table = pq.read_table(captions / "captions.parquet", columns=["row_id", "caption", "dup_of", "split"])
    table = table.sort_by("row_id")
    split = np.array(table["split"].to_pylist(), dtype=np.str_)
    there = split[pictures.rows]
    chosen = next(
        (np.flatnonzero(there == name) for name in NOT_TRAINED if (there == name).any()), np.arange(len(there))
    )
    picture = picture_of_row(captions, len(split))
    shown = picture[pictures.rows[chosen]]
    first = np.sort(np.unique(shown, return_index=True)[1])
    first = first[np.unique(np.linspace(0, len(first) - 1, min(len(first), SAMPLE)).round().astype(np.int64))]
    chosen = chosen[np.isin(shown, shown[first])]
    some = FeatureSet(pictures.rows[chosen], pictures.vectors[chosen])
    towers = open_towers(checkpoint, config)
    texts = towers.texts(table["caption"].take(some.rows).to_pylist()).numpy()
    projected = FeatureSet(some.rows, towers.pictures(some.tensor()).numpy())
    labels = Labels(
        split, Ragged.single(np.full(len(split), -1, dtype=np.int64)), group=representatives(table), attribute=picture
    )
    return Features(projected, texts=FeatureSet(some.rows, texts)), labels
