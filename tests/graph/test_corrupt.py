"""The truth of scenes as a graph, and graphs whose edges were tampered with."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from tests.kit.scenes import made_captions, scenes_recipe
from xclr.captions.shared import factors_of
from xclr.errors import DataError, RecipeError
from xclr.graph import SameClass, open_similarity
from xclr.graph.similarity import Corrupted, EmbeddingLookup, SharedFactors
from xclr.recipe import GraphConfig, Recipe, TargetGraph, XCLRConfig, graph_name, parse_recipe, with_graph
from xclr.training.stages import objectives

RARE = 1e-4


@pytest.fixture(scope="module")
def captions(tmp_path_factory):
    return made_captions(tmp_path_factory.mktemp("scenes")).path


def graph(source="truth", **corrupt):
    return TargetGraph(source=source, corrupt=corrupt or None)


def whole(source, n=300):
    rows = torch.arange(n)
    return source.block(rows, rows)


def pairs(n):
    return torch.ones(n, n).triu(1).bool()


def test_the_truth_is_the_share_of_factors_in_common(captions):
    found = whole(open_similarity(graph(), {"captions": captions}))
    factors = np.stack(list(factors_of(captions).values()), 1)[:300]
    torch.testing.assert_close(found, torch.from_numpy((factors[:, None] == factors[None]).mean(2)).float())
    assert found.dtype == torch.float32


def test_corruption_changes_the_shares_of_edges_that_it_says(captions):
    inputs = {"captions": captions}
    clean = whole(open_similarity(graph(), inputs))[pairs(300)]
    found = whole(open_similarity(graph(drop=0.3, add=0.2), inputs))
    torch.testing.assert_close(found, found.T)
    assert (found.diagonal() == 1).all()
    found = found[pairs(300)]
    edge = clean >= 0.6
    lost, added = edge & (found < 0.6), ~edge & (found == 1)
    assert binomtest(int(lost.sum()), int(edge.sum()), 0.3).pvalue > RARE
    assert added.sum() / edge.sum() == pytest.approx(0.2, abs=0.05)
    unlike = found[lost].unique()
    assert len(unlike) == 1 and unlike.item() == pytest.approx(clean[~edge].mean().item(), abs=0.01)
    same = ~lost & ~added
    assert (found[same] == clean[same]).all()


def test_what_becomes_of_a_pair_is_the_same_in_every_batch_and_of_every_seed_another(captions):
    inputs = {"captions": captions}
    source = open_similarity(graph(drop=0.5, add=0.5), inputs)
    every = whole(source)
    rows, cols = torch.tensor([9, 200, 3]), torch.tensor([3, 9, 41, 7])
    torch.testing.assert_close(source.block(rows, cols), every[rows[:, None], cols])
    other = whole(open_similarity(TargetGraph(source="truth", seed=1, corrupt={"drop": 0.5, "add": 0.5}), inputs))
    assert (other != every).any()


def test_no_corruption_is_none(captions):
    inputs = {"captions": captions}
    assert isinstance(open_similarity(graph(drop=0.0), inputs), SharedFactors)
    everything = whole(open_similarity(graph(drop=1.0), inputs))[pairs(300)]
    assert everything.max() < 0.6
    classes = whole(open_similarity(graph("class", drop=1.0), inputs))[pairs(300)]
    assert (classes == 0).all()


@pytest.mark.parametrize("inner", ["vectors", "classes", "factors"])
def test_keys_travel_as_bytes_and_come_back(inner, captions):
    source = {
        "vectors": lambda: EmbeddingLookup(np.random.default_rng(0).normal(size=(300, 6)).astype(np.float16)),
        "classes": lambda: SameClass.open(captions),
        "factors": lambda: SharedFactors.open(captions),
    }[inner]()
    unchanged = Corrupted(source, 0, cutoff=0.6, drop=0.0, add=0.0, unlike=0.0)
    rows = torch.tensor([5, 299, 0, 17])
    keys = unchanged.keys(rows)
    assert keys.dtype == torch.uint8 and len(keys) == 4 and len(unchanged.keys(rows[:0])) == 0
    torch.testing.assert_close(whole(unchanged), whole(source))
    gathered = unchanged.between(keys, torch.cat([keys, keys]))(slice(1, 3))
    torch.testing.assert_close(gathered, source.block(rows[1:3], rows.repeat(2)))


def test_shuffled_captions_are_a_permutation_of_rows(tmp_path):
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float16)
    vectors /= np.linalg.norm(vectors.astype(float), axis=1, keepdims=True).astype(np.float16)
    np.save(tmp_path / "vectors.npy", vectors)
    source = open_similarity(graph("shuffled"), {"embeddings": tmp_path})
    taken = source.stands_in
    assert sorted(taken.tolist()) == list(range(50)) and (taken != torch.arange(50)).all()
    clean = whole(EmbeddingLookup(vectors), 50)
    torch.testing.assert_close(whole(source, 50), clean[taken][:, taken])


def test_tables_tell_a_corrupted_graph_from_the_other():
    changed = [graph(drop=0.2), graph(add=0.2), graph(drop=0.2, add=0.1, cutoff=0.8), TargetGraph(source="truth")]
    names = [graph_name(XCLRConfig(graph=each), "scenes") for each in changed]
    assert names == ["truth drop=0.2", "truth add=0.2", "truth drop=0.2 add=0.1 cutoff=0.8", "truth"]
    (filled,) = with_graph([XCLRConfig()], GraphConfig(source="truth", corrupt={"drop": 0.2}))
    assert filled.graph == graph(drop=0.2)


@pytest.mark.parametrize("corrupt", [{"drop": 1.2}, {"add": -0.1}, {"cutoff": 2}, {"lose": 0.1}])
def test_a_corruption_that_cannot_be_is_refused(corrupt):
    with pytest.raises(RecipeError, match=r"graph\.corrupt"):
        parse_recipe({"name": "x", "data": {"source": "scenes"}, "graph": {"corrupt": corrupt}}, "x")


def test_the_truth_of_other_pictures_is_not_known(tmp_path):
    recipe = Recipe.model_validate({"name": "x", "graph": {"source": "truth"}})
    with pytest.raises(RecipeError, match="not of emoji"):
        objectives(recipe)
    assert objectives(scenes_recipe())
    with pytest.raises(DataError, match="drawn scenes alone"):
        SharedFactors.open(tmp_path)
