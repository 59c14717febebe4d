"""The stage `finetune`: a pretrained backbone trained on, with a classifier, on ImageNet's or a recipe's pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclr.artifact import Artifact
from xclr.captions.shared import once
from xclr.errors import DataError
from xclr.evaluation.benchmark import place_of
from xclr.evaluation.data import ROWS, VECTORS, Ints, Labels, load_labels
from xclr.evaluation.datasets import Tree
from xclr.evaluation.networks.pictures import Shown, batches, normalised
from xclr.evaluation.stages import BenchmarkFeaturesConfig, FinetuneStageConfig
from xclr.evaluation.suites.own import judged_split
from xclr.files import TRAIN
from xclr.graph.embed import part_of
from xclr.images import EncodedPictures, PictureFiles, usable_rows
from xclr.objective import gather_rows
from xclr.recipe import NETWORK, TrainConfig
from xclr.stage import Produced, Progress, Stage
from xclr.store import Store
from xclr.training import (
    CHECKPOINT,
    Pretrainer,
    Rank,
    StepLoss,
    StreamedBatches,
    account,
    build_backbone,
    fit,
    precision_of,
)
from xclr.training.model import memory_format
from xclr.training.objectives.materials import Looked, Objective
from xclr.training.spool import SPOOL
from xclr.training.stages import PretrainConfig
from xclr.training.views import preparation_of

VAL = "val"
BATCH = 256  # pictures a forward pass


@dataclass(frozen=True, eq=False)
class TreePictures(EncodedPictures):
    """Some pictures of a data set: rows int64 [n], and the names of all its rows."""

    tree: Tree
    names: pa.Array[pa.StringScalar]  # not strings, which workers would copy by counting who refers to them
    rows: Ints
    shards: Ints

    @classmethod
    def of_split(cls, tree: Tree, labels: Labels, split: str) -> TreePictures:
        """The pictures of a split that have a class."""
        rows = np.flatnonzero((labels.split == split) & (labels.target >= 0))
        return cls(tree, pa.array(labels.names, pa.string()), rows, np.zeros_like(rows))

    def name(self, position: int) -> str:
        """The name of a picture in the data set."""
        return str(self.names[int(self.rows[position])])

    def encoded(self, position: int) -> bytes:
        return self.tree.read(self.name(position))

    def unreadable(self, position: int, error: Exception, *, there: bool) -> DataError:
        return DataError(
            f"{self.tree.root / self.name(position)} cannot be read: {error}",
            "put the file that was published in its place",
        )


class Splits(NamedTuple):
    """The pictures with a class that a backbone is trained on and judged by, and the labels of all rows."""

    labels: Labels
    train: EncodedPictures
    held_out: EncodedPictures


class Classifier(Objective):
    """Logits linear in the features, under cross-entropy; labels: int64 [N], of all rows."""

    labels: Tensor

    def __init__(self, features: int, classes: int, labels: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(features, classes)
        self.register_buffer("labels", labels, persistent=False)

    def forward(self, features: Tensor, rows: Tensor, looked: Looked) -> StepLoss:
        """The mean cross-entropy of features [b, d] of rows [b], and how many of them are right."""
        logits, labels = self.linear(features).float(), self.labels[rows]
        report, chance = partial(_report, logits.detach(), labels), partial(math.log, logits.shape[1])
        return StepLoss(F.cross_entropy(logits, labels), report, chance)


def _report(logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
    return {"accuracy": (logits.argmax(1) == labels).float().mean()}


def run(stage: Stage[FinetuneStageConfig], out: Path, progress: Progress) -> Produced:
    """Write rows.npy, vectors.npy (the held-out pictures' logits, float16 [n, C], each row's largest 0), spool.jsonl.

    Every rank runs it, rank 0 writes. Inputs: checkpoint, and those of `splits_of`. A training that was killed goes on
    from its newest checkpoint. Raises DataError when the training pictures do not fill one batch, and naming a
    published picture that cannot be read.
    """
    config, checkpoint = stage.config, stage.inputs["checkpoint"]
    (labels, pictures, held_out), train = splits_of(stage), as_pretrained(config.train, checkpoint)
    batches = training_batches(pictures, train, config.seed)
    model = with_classifier(checkpoint, train, labels, config.seed)
    steps = train.epochs * batches.steps_per_epoch
    total = steps + -(-share_of(len(held_out.rows), Rank.here())[1] // BATCH)
    stats = fit(train, batches, model, out, part_of(progress, 0, total))
    lost = batches.lost if config.own else None  # what is published must be there
    logits = logits_of(model, held_out, train, part_of(progress, steps, total), lost)
    if Rank.here().rank == 0:
        np.save(out / ROWS, held_out.rows)
        np.save(out / VECTORS, logits)
    stats |= {"rows": len(held_out.rows), **account(batches.lost)}
    return Produced((ROWS, VECTORS, SPOOL), stats, scratch=("checkpoints",))


def splits_of(stage: Stage[FinetuneStageConfig]) -> Splits:
    """ImageNet's pictures, or a recipe's own.

    Inputs: of ImageNet benchmark (the labels), and export where that holds the pictures; of own pictures captions and
    images. Raises as `own_splits` does.
    """
    inputs = stage.inputs
    if stage.config.own:
        return own_splits(inputs["captions"].path, inputs["images"].path)
    labels = load_labels(inputs["benchmark"].path)
    where = BenchmarkFeaturesConfig(dataset="imagenet", root=stage.config.root)
    tree = Tree.open(place_of(where, inputs.get("export")))
    train, held_out = (TreePictures.of_split(tree, labels, split) for split in (TRAIN, VAL))
    return Splits(labels, train, held_out)


def own_splits(captions: Path, images: Path) -> Splits:
    """Pictures that can be decoded, each once; raises DataError when none with a class were held out."""
    labels, rows = load_labels(captions), usable_rows(images)
    rows = once(captions, rows[labels.target[rows] >= 0])
    train, held_out = (rows[labels.split[rows] == split] for split in (TRAIN, judged_split(rows, labels)))
    return Splits(labels, PictureFiles.open(images, train), PictureFiles.open(images, held_out))


def as_pretrained(train: TrainConfig, checkpoint: Artifact) -> TrainConfig:
    """How to train the backbone of a checkpoint: the network and the size of its pictures are those of before."""
    manifest = Store.of(checkpoint.path).manifest(checkpoint)
    before = PretrainConfig.model_validate(manifest.config).train
    kept = {name: getattr(before, name) for name in NETWORK}
    return train.model_copy(update=kept | {"views": "simclr", "shuffle_shards": None})


def training_batches(pictures: EncodedPictures, train: TrainConfig, seed: int) -> StreamedBatches:
    """One view of each picture an epoch, cropped and mirrored; raises DataError when they do not fill one batch."""
    if len(pictures.rows) < train.batch_size:
        raise DataError(
            f"{len(pictures.rows)} training pictures do not fill a batch of {train.batch_size}",
            f"--set evaluate.finetune.batch_size={max(2, len(pictures.rows) // 2)}",
        )
    return StreamedBatches(pictures, train, seed, views=1, colours=False)


def with_classifier(checkpoint: Artifact, train: TrainConfig, labels: Labels, seed: int) -> Pretrainer:
    """The backbone of a checkpoint under a fresh classifier."""
    torch.manual_seed(seed)
    backbone, features = build_backbone(train)
    classifier = Classifier(features, len(labels.numbers), torch.from_numpy(labels.places))
    backbone.load_state_dict(torch.load(checkpoint.path / CHECKPOINT, "cpu", weights_only=True)["backbone"])
    return Pretrainer(backbone, classifier, precision_of(train))


@torch.inference_mode()
def logits_of(
    model: Pretrainer,
    pictures: EncodedPictures,
    train: TrainConfig,
    progress: Progress,
    lost: set[int] | None = None,
) -> npt.NDArray[np.float16]:
    """Logits of all pictures less the largest of each, so that half precision keeps the best apart: [n, C].

    Each rank looks at its share, and all get the whole. The row of a picture that cannot be read is added to `lost`,
    and plain grey stands in its place; without it that is an error.
    """
    place, how = Rank.here(), preparation_of(train)
    positions, share = share_of(len(pictures.rows), place)
    shown = Shown(
        len(positions),
        lambda index: pictures.encoded(positions[index]),
        lambda index: pictures.name(positions[index]),
        None if lost is None else lambda index: lost.add(int(pictures.rows[positions[index]])),
    )
    assert isinstance(model.objective, Classifier)
    backbone, classifier = model.eval().backbone, model.objective.linear
    found = torch.zeros(share, classifier.out_features, dtype=torch.float16, device=place.device)
    done = 0
    for batch in batches(shown, how, size=BATCH, threads=torch.get_num_threads()):
        part = normalised(batch.to(place.device), how).contiguous(memory_format=memory_format(train))
        logits = classifier(backbone(part))
        found[done : done + len(batch)] = logits - logits.amax(dim=1, keepdim=True)
        done += len(batch)
        progress(-(-done // BATCH), -(-share // BATCH))
    return np.asarray(gather_rows(found)[: len(pictures.rows)].cpu())


def share_of(count: int, place: Rank) -> tuple[range, int]:
    """The positions of `count` that a rank looks at, and how many those of one rank are at most."""
    share = -(-count // place.world)
    return range(count)[place.rank * share : (place.rank + 1) * share], share
