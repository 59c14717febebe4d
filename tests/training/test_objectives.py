"""Objectives as modules: gradients everywhere, and the equalities between methods."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from tests.training.home import TRAIN
from xclr import schema
from xclr.errors import DataError
from xclr.recipe import CLIPConfig, RandomConfig, SimCLRConfig, SupConConfig, TargetGraph, XCLRConfig
from xclr.training import Materials, build_objective

FEATURES, TAU = 12, 0.2
CONFIGS = {
    "simclr": SimCLRConfig(),
    "supcon": SupConConfig(),
    "xclr": XCLRConfig(),
    "xclr by class": XCLRConfig(graph=TargetGraph(source="random_class")),
    "clip": CLIPConfig(),
    "clip frozen": CLIPConfig(text="frozen"),
}
VIEW_METHODS = ("simclr", "supcon", "xclr", "xclr by class")


@pytest.fixture(scope="module")
def paths(home, tmp_path_factory):
    """The home's artifacts and a class graph: 1 within a class, 0 between classes."""
    folder = tmp_path_factory.mktemp("class_graph")
    classes = max(home.column("label")) + 1
    src, dst = np.divmod(np.arange(classes**2), classes)
    table = pa.table({"src": src, "dst": dst, "sim": src == dst}).cast(
        pa.schema([(field.name, field.type) for field in schema.GRAPH_CLASS])
    )
    schema.write(table, folder / "graph_class.parquet", schema.GRAPH_CLASS, {})
    return home.paths | {"class_graph": folder}


def module_of(config, paths, seed=0):
    """An objective with the head weights of a seed; a class graph only where the config asks for one."""
    by_class = isinstance(config, XCLRConfig) and config.graph is not None
    roles = {role: path for role, path in paths.items() if by_class or role != "class_graph"}
    torch.manual_seed(seed)
    return build_objective(config, Materials(roles, FEATURES, TRAIN))


def features_of(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2 * len(rows), FEATURES, generator=generator)


@pytest.fixture(scope="module")
def rows(home):
    """24 rows of the training split, among them classes and captions more than once."""
    return torch.from_numpy(np.flatnonzero(home.splits == "train")[:24])


@pytest.fixture(scope="module")
def distinct(home):
    """The first row of each of 16 captions."""
    seen = {}
    for row, (caption, split) in enumerate(zip(home.column("caption"), home.splits, strict=True)):
        if split == "train":
            seen.setdefault(caption, row)
    return torch.tensor(list(seen.values())[:16])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_step_has_a_finite_loss_and_moves_every_parameter(paths, rows, name):
    module = module_of(CONFIGS[name], paths)
    features = features_of(rows).requires_grad_()
    outcome = module(features, rows)
    outcome.loss.backward()
    assert outcome.loss.ndim == 0 and outcome.loss.isfinite() and outcome.loss > 0
    assert features.grad.abs().amax(dim=1).min() > 0
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key
    assert all(value.ndim == 0 and not value.requires_grad for value in outcome.report().values())


def test_random_trains_nothing(paths):
    assert module_of(RandomConfig(), paths) is None


@pytest.mark.parametrize("name", VIEW_METHODS)
def test_view_objectives_have_the_same_head_from_the_same_seed(paths, name):
    expected, head = module_of(CONFIGS["simclr"], paths).state_dict(), module_of(CONFIGS[name], paths).state_dict()
    assert expected.keys() == head.keys() and all(torch.equal(head[key], expected[key]) for key in head)


def test_simclr_is_the_cross_entropy_of_the_other_view(paths, rows):
    module, features, n = module_of(SimCLRConfig(temperature=TAU), paths), features_of(rows), 2 * len(rows)
    z = F.normalize(module.head(features), dim=1)
    logits = (z @ z.T / TAU).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(logits, torch.arange(n).roll(-n // 2))
    torch.testing.assert_close(module(features, rows).loss, expected, rtol=1e-5, atol=1e-6)


def test_xclr_with_cold_targets_and_distinct_captions_is_simclr(paths, distinct):
    config = XCLRConfig(temperature=TAU, target_temperature=1e-4)
    features = features_of(distinct)
    expected = module_of(SimCLRConfig(temperature=TAU), paths)(features, distinct)
    outcome = module_of(config, paths)(features, distinct)
    torch.testing.assert_close(outcome.loss, expected.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outcome.report(), expected.report(), rtol=1e-5, atol=1e-6)


def test_xclr_with_cold_targets_draws_equal_captions_together(home, paths):
    """Where SimCLR would push them apart: two rows of one caption share the mass."""
    captions = home.column("caption")
    pair = next((a, b) for b, a in enumerate(map(captions.index, captions)) if a < b)
    rows = torch.tensor(pair)
    report = module_of(XCLRConfig(target_temperature=1e-4), paths)(features_of(rows), rows).report()
    assert report["positive_mass"].item() == pytest.approx(1 / 3, abs=1e-3)
    assert report["target_entropy"].item() == pytest.approx(math.log(3), abs=1e-3)


def test_xclr_with_hot_targets_has_uniform_ones(paths, distinct):
    report = module_of(XCLRConfig(target_temperature=1e4), paths)(features_of(distinct), distinct).report()
    assert report["target_entropy"].item() == pytest.approx(math.log(2 * len(distinct) - 1), abs=1e-4)
    assert report["positive_mass"].item() == pytest.approx(1 / (2 * len(distinct) - 1), abs=1e-4)


def test_supcon_is_xclr_with_a_cold_class_graph(paths, rows):
    graph = TargetGraph(source="random_class")
    features = features_of(rows)
    expected = module_of(SupConConfig(temperature=TAU), paths)(features, rows)
    config = XCLRConfig(temperature=TAU, target_temperature=1e-3, graph=graph)
    outcome = module_of(config, paths)(features, rows)
    torch.testing.assert_close(outcome.loss, expected.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outcome.report(), expected.report(), rtol=1e-5, atol=1e-6)
    simclr = module_of(SimCLRConfig(temperature=TAU), paths)(features, rows)
    assert abs(simclr.loss - outcome.loss) > 1e-3  # there are classes with more than one sample


def test_supcon_refuses_data_without_classes(paths, tmp_path):
    table = schema.read(paths["captions"] / "captions.parquet", schema.CAPTIONS)
    empty = pa.nulls(table.num_rows, pa.int32())
    table = table.set_column(table.column_names.index("label"), "label", empty)
    schema.write(table, tmp_path / "captions.parquet", schema.CAPTIONS, {})
    with pytest.raises(DataError, match="no classes"):
        module_of(SupConConfig(), paths | {"captions": tmp_path})


def test_a_row_without_a_class_has_only_its_other_view(home, paths, rows, tmp_path):
    table = schema.read(paths["captions"] / "captions.parquet", schema.CAPTIONS)
    labels = pa.array([None if row % 2 else label for row, label in enumerate(home.column("label"))], pa.int32())
    table = table.set_column(table.column_names.index("label"), "label", labels)
    schema.write(table, tmp_path / "captions.parquet", schema.CAPTIONS, {})
    odd = rows[rows % 2 == 1]
    outcome = module_of(SupConConfig(), paths | {"captions": tmp_path})(features_of(odd), odd)
    assert outcome.report()["target_entropy"] == 0 and outcome.report()["positive_mass"] == 1


def test_simclr_reports_one_hot_targets(paths, rows):
    report = module_of(SimCLRConfig(), paths)(features_of(rows), rows).report()
    assert report == {"target_entropy": 0, "positive_mass": 1}


def test_supcon_reports_uniform_targets_over_the_class(home, paths, rows):
    labels = np.asarray(home.column("label"))[rows.numpy()]
    positives = 2 * (labels[:, None] == labels).sum(axis=1) - 1
    report = module_of(SupConConfig(), paths)(features_of(rows), rows).report()
    assert report["target_entropy"].item() == pytest.approx(np.log(positives).mean(), rel=1e-5)
    assert report["positive_mass"].item() == pytest.approx((1 / positives).mean(), rel=1e-5)
    assert positives.max() > 1


@pytest.mark.parametrize("text", ["scratch", "frozen"])
def test_clip_with_one_view_twice_is_open_clips_loss(paths, rows, text):
    module = module_of(CLIPConfig(text=text), paths)
    features = features_of(rows)[: len(rows)].repeat(2, 1)
    z = F.normalize(module.head(features), dim=1)[: len(rows)]
    t = F.normalize(module.text(module.texts[rows]), dim=1)
    expected = ClipLoss()(z, t, module.log_scale.exp())
    torch.testing.assert_close(module(features, rows).loss, expected, rtol=1e-5, atol=1e-6)


def test_clip_is_the_mean_of_its_two_views(paths, rows):
    module = module_of(CLIPConfig(), paths)
    features = features_of(rows)
    z = F.normalize(module.head(features), dim=1)
    t = F.normalize(module.text(module.texts[rows]), dim=1)
    both = [ClipLoss()(view, t, module.log_scale.exp()) for view in z.chunk(2)]
    torch.testing.assert_close(module(features, rows).loss, sum(both) / 2, rtol=1e-5, atol=1e-6)


def test_clips_scale_starts_at_the_inverse_temperature(paths, rows):
    report = module_of(CLIPConfig(init_temperature=0.07), paths)(features_of(rows), rows).report()
    assert report["scale"].item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_clips_scale_is_never_above_its_limit(paths, rows):
    module = module_of(CLIPConfig(text="frozen", max_scale=20.0), paths)
    optimizer = torch.optim.SGD([module.log_scale], lr=0.5)
    scales = []
    for _ in range(5):
        scales.append(module(features_of(rows), rows).report()["scale"].item())
        module.log_scale.grad = torch.tensor(-1.0)  # as data that always ask for a larger scale
        optimizer.step()
    assert scales == sorted(scales) and scales[0] < scales[-1] == pytest.approx(20.0, rel=1e-6)


def test_clips_scale_comes_down_again_from_its_limit(paths, rows):
    """The logits of an untrained model at scale 100 are far too large, and the gradient must be able to say so."""
    module = module_of(CLIPConfig(text="frozen", max_scale=100.0), paths)
    with torch.no_grad():
        module.log_scale.fill_(math.log(100.0) + 0.01)  # one step of the optimiser past the limit
    optimizer = torch.optim.SGD([module.log_scale], lr=0.05)
    scales = []
    for _ in range(5):
        optimizer.zero_grad()
        outcome = module(features_of(rows), rows)
        outcome.loss.backward()
        optimizer.step()
        scales.append(outcome.report()["scale"].item())
    assert scales[-1] < 99


def test_clips_vocabulary_is_of_the_training_captions_only(home, paths):
    module = module_of(CLIPConfig(), paths)
    splits, texts = home.splits, module.texts
    assert texts.shape[0] == len(splits)
    trained = texts[torch.from_numpy(splits == "train")]
    assert set(trained.unique().tolist()) - {0} == set(range(2, module.text.words.num_embeddings))
    assert (texts[torch.from_numpy(splits != "train")] == 1).any()
