"""The outputs of stages on a fixed small input, pinned to the code version that names them.

When an output changes on purpose, the code version in its Kind goes up by one, so that outputs of
the old code are not taken for the new, and the value here is replaced.
"""

import hashlib
import json
import math
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xclr.artifact import Artifact, Digest, sha256_file
from xclr.captions import run as run_captions
from xclr.captions.stages import CaptionsConfig
from xclr.graph.classes import run as run_class_graph
from xclr.graph.neighbours import run as run_graph
from xclr.graph.own import run as run_own_graph
from xclr.graph.stages import ClassGraphConfig, GraphKnnConfig, OwnGraphConfig
from xclr.images import run as run_images
from xclr.images.stages import ImagesConfig
from xclr.pipeline import KINDS
from xclr.recipe import DataConfig
from xclr.stage import Stage

DATA = DataConfig(limit=40)
RUNNERS = {
    "captions": run_captions, "images": run_images, "graph": run_graph, "class_graph": run_class_graph,
    "own_graph": run_own_graph,
}  # fmt: skip
PINNED = {  # of each kind and code version
    ("captions", 3): "ae7a6b5c172fce996b452a1ff2a3aea8cd06c332fa452539f48d1cafb5ce2d6e",
    ("images", 2): "13b8466a85cff755a9246a847975b9bfd6de0eea76e3424cbd706f3664f88677",
    ("graph", 2): "7f0c359b45152e33b26b13e209b836387e4162a44bba22701318f069d1d8b62a",
    ("class_graph", 2): "f51415b5bb4a964a54ac39cbe9f7c5c45cbf772abff4651f4cba03c658bad9bd",
    ("own_graph", 1): "0f6c87bcad49f8394bf0bef187371d705b7f6c750e48d611ce5be1cd60b58459",
}


def value(item):
    """An item as JSON holds it on every machine: floats with four decimals, bytes in hex, NaN by name."""
    if isinstance(item, float):
        return "NaN" if math.isnan(item) else f"{round(item, 4) + 0.0:.4f}"
    if isinstance(item, bytes):
        return item.hex()
    if isinstance(item, dict):
        return {name: value(each) for name, each in item.items()}
    return [value(each) for each in item] if isinstance(item, list) else item


def contents(out, produced):
    """What a reader finds in a stage's files, however they are encoded: the rows of tables, the files in tars."""
    found = {"stats": value(produced.stats)}
    for name in produced.files:
        if name.endswith(".parquet"):
            found[name] = value(pq.read_table(out / name).to_pylist())
        else:
            with tarfile.open(out / name) as tar:
                found[name] = [[entry.name, hashlib.sha256(tar.extractfile(entry).read()).hexdigest()] for entry in tar]
    return found


def check(kind, found):
    """Compare contents with the pinned hash of the kind's code version."""
    code = KINDS[kind].code
    spelled = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    assert spelled == PINNED.get((kind, code)), (
        f"stage {kind!r} of code version {code} gives other values than those pinned. If that is on purpose, add 1 to "
        f"the code version in its Kind and pin the new hash; if not, outputs of the same name now differ."
    )


def run(kind, config, inputs, out):
    """The stage's artifact and contents."""
    out.mkdir()
    produced = RUNNERS[kind](Stage(KINDS[kind], kind, config, inputs), out, lambda *counts: None)
    return Artifact(kind, Digest(kind, "0" * 32), out), contents(out, produced)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("canary")


@pytest.fixture(scope="module")
def captions(home):
    return run("captions", CaptionsConfig(data=DATA, sha256=("0",)), {}, home / "captions")


@pytest.fixture(scope="module")
def graph_inputs(captions, home):
    """The captions, and unit vectors that no text model made: waves of as many frequencies as there are numbers."""
    phases = np.outer(np.arange(DATA.limit) + 1, np.arange(16) + 1)
    waves = np.cos(0.37 * phases) + 0.5
    path = home / "embeddings"
    path.mkdir()
    np.save(path / "vectors.npy", (waves / np.linalg.norm(waves, axis=1, keepdims=True)).astype(np.float16))
    return {"captions": captions[0], "embeddings": Artifact("embeddings", Digest("embeddings", "0" * 32), path)}


def test_captions_stay_what_their_code_version_says(captions):
    check("captions", captions[1])


def test_images_stay_what_their_code_version_says(captions, home):
    config = ImagesConfig(data=DATA, sha256=("0",))
    check("images", run("images", config, {"captions": captions[0]}, home / "images")[1])


def test_the_graph_stays_what_its_code_version_says(graph_inputs, home):
    config = GraphKnnConfig(k=4, cutoff=0.6, block=3)
    check("graph", run("graph", config, graph_inputs, home / "graph")[1])


def test_the_class_graph_stays_what_its_code_version_says(graph_inputs, home):
    config = ClassGraphConfig(source="random_class", seed=3)
    check("class_graph", run("class_graph", config, graph_inputs, home / "class_graph")[1])


def test_an_own_graph_stays_what_its_code_version_says(captions, home):
    path = home / "edges.parquet"
    ends = np.arange(30)
    pq.write_table(pa.table({"src": ends + 3, "dst": ends * 7 % 3, "sim": ends / 40}), path)
    config = OwnGraphConfig(source="edges", sha256=(sha256_file(path),), paths=(path,))
    check("own_graph", run("own_graph", config, {"captions": captions[0]}, home / "own_graph")[1])


def test_values_are_compared_not_their_spelling():
    assert value([-0.00001, 0.12344, float("nan"), b"\x01", {"a": 1}]) == ["0.0000", "0.1234", "NaN", "01", {"a": 1}]
