"""A small real home: 400 emoji with their pictures, and unit vectors in place of a text model's."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from tests.kit.stages import commit
from xclr import captions, images
from xclr.artifact import Artifact
from xclr.captions import stages as captions_stages
from xclr.evaluation.stages import DataSets
from xclr.graph import neighbours
from xclr.graph import stages as graph_stages
from xclr.graph.stages import EMBEDDINGS, EmbeddingsConfig
from xclr.images import stages as images_stages
from xclr.recipe import DataConfig, Recipe, TrainConfig
from xclr.stage import Produced, Stage
from xclr.store import Store
from xclr.training import Materials, Pretrainer, Rank, build_backbone, build_objective
from xclr.training.stages import Data

LIMIT, DIM = 400, 24
TRAIN = TrainConfig(width=4, image_size=16, projector_hidden=32, projector_out=16, epochs=2, batch_size=32, log_every=1)
EXPORTED = tuple(  # what a training writes beside its checkpoint for other libraries
    f"export/{name}" for name in ("model.safetensors", "preprocessing.json", "preprocessing.py", "README.md")
)
RECIPE = Recipe(name="tiny", data=DataConfig(limit=LIMIT), train=TRAIN)


@dataclass(frozen=True)
class Home:
    """A store and the artifacts that training reads, by role."""

    store: Store
    artifacts: dict[str, Artifact]

    @property
    def paths(self) -> dict[str, Path]:
        return {role: artifact.path for role, artifact in self.artifacts.items()}

    @property
    def splits(self):
        return np.asarray(self.column("split"))

    def column(self, name):
        return pq.read_table(self.paths["captions"] / "captions.parquet", columns=[name]).column(name).to_pylist()


def training_data(made: dict[str, Artifact]) -> Data:
    """What trainings read of a run's artifacts by role; no test trains on what is absent."""
    other = made["captions"]
    return Data(other, made["images"], made.get("embeddings", other), made.get("graph", other), {})


def data_sets(made: dict[str, Artifact]) -> DataSets:
    """What networks are judged on, of a run's artifacts by role; ImageNet's is `benchmark`."""
    benchmarks = {"imagenet": made["benchmark"]} if "benchmark" in made else {}
    return DataSets(made["captions"], made["images"], made.get("export"), benchmarks)


def make_home(folder: Path) -> Home:
    """Run the data stages below a folder."""
    store = Store(folder)
    made = {"captions": commit(store, captions_stages.captions(RECIPE, store), captions.run)}
    made["images"] = commit(store, images_stages.images(RECIPE, store, made["captions"])[-1], images.run)
    config = EmbeddingsConfig(weights="unit vectors", model="")
    stage = Stage(EMBEDDINGS, "embeddings", config, {"captions": made["captions"]})
    made["embeddings"] = commit(store, stage, write_vectors)
    made["graph"] = commit(store, graph_stages.graph(RECIPE, made["captions"], made["embeddings"]), neighbours.run)
    return Home(store, made)


def write_vectors(stage: Stage, out: Path, progress) -> Produced:
    """vectors.npy: float16 unit rows, the same for equal captions, cosines of different ones spread around 0.4."""
    keys = pq.read_table(stage.inputs["captions"].path / "captions.parquet", columns=["caption"]).column("caption")
    _, places = np.unique(keys.to_pylist(), return_inverse=True)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(places.max() + 1, DIM)) + 0.8 * rng.normal(size=(1, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(out / "vectors.npy", vectors[places].astype(np.float16))
    return Produced(("vectors.npy",), {"rows": len(places)})


def build(objective, paths, config=TRAIN, seed=0) -> Pretrainer:
    """A fresh model under its objective, from the seed as the pretrain stage makes it."""
    torch.manual_seed(seed)
    backbone, features = build_backbone(config)
    return Pretrainer(backbone, build_objective(objective, Materials(paths, features, config, Rank.here().device)))


@contextmanager
def one_thread():
    """Networks this small lose more to waiting for a second thread on a busy machine than they gain: 50 s, not 1 s."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
