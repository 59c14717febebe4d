"""Every objective on two and on eight processes has the loss and all gradients of one process, plain and by blocks."""

from functools import partial

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tests.kit.home import TRAIN, make_home, one_thread
from tests.kit.objectives import CONFIGS as OBJECTIVES
from tests.kit.ranks import run_on_ranks, shard
from xclr import schema
from xclr.recipe import SoftCLIPConfig, SoftSigLIPConfig, TargetGraph, XCLRConfig
from xclr.training import Materials, Pretrainer, build_objective
from xclr.training.norm import SyncBatchNorm, convert_sync_batchnorm

pytestmark = pytest.mark.slow
SAMPLES, FEATURES = 16, 8
GRAPHS = ("captions", "random_class", "class", "augmentation", "random_pair")
SHARED = (
    "simclr", "supcon", "dcl", "dclw", "clip", "clip frozen", "cwcl", "cloob", "xclr mixed", "clip with gap terms",
    "siglip", "clip-lite", "cacr", "mw", "auc", "swav", "mochi", "ressl", "clip local",
)  # fmt: skip
CONFIGS = {
    **{name: OBJECTIVES[name] for name in SHARED},
    **{f"xclr {source}": XCLRConfig(graph=TargetGraph(source=source)) for source in GRAPHS},
    "softclip": SoftCLIPConfig(),
    "softsiglip": SoftSigLIPConfig(graph=TargetGraph(source="random_class")),  # cosines are looked up in float32
}
CASES = [(name, blockwise_from) for name in CONFIGS for blockwise_from in (2, 1000)]


def backbone():
    """A small network with a BatchNorm; the projectors have the other kind."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, FEATURES))


def batch(paths):
    """Rows [N] of captions, classes more than once among them, and random pictures [2N, 3, 6, 6]."""
    generator = torch.Generator().manual_seed(0)
    return torch.arange(SAMPLES) * 3, torch.randn(2 * SAMPLES, 3, 6, 6, generator=generator, dtype=torch.float64)


def build(case, paths):
    name, blockwise_from = case
    torch.manual_seed(1)
    train = TRAIN.model_copy(update={"blockwise_from": blockwise_from})
    objective = build_objective(CONFIGS[name], Materials(paths, FEATURES, train))
    if getattr(CONFIGS[name], "text", "") == "frozen":
        texts = objective.look.text
        objective.look = objective.look._replace(text=lambda rows: texts(rows).double())
    return Pretrainer(backbone(), objective).double()


def state_after(model, module, pictures, rows):
    """The loss, every gradient and every buffer after one backward pass."""
    torch.manual_seed(2)  # of what an objective draws
    loss = model(pictures, rows, module.look(rows)).loss
    loss.backward()
    gradients = {key: each.grad for key, each in module.named_parameters() if each.requires_grad}
    return {"loss": loss.detach(), "gradients": gradients, "buffers": dict(module.named_buffers())}


def on_a_rank(paths, rank, world):
    rows, pictures = batch(paths)
    results = {}
    for name, blockwise_from in CASES:
        module = convert_sync_batchnorm(build((name, blockwise_from), paths))
        assert sum(isinstance(each, SyncBatchNorm) for each in module.modules()) >= 2
        mine = shard(pictures, rank, world, views=2), shard(rows, rank, world)
        results[f"{name} {blockwise_from}"] = state_after(DistributedDataParallel(module), module, *mine)
    return results


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The home's artifacts and a class graph with a similarity of its own for each pair."""
    home = make_home(tmp_path_factory.mktemp("home"))
    count = max(home.column("label")) + 1
    vectors = np.random.default_rng(0).normal(size=(count, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    src, dst = np.divmod(np.arange(count**2), count)
    table = pa.table({"src": src, "dst": dst, "sim": (vectors @ vectors.T).ravel()}).cast(
        pa.schema([(field.name, field.type) for field in schema.GRAPH_CLASS])
    )
    folder = tmp_path_factory.mktemp("class_graph")
    schema.write(table, folder / "graph_class.parquet", schema.GRAPH_CLASS, {})
    return home.paths | {"class_graph": folder}


@pytest.fixture(scope="module")
def single(paths):
    rows, pictures = batch(paths)
    with one_thread():
        models = {f"{name} {start}": build((name, start), paths) for name, start in CASES}
        return {key: state_after(model, model, pictures, rows) for key, model in models.items()}


@pytest.fixture(scope="module", params=[2, 8])
def ranks(request, paths, tmp_path_factory):
    return run_on_ranks(partial(on_a_rank, paths), request.param, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_loss_and_every_gradient_are_those_of_one_process(ranks, single, case):
    key = f"{case[0]} {case[1]}"
    expected = single[key]
    mean = torch.stack([rank[key]["loss"] for rank in ranks]).mean()
    torch.testing.assert_close(mean, expected["loss"], rtol=1e-7, atol=0)
    assert all(gradient.abs().max() > 0 for gradient in expected["gradients"].values())
    for rank in ranks:
        assert rank[key]["gradients"].keys() == expected["gradients"].keys()
        for name, gradient in expected["gradients"].items():
            difference = rank[key]["gradients"][name] - gradient
            assert difference.norm() <= 1e-6 * gradient.norm() + 1e-9, name
        torch.testing.assert_close(rank[key]["buffers"], expected["buffers"], rtol=1e-9, atol=1e-12)
