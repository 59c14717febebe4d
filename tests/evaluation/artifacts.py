"""Small artifacts on disk, as the stages before evaluation leave them."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from xclr import schema
from xclr.artifact import Artifact, Digest, Manifest, identity
from xclr.evaluation import FeatureSet, Labels
from xclr.recipe import ObjectiveConfig, TrainConfig, XCLRConfig
from xclr.stages import PretrainConfig

ABOUT = {"digest": "0" * 32, "config": {}}
GROUPS = 2


def artifact(home: Path, kind: str, name: str) -> Artifact:
    """An empty directory of a kind."""
    digest = Digest(kind, hashlib.blake2b(name.encode(), digest_size=16).hexdigest())
    path = home / kind / digest
    path.mkdir(parents=True)
    return Artifact(kind, digest, path)


def emoji_like(n: int = 600, classes: int = 4, seed: int = 0) -> tuple[dict[str, FeatureSet], Labels]:
    """Separable features of n rows in every split, and their labels; the random backgrounds shift the features."""
    rng = np.random.default_rng(seed)
    split = rng.choice(["train", "pictures", "concepts", "vendor", "unused"], size=n, p=[0.6, 0.1, 0.1, 0.1, 0.1])
    target = rng.integers(classes, size=n)
    group = target % GROUPS
    centres = 3 * rng.normal(size=(classes, 6))
    clean = (centres[target] + rng.normal(size=(n, 6))).astype(np.float16).astype(np.float32)
    background = np.array([[4.0, -4.0]]).T * rng.normal(size=(1, 6))  # [group, d]
    own, other = clean + background[group], clean + background[1 - group]
    tags = tuple((f"class {each}", "all") for each in target)
    rows = {name: np.flatnonzero(split == name) for name in ("train", "pictures")}
    used = np.flatnonzero(split != "unused")
    parts = {
        "plain": (used, clean),
        "trained": (rows["train"], own),
        "mixed_same": (rows["pictures"], own),
        "mixed_rand": (rows["pictures"], other),
    }
    features = {name: FeatureSet(chosen, all_[chosen].astype(np.float32)) for name, (chosen, all_) in parts.items()}
    return features, Labels(split, target, group, tags)


def write_features(home: Path, features: dict[str, FeatureSet]) -> Artifact:
    """Pairs of <variant>.rows.npy and <variant>.npy in half precision."""
    made = artifact(home, "features", "features")
    for name, each in features.items():
        np.save(made.path / f"{name}.rows.npy", each.rows)
        np.save(made.path / f"{name}.npy", each.vectors.astype(np.float16))
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
