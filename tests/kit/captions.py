"""Small real captions, and stages over them."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from xclr import schema
from xclr.artifact import Artifact, Digest
from xclr.graph.textmodel import locate
from xclr.pipeline import KINDS
from xclr.recipe import Config
from xclr.stage import Stage

MINILM = locate("sentence-transformers/all-MiniLM-L6-v2")
ROWS = [  # caption, class
    ("a dog", 0), ("a red car on a road", 1), ("a small puppy", 0), ("a dog", 0), ("a blue car", 1),
    ("a bowl of soup", 2), ("a plate of noodles", 2), ("A dog", 0), ("two dogs in the park", None),
    ("a truck", 1), ("a dog", 4), ("an airplane in the sky", None), ("a slice of pizza with cheese", 2),
]  # fmt: skip


def captions_table(rows: list[tuple[str, int | None]]) -> pa.Table:
    """A captions table as the captions stage writes it."""
    first: dict[str, int] = {}
    records: list[dict[str, Any]] = []
    for row, (caption, label) in enumerate(rows):
        earlier = first.setdefault(caption, row)
        digest = hashlib.blake2b(caption.encode(), digest_size=16).digest()
        key = hashlib.blake2b(f"{row}".encode(), digest_size=16).digest()
        records.append({
            "row_id": row, "key": key, "dataset": "test", "url": None, "caption": caption, "caption_key": digest,
            "dup_of": None if earlier == row else earlier, "label": label, "split": "train",
        })  # fmt: skip
    return pa.Table.from_pylist(records, schema=schema.CAPTIONS)


def artifact(kind: str, path: Path) -> Artifact:
    """A reference to files in a folder."""
    return Artifact(kind, Digest(kind, "0" * 32), path)


def captions_artifact(path: Path, rows: list[tuple[str, int | None]]) -> Artifact:
    """Captions written to a folder."""
    path.mkdir(parents=True, exist_ok=True)
    schema.write(captions_table(rows), path / "captions.parquet", schema.CAPTIONS, {})
    if labels := {label for _, label in rows if label is not None}:
        classes = {"label": range(max(labels) + 1), "name": [f"class {each}" for each in range(max(labels) + 1)]}
        table = pa.table(classes | {"synset": [None] * len(classes["name"])}, schema=schema.CLASSES)
        schema.write(table, path / "classes.parquet", schema.CLASSES, {})
    return artifact("captions", path)


def make_stage(kind: str, config: Config, *inputs: Artifact) -> Stage:
    """A stage over the given inputs."""
    return Stage(KINDS[kind], kind, config, {each.kind: each for each in inputs})
