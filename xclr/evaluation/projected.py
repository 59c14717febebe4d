"""What zero-shot and retrieval read: features through the heads of an objective between pictures and captions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from xclr import schema
from xclr.artifact import Artifact
from xclr.captions.emoji import taxonomy
from xclr.captions.shared import picture_of_row
from xclr.captions.source import reader_of
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged, of_split
from xclr.evaluation.networks.towers import PairTowers, load_towers
from xclr.evaluation.stages import SuiteConfig
from xclr.evaluation.suites.own import held_out
from xclr.evaluation.suites.retrieval import SAMPLE
from xclr.evaluation.suites.zero_shot import class_vectors, curated, prompts_of
from xclr.files import NOT_TRAINED
from xclr.graph import open_encoder
from xclr.graph.embed import representatives
from xclr.recipe import SOURCES, DataConfig, PairsConfig
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
    names = curated(labels.classes, labels.synsets)
    return _projected(of_split(pictures, labels, "val"), replace(labels, classes=tuple(names)), checkpoint, config)


def own_projections(
    pictures: FeatureSet, labels: Labels, captions: Artifact, checkpoint: Artifact, config: SuiteConfig
) -> Features:
    """The held-out pictures of a recipe's own and the classes' names, both in the space of the towers."""
    _, items = held_out(Features(pictures), labels)
    return _projected(items, replace(labels, classes=spoken_names(captions)), checkpoint, config)


def spoken_names(captions: Artifact) -> tuple[str, ...]:
    """The names of the classes that own pictures are judged by, as their captions have them."""
    data = Store.of(captions.path).manifest(captions).config["data"]
    if SOURCES[data["source"]].annotated:
        names = list(taxonomy(DataConfig.model_validate(data)).subgroups)
    else:
        table = schema.read(captions.path / "classes.parquet", schema.CLASSES, ["label", "name"]).sort_by("label")
        names = table["name"].to_pylist()
    return tuple(map(reader_of(data["source"]).spoken, names))


def _projected(items: FeatureSet, labels: Labels, checkpoint: Artifact, config: SuiteConfig) -> Features:
    """Pictures and `labels.classes`, in the space of the towers."""
    towers = open_towers(checkpoint, config)
    texts = class_vectors(towers, labels.classes, prompts_of(config)).numpy()
    projected = FeatureSet(items.rows, towers.pictures(items.tensor()).numpy())
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
