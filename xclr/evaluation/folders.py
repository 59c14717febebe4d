"""The stage `folder_features`: the pictures of a benchmark's class folders through a frozen backbone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from xclr import schema
from xclr.datafiles import benchmark_names
from xclr.evaluation.data import ITEMS, ROWS
from xclr.evaluation.features import load_backbone
from xclr.images import decode
from xclr.recipe import TrainConfig
from xclr.stages import FolderFeaturesConfig, PretrainConfig, Produced, Progress, Stage
from xclr.store import Store
from xclr.training.batches import source_side
from xclr.training.pretrain import CHECKPOINT
from xclr.training.views import PLAIN, still

CHUNK = 128  # pictures in memory
SPLITS = {"train": "train", "val": "pictures"}  # what the folders are called in scores


def run(stage: Stage, out: Path, progress: Progress) -> Produced:
    """Write plain.rows.npy (int64 [n]), plain.npy (float16 [n, F]) and items.parquet (row, name, split, label).

    Labels number the class folders of train in the order of their names; a class that only val has gets -1.
    """
    assert isinstance(stage.config, FolderFeaturesConfig)
    checkpoint = stage.inputs["checkpoint"]
    manifest = Store(checkpoint.path.parents[2]).manifest(checkpoint)
    train = PretrainConfig.model_validate(manifest.config).train
    backbone = load_backbone(checkpoint.path / CHECKPOINT, PretrainConfig.model_validate(manifest.config))
    names = benchmark_names(stage.config.root)
    parts: list[npt.NDArray[np.float16]] = []
    for pixels in _pictures(stage.config.root, names, train):
        parts.append(_forward(backbone, pixels, train))
        progress(sum(map(len, parts)), len(names))
    np.save(out / f"plain{ROWS}", np.arange(len(names)))
    np.save(out / "plain.npy", np.concatenate(parts))
    about = {"digest": stage.digest, "config": stage.identity}
    schema.write(items(names), out / "items.parquet", ITEMS, about)
    return Produced((f"plain{ROWS}", "plain.npy", "items.parquet"), {"forward_passes": len(names), "rows": len(names)})


def items(names: list[str]) -> pa.Table:
    """The rows of items.parquet for pictures named <split>/<class>/..."""
    splits, classes = zip(*(name.split("/")[:2] for name in names), strict=True)
    known = sorted({each for split, each in zip(splits, classes, strict=True) if split == "train"})
    number = {each: index for index, each in enumerate(known)}
    columns = {
        "row_id": np.arange(len(names)),
        "name": names,
        "split": [SPLITS[split] for split in splits],
        "label": pa.array([number.get(each, -1) for each in classes], pa.int64()),
    }
    return pa.table(columns, schema=ITEMS)


def _pictures(root: Path, names: list[str], train: TrainConfig) -> Iterator[Tensor]:
    side = source_side(train)
    for begin in range(0, len(names), CHUNK):
        yield torch.stack([decode((root / name).read_bytes(), side) for name in names[begin : begin + CHUNK]])


@torch.inference_mode()
def _forward(backbone: nn.Module, pixels: Tensor, train: TrainConfig) -> npt.NDArray[np.float16]:
    batch = still(pixels, PLAIN, train.image_size).contiguous(memory_format=torch.channels_last)
    return np.asarray(backbone(batch).half().numpy())
