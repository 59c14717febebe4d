"""Small artifacts on disk, as the stages before evaluation leave them."""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from xclr import schema
from xclr.artifact import Artifact, Digest, Manifest, identity
from xclr.captions import emoji
from xclr.evaluation.data import Features, FeatureSet, Labels, Ragged
from xclr.evaluation.heads import LinearHead, Standardiser
from xclr.images import decode
from xclr.recipe import DataConfig, ObjectiveConfig, TrainConfig, XCLRConfig
from xclr.training import build_backbone
from xclr.training.batches import source_side
from xclr.training.stages import PretrainConfig
from xclr.training.views import PLAIN, still

ABOUT = {"digest": "0" * 32, "config": {}}
GROUPS = 2


def artifact(home: Path, kind: str, name: str) -> Artifact:
    """An empty directory of a kind."""
    digest = Digest(kind, hashlib.blake2b(name.encode(), digest_size=16).hexdigest())
    path = home / kind / digest
    path.mkdir(parents=True)
    return Artifact(kind, digest, path)


def emoji_like(n: int = 600, classes: int = 4, seed: int = 0) -> tuple[Features, Labels]:
    """Separable features of n rows in every split, and their labels."""
    rng = np.random.default_rng(seed)
    split = rng.choice(["train", "pictures", "concepts", "vendor", "unused"], size=n, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    target = rng.integers(classes, size=n)
    tags = tuple((f"class {each}", "all") for each in target)
    used = np.flatnonzero(split != "unused")
    features = Features(FeatureSet(used, _clouds(target, rng)[used]))
    return features, Labels(split, Ragged.single(target), group=target % GROUPS, tags=tags)


def imagenet_like(n: int = 600, classes: int = 8, spread: float = 1.0, seed: int = 0) -> tuple[Features, Labels]:
    """Features of n rows in splits train and val, `spread` wide around each class, and their labels; no probe."""
    rng = np.random.default_rng(seed)
    split = rng.choice(["train", "val"], size=n, p=[0.7, 0.3])
    target = rng.integers(classes, size=n)
    return Features(FeatureSet(np.arange(n), _clouds(target, rng, spread))), Labels(split, Ragged.single(target))


def _clouds(target: np.ndarray, rng: np.random.Generator, spread: float = 1.0) -> np.ndarray:
    """float16 [n, 6]: a normal cloud around each class."""
    centres = 3 * rng.normal(size=(target.max() + 1, 6))
    return (centres[target] + spread * rng.normal(size=(len(target), 6))).astype(np.float16)


def coordinate_head(classes: int) -> LinearHead:
    """A head that takes each feature for the logit of a class."""
    same = Standardiser(torch.zeros(classes), torch.ones(classes))
    return LinearHead(torch.arange(classes), same, torch.eye(classes), torch.zeros(classes), 0.1, 0.0)


def votes(guesses: list[list[int]], classes: int) -> np.ndarray:
    """Features [n, C] that coordinate_head ranks as the given lists, best first."""
    vectors = np.zeros((len(guesses), classes), dtype=np.float16)
    for row, ranked in zip(vectors, guesses, strict=True):
        row[ranked] = np.arange(len(ranked), 0, -1)
    return vectors


class Drawn(NamedTuple):
    """Real pictures as an untrained network sees them: which are to train on [n], and classes of two grains [n]."""

    features: Tensor  # float32 [n, d]
    train: Tensor
    group: Tensor  # 8
    subgroup: Tensor  # 95


@cache
def drawn_emoji(width: int = 16, limit: int | None = None) -> Drawn:
    """The emoji through an untrained network of 8 x width features."""
    train, data = TrainConfig(width=width, image_size=32), DataConfig(limit=limit)
    chosen = [
        (decode(picture, source_side(train)), record["split"] == "train", record["group"], record["subgroup"])
        for record, picture in zip(emoji.captions(data), emoji.pictures(data), strict=True)
        if record["split"] != "unused"
    ]
    pictures, *known = zip(*chosen, strict=True)
    torch.manual_seed(0)
    backbone, _ = build_backbone(train)
    backbone.eval()
    with torch.inference_mode():
        parts = [backbone(still(part, PLAIN, train)) for part in torch.stack(pictures).split(512)]
    return Drawn(torch.cat(parts).clone(), *(torch.tensor(each) for each in known))


def write_features(home: Path, features: FeatureSet) -> Artifact:
    """rows.npy, and vectors.npy in half precision."""
    made = artifact(home, "features", "features")
    np.save(made.path / "rows.npy", features.rows)
    np.save(made.path / "vectors.npy", features.vectors.astype(np.float16))
    return made


def write_captions(home: Path, labels: Labels, *, annotated: bool) -> Artifact:
    """captions.parquet, its label the target, and annotations.parquet when wanted."""
    made = artifact(home, "captions", "captions")
    n = len(labels.split)
    columns = {
        "row_id": range(n),
        "key": [index.to_bytes(16) for index in range(n)],
        "dataset": ["emoji"] * n,
        "url": [None] * n,
        "caption": [f"picture {index}" for index in range(n)],
        "caption_key": [index.to_bytes(16) for index in range(n)],
        "dup_of": [None] * n,
        "label": [None if each < 0 else int(each) for each in labels.target],
        "split": labels.split.tolist(),
    }
    schema.write(pa.table(columns, schema.CAPTIONS), made.path / "captions.parquet", schema.CAPTIONS, ABOUT)
    if annotated:
        more = {"row_id": range(n), "subgroup": labels.target, "group": labels.group, "tags": labels.tags}
        arrays = [pa.array(more[field.name], field.type) for field in schema.ANNOTATIONS]
        table = pa.Table.from_arrays(arrays, schema=schema.ANNOTATIONS)
        schema.write(table, made.path / "annotations.parquet", schema.ANNOTATIONS, ABOUT)
    return made


def write_checkpoint(home: Path, objective: ObjectiveConfig | None = None, *, seed: int = 3) -> Artifact:
    """The manifest of a pretraining that took 40 steps."""
    config = PretrainConfig(objective=objective or XCLRConfig(), train=TrainConfig(), seed=seed, dataset="emoji")
    made = artifact(home, "pretrain", config.model_dump_json())
    manifest = Manifest(
        kind="pretrain", digest=made.digest, inputs=(), config=identity(config), code=1, files=(),
        stats={"step": 40}, created="2025-01-01T00:00:00Z",
    )  # fmt: skip
    (made.path / "manifest.json").write_text(manifest.model_dump_json())
    return made


class Passed:
    """While active, counts the pictures that went through the pooling layer of any backbone."""

    def __init__(self):
        self.pictures = 0

    def __call__(self, module, arguments, output):
        if isinstance(module, nn.AdaptiveAvgPool2d):
            self.pictures += len(output)

    def __enter__(self):
        self.handle = register_module_forward_hook(self)
        return self

    def __exit__(self, *_):
        self.handle.remove()
