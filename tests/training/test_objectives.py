"""Objectives as modules: gradients everywhere, and the equalities between methods."""

import math

import numpy as np
import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss

from tests.kit.home import TRAIN
from tests.kit.objectives import CONFIGS
from xclr import schema
from xclr.errors import DataError
from xclr.recipe import (
    CLIPConfig,
    CLIPLiteConfig,
    CLOOBConfig,
    CWCLConfig,
    DCLConfig,
    DCLWConfig,
    GraphedConfig,
    SigLIPConfig,
    SimCLRConfig,
    SoftCLIPConfig,
    SoftSigLIPConfig,
    SupConConfig,
    TargetGraph,
    TextConfig,
    XCLRConfig,
)
from xclr.training import Materials, build_objective
from xclr.training.objectives.materials import Averaged, Looked
from xclr.training.objectives.pairs import towers_of
from xclr.training.objectives.report import spread_report
from xclr.training.watch import SAME

FEATURES, TAU = 12, 0.2
PINNED = {
    "simclr": 6.09562,
    "supcon": 6.13399,
    "xclr": 6.15593,
    "xclr by class": 6.13434,
    "clip": 6.48021,
    "clip frozen": 5.25676,
    "clip bpe": 5.15369,
    "clip words": 6.15229,
    "dcl": 6.07115,
    "dclw": 7.77827,
    "cwcl": 5.19179,
    "softclip": 5.23778,
    "cloob": 0.801597,
    "xclr mixed": 6.11974,
    "clip with gap terms": 4.4731,
    "siglip": 44.4102,
    "softsiglip": 45.7733,
    "clip-lite": 3.36127,
    "cacr": 0.224996,
    "mw": 1.59908,
    "auc": 1.75004,
    "swav": 4.72651,
    "moco": 4.26619,
    "mochi": 5.06965,
    "ressl": 5.83808,
    "clip local": 12.8431,
}
VIEW_METHODS = ("simclr", "supcon", "xclr", "xclr by class", "dcl", "dclw")


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


def module_of(config, paths, seed=0, train=TRAIN):
    """An objective with the head weights of a seed."""
    torch.manual_seed(seed)
    return build_objective(config, Materials(paths, FEATURES, train))


def head_of(module):
    return getattr(module, "towers", module).head


def outcome_of(module, features, rows):
    """A step's, of rows whose captions are looked up as the loader does; what a step would leave behind is undone."""
    kept = [each for name, each in module.named_buffers() if module.averaging and "head" not in name]
    before, looked = [each.clone() for each in kept], module.look(rows)
    torch.manual_seed(1)
    outcome = module(features, rows, looked, *averaged_of(module, features))
    for each, value in zip(kept, before, strict=True):
        each.copy_(value)
    return outcome


@torch.no_grad()
def averaged_of(module, features):
    """What an average makes of a batch, where there is one: here it is the network itself."""
    if module.averaging is None:
        return ()
    apart = features.square().mean() if module.averaging.maps else None
    return (Averaged(F.normalize(module.head(features), dim=1), apart),)


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
    outcome = outcome_of(module, features, rows)
    outcome.loss.backward()
    assert outcome.loss.ndim == 0 and outcome.loss.isfinite() and outcome.loss != 0
    assert features.grad.abs().amax(dim=1).min() > 0
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key
    assert all(value.ndim == 0 and not value.requires_grad for value in outcome.report().values())


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_of_a_fixed_batch_stays_what_it_was(paths, rows, name):
    """Where a loss changes on purpose, the code version of PRETRAIN goes up and the value here is replaced."""
    found = outcome_of(module_of(CONFIGS[name], paths), features_of(rows), rows).loss.item()
    assert found == pytest.approx(PINNED[name], rel=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_constant_features_have_the_loss_of_chance(paths, rows, name):
    """One picture and its caption throughout, in the queue too: every candidate is as near as any other."""
    config = CONFIGS[name].model_copy(update={"words_left_out": 0.0} if name == "clip local" else {})
    module, same, features = module_of(config, paths), rows[:1].repeat(24), features_of(rows)[:1].repeat(48, 1)
    for step in range(2 if module.averaging else 0):
        module(features, rows, Looked(graph=-2 - step - rows), *averaged_of(module, features))
    outcome = outcome_of(module, features, same)
    with torch.no_grad():  # as the step does, after which chance is asked for
        for parameter in module.parameters():
            parameter.add_(0.01)
    assert outcome.loss.item() == pytest.approx(float(outcome.chance()), rel=1e-5, abs=1e-6)
    assert outcome.report()["uniformity"].item() > SAME


@pytest.mark.parametrize("name", VIEW_METHODS)
def test_view_objectives_have_the_same_head_from_the_same_seed(paths, name):
    expected, head = module_of(CONFIGS["simclr"], paths).state_dict(), module_of(CONFIGS[name], paths).state_dict()
    assert expected.keys() == head.keys() and all(torch.equal(head[key], expected[key]) for key in head)


def test_simclr_is_the_cross_entropy_of_the_other_view(paths, rows):
    module, features, n = module_of(SimCLRConfig(temperature=TAU), paths), features_of(rows), 2 * len(rows)
    z = F.normalize(head_of(module)(features), dim=1)
    logits = (z @ z.T / TAU).fill_diagonal_(-math.inf)
    expected = F.cross_entropy(logits, torch.arange(n).roll(-n // 2))
    torch.testing.assert_close(outcome_of(module, features, rows).loss, expected, rtol=1e-5, atol=1e-6)


def test_xclr_without_a_share_of_the_graph_is_simclr_and_its_loss_is_linear_in_that(paths, rows):
    features = features_of(rows)

    def loss(config):
        return outcome_of(module_of(config, paths), features, rows).loss

    simclr, half, whole = (loss(XCLRConfig(temperature=TAU, mix=mix)) for mix in (0.0, 0.5, 1.0))
    assert torch.equal(simclr, loss(SimCLRConfig(temperature=TAU)))
    assert torch.equal(whole, loss(XCLRConfig(temperature=TAU)))
    torch.testing.assert_close(half, (simclr + whole) / 2)
    assert (simclr - whole).abs() > 1e-3


def test_siglip_on_a_graph_that_knows_nothing_is_siglip(paths, distinct):
    features = features_of(distinct)
    config = SoftSigLIPConfig(text="frozen", target_temperature=0.01, graph=TargetGraph(source="augmentation"))
    soft, hard = (
        outcome_of(module_of(each, paths), features, distinct) for each in (config, SigLIPConfig(text="frozen"))
    )
    torch.testing.assert_close(soft.loss, hard.loss)
    by_captions = outcome_of(module_of(SoftSigLIPConfig(text="frozen"), paths), features, distinct)
    assert by_captions.report()["target_entropy"] > 0 and (by_captions.loss - hard.loss).abs() > 1e-3


def test_siglips_equal_captions_are_one(home, paths, rows):
    features, module = features_of(rows), module_of(SigLIPConfig(text="frozen"), paths)
    looked = module.look(rows)
    captions = [home.column("caption")[row] for row in rows.tolist()]
    matches = module.targets(module.towers(features, looked, 0.1)[0])(slice(None))
    assert matches.sum(1).tolist() == [captions.count(each) for each in captions]
    assert matches.sum() > len(rows)


def test_siglips_scale_and_bias_begin_where_they_are_set(paths, rows):
    report = outcome_of(module_of(SigLIPConfig(text="frozen", init_bias=-4.0), paths), features_of(rows), rows).report()
    assert report["temperature"].item() == pytest.approx(0.1) and report["bias"].item() == -4
    assert report["target_entropy"].item() == 0


def test_terms_of_the_gap_add_up(paths, rows):
    features = features_of(rows)

    def loss(**terms):
        return outcome_of(module_of(CLIPConfig(text="frozen", **terms), paths), features, rows).loss

    plain, one, all_ = loss(), loss(alignment=0.5), loss(alignment=0.5, uniformity=0.7, cross_uniformity=0.3)
    pairs = module_of(CLIPConfig(text="frozen"), paths).towers(
        features, module_of(CLIPConfig(text="frozen"), paths).look(rows), 0.07
    )
    apart = [(each.pictures - each.captions).square().sum(1).mean() for each in pairs]
    torch.testing.assert_close(one - plain, 0.5 * sum(apart) / 2, rtol=1e-4, atol=1e-6)
    spread = [torch.pdist(side).square().mul(-2).exp().mean().log() for each in pairs for side in each[:2]]
    crossed = [
        (-2 * torch.cdist(each.pictures, each.captions).square()).exp()[~torch.eye(24, dtype=torch.bool)].mean().log()
        for each in pairs
    ]
    torch.testing.assert_close(all_ - one, 0.7 * sum(spread) / 4 + 0.3 * sum(crossed) / 2, rtol=1e-4, atol=1e-5)


def test_clip_lites_other_caption_is_the_one_before(paths, rows):
    module, features = module_of(CLIPLiteConfig(text="frozen"), paths), features_of(rows)
    looked = module.look(rows)
    expected = []
    for pairs in module.towers(features, looked, module.temperature()):
        scores = pairs.pictures @ pairs.captions.T / pairs.temperature
        before = scores.diagonal(-1).tolist()
        matched, other = scores.diagonal(), torch.tensor([scores[0, -1].item(), *before])
        expected.append((F.softplus(-matched) + F.softplus(other)).mean())
    torch.testing.assert_close(outcome_of(module, features, rows).loss, sum(expected) / 2)


def test_xclr_with_cold_targets_and_distinct_captions_is_simclr(paths, distinct):
    config = XCLRConfig(temperature=TAU, target_temperature=1e-4)
    features = features_of(distinct)
    expected = outcome_of(module_of(SimCLRConfig(temperature=TAU), paths), features, distinct)
    outcome = outcome_of(module_of(config, paths), features, distinct)
    torch.testing.assert_close(outcome.loss, expected.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outcome.report(), expected.report(), rtol=1e-5, atol=2e-5)


def test_xclr_with_cold_targets_draws_equal_captions_together(home, paths):
    """Where SimCLR would push them apart: two rows of one caption share the mass."""
    captions = home.column("caption")
    pair = next((a, b) for b, a in enumerate(map(captions.index, captions)) if a < b)
    rows = torch.tensor(pair)
    report = outcome_of(module_of(XCLRConfig(target_temperature=1e-4), paths), features_of(rows), rows).report()
    assert report["positive_mass"].item() == pytest.approx(1 / 3, abs=1e-3)
    assert report["target_entropy"].item() == pytest.approx(math.log(3), abs=1e-3)


def test_xclr_with_hot_targets_has_uniform_ones(paths, distinct):
    report = outcome_of(module_of(XCLRConfig(target_temperature=1e4), paths), features_of(distinct), distinct).report()
    assert report["target_entropy"].item() == pytest.approx(math.log(2 * len(distinct) - 1), abs=1e-4)
    assert report["positive_mass"].item() == pytest.approx(1 / (2 * len(distinct) - 1), abs=1e-4)


def test_supcon_is_xclr_with_a_cold_class_graph(paths, rows):
    graph = TargetGraph(source="random_class")
    features = features_of(rows)
    expected = outcome_of(module_of(SupConConfig(temperature=TAU), paths), features, rows)
    config = XCLRConfig(temperature=TAU, target_temperature=1e-3, graph=graph)
    outcome = outcome_of(module_of(config, paths), features, rows)
    torch.testing.assert_close(outcome.loss, expected.loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(outcome.report(), expected.report(), rtol=1e-5, atol=2e-5)
    simclr = outcome_of(module_of(SimCLRConfig(temperature=TAU), paths), features, rows)
    assert abs(simclr.loss - outcome.loss) > 1e-3  # there are classes with more than one sample


def test_supcon_is_of_the_judged_classes_or_of_concepts(home, paths, rows):
    """On the emoji the subgroups, by which suites judge, and all drawings of one thing."""
    judged = schema.read(home.paths["captions"] / "annotations.parquet", schema.ANNOTATIONS)["subgroup"].to_numpy()
    labels = {"judged": judged, "concepts": np.array(home.column("label"))}
    for classes, of_row in labels.items():
        found = outcome_of(module_of(SupConConfig(classes=classes), paths), features_of(rows), rows).report()[
            "target_entropy"
        ]
        own = of_row[rows].tolist()
        expected = np.mean([math.log(2 * own.count(each) - 1) for each in own])
        assert found.item() == pytest.approx(expected, rel=1e-5)


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
    outcome = outcome_of(module_of(SupConConfig(), paths | {"captions": tmp_path}), features_of(odd), odd)
    assert outcome.report()["target_entropy"] == 0 and outcome.report()["positive_mass"] == 1


def test_simclr_reports_one_hot_targets(paths, rows):
    report = outcome_of(module_of(SimCLRConfig(), paths), features_of(rows), rows).report()
    assert report["target_entropy"] == 0 and report["positive_mass"] == 1


def test_supcon_reports_uniform_targets_over_the_class(home, paths, rows):
    labels = np.asarray(home.column("label"))[rows.numpy()]
    positives = 2 * (labels[:, None] == labels).sum(axis=1) - 1
    report = outcome_of(module_of(SupConConfig(), paths), features_of(rows), rows).report()
    assert report["target_entropy"].item() == pytest.approx(np.log(positives).mean(), rel=1e-5)
    assert report["positive_mass"].item() == pytest.approx((1 / positives).mean(), rel=1e-5)
    assert positives.max() > 1


@pytest.mark.parametrize("text", ["scratch", "frozen"])
def test_clip_with_one_view_twice_is_open_clips_loss(paths, rows, text):
    module = module_of(CLIPConfig(text=text), paths)
    features = features_of(rows)[: len(rows)].repeat(2, 1)
    z = F.normalize(head_of(module)(features), dim=1)[: len(rows)]
    t = F.normalize(module.towers.text(module.look.text(rows)), dim=1)
    expected = ClipLoss()(z, t, module.scale())
    torch.testing.assert_close(outcome_of(module, features, rows).loss, expected, rtol=1e-5, atol=1e-6)


def test_smoothed_targets_are_torchs(paths, rows):
    """Cross-entropy with label smoothing, in both directions, of one view twice."""
    module = module_of(CLIPConfig(text="frozen", label_smoothing=0.2), paths)
    features = features_of(rows)[: len(rows)].repeat(2, 1)
    with torch.no_grad():
        pairs = module.towers(features, module.look(rows), 0.07)[0]
        logits, own = pairs.pictures @ pairs.captions.T / 0.07, torch.arange(len(rows))
        expected = [F.cross_entropy(each, own, label_smoothing=0.2) for each in (logits, logits.T)]
        assert outcome_of(module, features, rows).loss.item() == pytest.approx(sum(expected).item() / 2, rel=1e-4)


def test_clip_is_the_mean_of_its_two_views(paths, rows):
    module = module_of(CLIPConfig(), paths)
    features = features_of(rows)
    z = F.normalize(head_of(module)(features), dim=1)
    t = F.normalize(module.towers.text(module.look.text(rows)), dim=1)
    both = [ClipLoss()(view, t, module.scale()) for view in z.chunk(2)]
    torch.testing.assert_close(outcome_of(module, features, rows).loss, sum(both) / 2, rtol=1e-5, atol=1e-6)


def test_local_pairs_add_a_contrast_of_second_projections_of_short_captions(paths, rows):
    """open_clip's, of either view, beside the loss of clip, whose weights a seed gives this one too."""
    module, features = module_of(CLIPConfig(local=0.7, words_left_out=0.3), paths), features_of(rows)
    plain = outcome_of(module_of(CLIPConfig(), paths), features, rows)
    found, tokens = outcome_of(module, features, rows), module.look.text(rows)
    torch.manual_seed(1)
    short = []
    for line, numbers in zip(tokens.tolist(), torch.rand(tokens.shape).tolist(), strict=True):
        words = [(number, word) for number, word in zip(numbers, line, strict=True) if word]
        kept = [word for number, word in words if number >= min(0.3, max(words)[0])]
        short.append(kept + [0] * (len(line) - len(kept)))
    z = F.normalize(module.local.head(features), dim=1)
    t = F.normalize(module.towers.text(torch.tensor(short)) @ module.local.text.weight.T, dim=1)
    local = sum(ClipLoss()(view, t, module.scale()) for view in z.chunk(2)) / 2
    torch.testing.assert_close(found.loss, plain.loss + 0.7 * local, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.report(), plain.report() | {"local_loss": local.detach()}, rtol=1e-5, atol=1e-6)
    assert 0.1 < (tokens != 0).sum() / torch.tensor(short).ne(0).sum() - 1 < 1 and (local - plain.loss).abs() > 1e-3


def test_local_pairs_without_weight_are_clip(paths, rows):
    found = []
    for config in (CLIPConfig(), CLIPConfig(local=0, words_left_out=0.3)):
        module = module_of(config, paths)
        outcome = outcome_of(module, features_of(rows), rows)
        found.append([outcome.loss, *outcome.report().values(), torch.get_rng_state(), *module.state_dict().values()])
    assert len(found[0]) == len(found[1]) and all(map(torch.equal, *found))


def test_with_local_pairs_the_towers_that_are_saved_are_clips(paths):
    """The same parts, and from a seed the same weights."""
    module, clip = (module_of(config, paths) for config in (CONFIGS["clip local"], CONFIGS["clip"]))
    own, expected = (towers_of(each).state_dict() for each in (module, clip))
    assert own.keys() == expected.keys() and all(torch.equal(own[key], expected[key]) for key in own)
    assert not torch.equal(module.local.head[0].weight, module.towers.head[0].weight)


def test_local_pairs_have_the_smoothed_targets_of_the_others(paths, rows):
    """Whose entropy is the least that either term can be."""
    reports = [
        outcome_of(module_of(CLIPConfig(label_smoothing=0.1, local=local), paths), features_of(rows), rows).report()
        for local in (0.0, 0.5)
    ]
    assert reports[0]["target_entropy"] > 0.1
    torch.testing.assert_close(reports[1]["target_entropy"], 1.5 * reports[0]["target_entropy"])


@pytest.mark.parametrize("tokens", ["bpe", "words"])
def test_a_short_caption_of_clips_tower_ends_as_it_did(paths, rows, tokens):
    """At its end token, which open_clip finds as the largest id; and no length of a batch changes what is drawn."""
    text = TextConfig(width=16, layers=1, heads=2, context=20, tokens=tokens)
    module = module_of(CLIPConfig(text=text, local=1.0, words_left_out=0.9), paths)
    whole = module.look.text(rows)
    torch.manual_seed(1)
    short = module.local.shorten(whole)
    marks = module.local.reading.marks
    for line, other in zip(whole.tolist(), short.tolist(), strict=True):
        kept = [each for each in other if each]
        assert other == kept + [0] * (len(line) - len(kept))
        assert kept[-1] == max(kept) == max(line) and (tokens == "words" or kept[0] == line[0] == marks)
        assert 1 <= sum(each < marks for each in kept) <= sum(0 < each < marks for each in line)
    assert (short != 0).sum() < (whole != 0).sum()
    torch.manual_seed(1)
    assert torch.equal(
        module.local.shorten(F.pad(whole, (0, 20 - whole.shape[1]))), F.pad(short, (0, 20 - whole.shape[1]))
    )


def test_the_share_of_words_that_are_left_out_is_the_configs(paths):
    local = module_of(CONFIGS["clip local"], paths).local
    captions = torch.ones(2000, local.reading.tokens, dtype=torch.int64)
    assert (local.shorten(captions) == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_clips_scale_starts_at_the_inverse_temperature(paths, rows):
    report = outcome_of(module_of(CLIPConfig(init_temperature=0.07), paths), features_of(rows), rows).report()
    assert report["temperature"].item() == pytest.approx(0.07, rel=1e-5)


def test_clips_scale_is_never_above_its_limit(paths, rows):
    module = module_of(CLIPConfig(text="frozen", max_scale=20.0), paths)
    optimizer = torch.optim.SGD([module.scale.log], lr=0.5)
    scales = []
    for _ in range(5):
        scales.append(1 / outcome_of(module, features_of(rows), rows).report()["temperature"].item())
        module.scale.log.grad = torch.tensor(-1.0)  # as data that always ask for a larger scale
        optimizer.step()
    assert scales == sorted(scales) and scales[0] < scales[-1] == pytest.approx(20.0, rel=1e-6)


def test_clips_scale_is_never_below_one_and_rises_again(paths, rows):
    module = module_of(CLIPConfig(text="frozen"), paths)
    optimizer = torch.optim.SGD([module.scale.log], lr=0.5)
    scales = []
    for slope in [9.0] * 3 + [-1.0] * 2:
        scales.append(1 / outcome_of(module, features_of(rows), rows).report()["temperature"].item())
        module.scale.log.grad = torch.tensor(slope)
        optimizer.step()
    scales.append(module.scale().item())
    assert scales[1:4] == [1.0, 1.0, 1.0] and 1 < scales[4] < scales[5]


def test_clips_scale_comes_down_again_from_its_limit(paths, rows):
    """The logits of an untrained model at scale 100 are far too large, and the gradient must be able to say so."""
    module = module_of(CLIPConfig(text="frozen", max_scale=100.0), paths)
    with torch.no_grad():
        module.scale.log.fill_(math.log(100.0) + 0.01)  # one step of the optimiser past the limit
    optimizer = torch.optim.SGD([module.scale.log], lr=0.05)
    scales = []
    for _ in range(5):
        optimizer.zero_grad()
        outcome = outcome_of(module, features_of(rows), rows)
        outcome.loss.backward()
        optimizer.step()
        scales.append(1 / outcome.report()["temperature"].item())
    assert scales[-1] < 99


def test_clips_vocabulary_is_of_the_training_captions_only(home, paths):
    module = module_of(CLIPConfig(), paths)
    splits = home.splits
    texts = module.look.text(torch.arange(len(splits)))
    assert texts.shape[0] == len(splits)
    trained = texts[torch.from_numpy(splits == "train")]
    assert set(trained.unique().tolist()) - {0} == set(range(2, module.towers.text.words.num_embeddings))
    assert (texts[torch.from_numpy(splits != "train")] == 1).any()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_block_by_block_every_objective_has_the_plain_value_and_gradients(paths, rows, name, dtype, tolerance):
    config, found = CONFIGS[name], []
    if dtype == torch.float64 and isinstance(config, GraphedConfig):  # cosines are looked up in float32
        config = config.model_copy(update={"graph": TargetGraph(source="random_class")})
    for blockwise_from in (2, 1000):
        module = module_of(config, paths, train=TRAIN.model_copy(update={"blockwise_from": blockwise_from}))
        module.to(dtype)
        if dtype == torch.float64 and getattr(config, "text", "") == "frozen":
            texts = module.look.text
            module.look = module.look._replace(text=lambda rows, texts=texts: texts(rows).double())
        features = features_of(rows).to(dtype).requires_grad_()
        loss = outcome_of(module, features, rows).loss
        gradients = torch.autograd.grad(loss, [features, *module.parameters()])
        found.append((loss, gradients))
    (blocks, by_blocks), (plain, by_plain) = found
    torch.testing.assert_close(blocks, plain, rtol=tolerance, atol=0)
    for theirs, own in zip(by_blocks, by_plain, strict=True):
        assert (theirs - own).norm() <= tolerance * by_plain[0].norm() + tolerance * own.norm()


@pytest.mark.parametrize("name", CONFIGS)
def test_block_by_block_every_report_is_the_plain_one(paths, rows, name):
    reports = [
        outcome_of(
            module_of(CONFIGS[name], paths, train=TRAIN.model_copy(update={"blockwise_from": start})),
            features_of(rows),
            rows,
        )
        for start in (2, 1000)
    ]
    torch.testing.assert_close(reports[0].report(), reports[1].report(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", [name for name in CONFIGS if name not in {"clip-lite", "mochi", "clip local"}]
)  # whose other caption is the one before, and whose negatives, or words left out, are drawn for each place
def test_the_order_of_the_batch_changes_no_loss(paths, rows, name):
    module, features, order = module_of(CONFIGS[name], paths), features_of(rows), torch.randperm(len(rows))
    shuffled = features.unflatten(0, (2, -1))[:, order].flatten(0, 1)
    torch.testing.assert_close(
        outcome_of(module, shuffled, rows[order]).loss, outcome_of(module, features, rows).loss, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("blockwise_from", [2, 1000])
def test_autocast_to_bfloat16_gives_no_nan_and_about_the_same(paths, rows, name, blockwise_from):
    module = module_of(CONFIGS[name], paths, train=TRAIN.model_copy(update={"blockwise_from": blockwise_from}))
    features = features_of(rows).requires_grad_()
    expected = outcome_of(module, features, rows).loss
    (slope,) = torch.autograd.grad(expected, features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = outcome_of(module, features, rows).loss
    (gradient,) = torch.autograd.grad(loss, features)
    assert loss.dtype == torch.float32 and gradient.isfinite().all()
    torch.testing.assert_close(loss, expected, rtol=0.05, atol=0.05)
    assert torch.cosine_similarity(gradient.flatten(), slope.flatten(), dim=0) > 0.95


def pairs_of(module, features, rows):
    """Unit pictures of both views and captions, as the towers make them."""
    z = F.normalize(module.towers.head(features), dim=1)
    return z.chunk(2), F.normalize(module.towers.text(module.look.text(rows)), dim=1)


def cross_entropy(logits, targets):
    return (logits.logsumexp(1) - (targets * logits).sum(1)).mean()


def test_cwcl_draws_captions_to_all_pictures_in_proportion_to_the_graph(paths, rows):
    """arXiv 2309.14580, equation 3: the frozen modality's similarities weigh; the other direction is CLIP's."""
    module, features = module_of(CWCLConfig(text="frozen"), paths), features_of(rows)
    vectors = torch.from_numpy(np.load(paths["embeddings"] / "vectors.npy")[rows.numpy()]).float()
    weights = (vectors @ vectors.T + 1) / 2
    views, t = pairs_of(module, features, rows)
    expected = []
    for z in views:
        logits = t @ z.T / 0.07
        by_hand = -(weights / weights.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
        expected += [by_hand, F.cross_entropy(logits.T, torch.arange(len(rows)))]
    torch.testing.assert_close(outcome_of(module, features, rows).loss, sum(expected) / 4, rtol=1e-5, atol=1e-6)


def test_softclip_softens_the_own_caption_by_likeness_inside_each_modality(paths, rows):
    module, features = module_of(SoftCLIPConfig(text="frozen", mix=0.4), paths), features_of(rows)
    views, t = pairs_of(module, features, rows)
    own, losses = torch.eye(len(rows)), []
    for z in views:
        for a, b in ((z, t), (t, z)):
            targets = 0.6 * own + 0.4 * (a @ a.T / 0.07).softmax(1).detach()
            losses.append(cross_entropy(a @ b.T / 0.07, targets))
    torch.testing.assert_close(outcome_of(module, features, rows).loss, sum(losses) / 4, rtol=1e-5, atol=1e-6)


def test_softclip_without_softening_is_clip(paths, rows):
    soft, hard = (
        outcome_of(module_of(each, paths), features_of(rows), rows)
        for each in (SoftCLIPConfig(text="frozen", mix=0), CLIPConfig(text="frozen"))
    )
    torch.testing.assert_close(soft.loss, hard.loss, rtol=1e-6, atol=0)
    assert soft.report()["positive_mass"] == hard.report()["positive_mass"] == 1


def leave_one_out(a, b, tau):
    """InfoLOOB of arXiv 2110.11316, equation 2, row by row."""
    logits = a @ b.T / tau
    terms = []
    for i in range(len(a)):
        others = [j for j in range(len(b)) if j != i]
        terms.append(logits[i, others].logsumexp(0) - logits[i, i])
    return torch.stack(terms).mean()


def retrieved(queries, stored, beta):
    return F.normalize((beta * queries @ stored.T).softmax(1) @ stored, dim=1)


def test_cloob_is_infoloob_on_what_hopfield_networks_retrieve(paths, rows):
    module, features, tau = module_of(CLOOBConfig(), paths), features_of(rows), 1 / 30
    views, y = pairs_of(module, features, rows)
    losses = [
        tau * leave_one_out(retrieved(x, x, 8), retrieved(y, x, 8), tau)
        + tau * leave_one_out(retrieved(y, y, 8), retrieved(x, y, 8), tau)
        for x in views
    ]
    torch.testing.assert_close(outcome_of(module, features, rows).loss, sum(losses) / 2, rtol=1e-4, atol=1e-6)


def test_dclw_with_a_wide_sigma_is_dcl(paths, rows):
    wide, dcl = (
        outcome_of(module_of(each, paths), features_of(rows), rows) for each in (DCLWConfig(sigma=1e6), DCLConfig())
    )
    torch.testing.assert_close(wide.loss, dcl.loss, rtol=1e-5, atol=1e-6)


def test_xclr_on_the_class_graph_with_cold_targets_is_supcon(paths, rows):
    cold = XCLRConfig(target_temperature=1e-3, graph=TargetGraph(source="class"))
    losses = [outcome_of(module_of(each, paths), features_of(rows), rows).loss for each in (cold, SupConConfig())]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


def test_xclr_on_the_augmentation_graph_with_cold_targets_is_simclr(paths, rows):
    cold = XCLRConfig(target_temperature=1e-3, graph=TargetGraph(source="augmentation"))
    losses = [outcome_of(module_of(each, paths), features_of(rows), rows).loss for each in (cold, SimCLRConfig())]
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


def test_alignment_and_uniformity_are_those_of_their_paper():
    first, second = (F.normalize(torch.randn(40, 6), dim=1) for _ in range(2))
    report = spread_report(first, second)
    pairs = [(first[i] - first[j]).square().sum() for i in range(40) for j in range(i)]
    assert report["alignment"].item() == pytest.approx((first - second).square().sum(1).mean().item(), rel=1e-5)
    assert report["uniformity"].item() == pytest.approx(torch.stack(pairs).mul(-2).exp().mean().log().item(), rel=1e-4)
