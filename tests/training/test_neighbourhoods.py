"""Batches by neighbourhoods of the graph: a permutation an epoch, the same on any number of ranks, and alike inside."""

from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.kit.home import RECIPE, TRAIN, training_data
from tests.kit.scenes import made_captions, scenes_recipe
from tests.kit.stages import commit
from xclr.errors import DataError, RecipeError
from xclr.evaluation import stages as evaluation_stages
from xclr.graph import EmbeddingLookup, neighbours
from xclr.graph import stages as graph_stages
from xclr.graph.similarity import SharedFactors
from xclr.recipe import RandomConfig, SimCLRConfig, TargetGraph, TrainConfig, XCLRConfig, load_recipe
from xclr.stage import Produced, Stage
from xclr.store import Store
from xclr.training import Rank, open_batches
from xclr.training.captions import CaptionsOf
from xclr.training.keyed import epoch_order
from xclr.training.neighbourhoods import Neighbourhoods, grouped, near_order
from xclr.training.stages import origin, pretrain

ROWS = np.arange(500)


def config(share=1.0, size=8, **changes):
    return TRAIN.model_copy(update={"neighbourhoods": share, "neighbourhood_size": size, "workers": 0} | changes)


@st.composite
def graphs(draw):
    """Where pictures are [n], and up to k neighbours of each of m nodes, as the artifact's pads are read."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, m, k = draw(st.integers(1, 60)), draw(st.integers(1, 40)), draw(st.integers(1, 5))
    near = np.full((m + 1, k), m, np.int32)
    for node in range(m):
        others = np.delete(np.arange(m), node)
        some = random.permutation(others)[: random.integers(0, k + 1)]
        near[node, : len(some)] = some
    return random.integers(0, m, n), near


SHARES, SIZES, SEEDS = st.floats(0, 1), st.integers(2, 20), st.integers(0, 2**31 - 1)


@given(graphs(), SHARES, SIZES, SEEDS, st.integers(0, 50))
def test_an_order_is_a_permutation_and_a_pure_function(graph, share, size, seed, epoch):
    order = near_order(seed, epoch, *graph, config(share, size))
    assert order.dtype == np.int64 and sorted(order) == list(range(len(graph[0])))
    assert np.array_equal(order, near_order(seed, epoch, *graph, config(share, size)))


@given(graphs(), SHARES, SIZES, SEEDS)
def test_a_group_is_of_neighbours_and_ends_when_it_is_whole_or_none_are_left(graph, share, size, seed):
    nodes, near = graph
    count = round(share * len(nodes))
    some, sizes = grouped(np.random.default_rng(seed).permutation(len(nodes)), nodes, near, count, size)
    assert len(some) == len(set(some)) == sizes.sum() == count
    free, ends = Counter(nodes.tolist()), np.cumsum(sizes)
    for number, group in enumerate(np.split(nodes[some], ends[:-1]) if len(sizes) else ()):
        assert 1 <= len(group) <= size
        for place, node in enumerate(group.tolist()):
            earlier = set(group[:place].tolist())
            assert not place or node in earlier or node in near[list(earlier)]
            free[node] -= 1
        around = {*group.tolist(), *near[group].ravel().tolist()}
        assert len(group) == size or number == len(sizes) - 1 or not any(free[node] for node in around)


def test_pictures_of_equal_captions_come_first_then_the_nearest_then_their_neighbours():
    nodes = np.array([0, 1, 2, 3, 0, 4, 0, 5])
    near = np.full((7, 2), 6, np.int32)
    near[0], near[1, 0], near[2] = (2, 1), 4, (3, 5)
    turn = np.array([6, 2, 5, 4, 3, 1, 0, 7])
    found = {size: [each.tolist() for each in grouped(turn, nodes, near, 8, size)] for size in (3, 4, 6, 8)}
    assert found[3] == [[6, 4, 0, 2, 3, 7, 5, 1], [3, 3, 1, 1]]
    assert found[4] == [[6, 4, 0, 2, 5, 3, 1, 7], [4, 1, 1, 1, 1]], "4's and 3's neighbours are none, 1's is taken"
    assert found[6][0][:6] == [6, 4, 0, 2, 1, 3]
    assert found[8] == [[6, 4, 0, 2, 1, 3, 5, 7], [8]]


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_every_batch_has_the_share_in_whole_groups_but_for_its_ends(share):
    """A ring of 500 captions: groups are arcs, so that neighbours stand together."""
    near = np.stack([(ROWS + step) % 500 for step in (1, -1, 2, -2)], axis=1)
    near = np.vstack([near, np.full(4, 500)]).astype(np.int32)
    order = near_order(3, 1, ROWS, near, config(share, 5))
    some, sizes = grouped(epoch_order(3, 1, 500).numpy(), ROWS, near, round(share * 500), 5)
    together = np.isin(order, some)
    for batch in range(0, 500, 50):
        assert abs(together[batch : batch + 50].sum() - share * 50) <= 1
    groups = {tuple(each) for each in np.split(some, np.cumsum(sizes)[:-1])}
    dealt, whole = order[together], 0
    while len(dealt):
        group = next(each for each in groups if each[0] == dealt[0])
        assert tuple(dealt[: len(group)]) == group
        dealt, whole = dealt[len(group) :], whole + (len(group) == 5)
    assert whole > 0.6 * share * 100
    assert order[together].tolist() != some.tolist(), "they are dealt at random"


def test_without_a_share_the_order_is_that_of_before():
    near = np.full((501, 1), 500, np.int32)
    assert np.array_equal(near_order(4, 2, ROWS, near, config(0.0)), epoch_order(4, 2, 500).numpy())


def test_a_picture_is_where_the_caption_is_that_the_epoch_shows():
    captions = CaptionsOf(np.arange(0, 301, 3), np.arange(300))
    near = np.vstack([np.roll(np.arange(40), 1)[:, None], [[40]]]).astype(np.int32)
    node = np.arange(300) % 40
    found = Neighbourhoods(near, node, np.arange(0, 300, 3), captions, config(), 7)
    for epoch in (0, 1):
        shown = captions.drawn(7, epoch, np.arange(100)).numpy()
        assert np.array_equal(found.order(epoch), near_order(7, epoch, node[shown], near, config()))


# The two loaders.


def opened(home, *, graph=True, seed=0, **changes):
    paths = home.paths
    return open_batches(paths["captions"], paths["images"], config(**changes), seed, paths["graph"] if graph else None)


def rows_of(batches, start, stop, rank=0, world=1):
    return [batch.rows for batch in batches.stream(start, stop, Rank(rank, world, torch.device("cpu")))]


VIEWS = pytest.mark.parametrize("views", ["stickers", "simclr"])


@VIEWS
def test_an_epoch_has_each_picture_once_in_an_order_of_its_own(home, views):
    plain, near = (opened(home, views=views, share=share) for share in (0.0, 1.0))
    assert torch.equal(near.rows, plain.rows) and near.steps_per_epoch == plain.steps_per_epoch
    orders = [near.rows[torch.from_numpy(near.neighbourhoods.order(epoch))] for epoch in range(3)]
    for epoch, order in enumerate(orders):
        assert torch.equal(order.sort().values, near.rows)
        first = epoch * near.steps_per_epoch
        assert torch.equal(torch.cat(rows_of(near, first, first + 2)), order[:64])
    assert not torch.equal(orders[0], orders[1])
    other = opened(home, views=views, seed=1).neighbourhoods
    assert not np.array_equal(other.order(0), near.neighbourhoods.order(0))


@VIEWS
def test_without_a_share_batches_are_bit_by_bit_those_of_before(home, views):
    """With a graph at hand and without one."""
    batches, graphless = opened(home, views=views, share=0.0), opened(home, views=views, share=0.0, graph=False)
    assert batches.neighbourhoods is None
    there = Rank(0, 1, torch.device("cpu"))
    for step, (one, other) in enumerate(zip(*(each.stream(0, 2, there) for each in (batches, graphless)), strict=True)):
        assert torch.equal(one.rows, batches.rows[epoch_order(0, 0, len(batches.rows))[step * 32 : step * 32 + 32]])
        assert torch.equal(one.rows, other.rows) and torch.equal(one.views, other.views)


@VIEWS
def test_ranks_of_any_world_and_those_that_go_on_share_the_batches_of_one(home, views):
    """From any step on, in the first epoch or a later one, opened anew."""
    whole = opened(home, views=views, share=0.5, fraction=0.5)
    end = 2 * whole.steps_per_epoch
    alone = rows_of(whole, 0, end)
    for world in (2, 4):
        shares = zip(*(rows_of(whole, 0, end, rank, world) for rank in range(world)), strict=True)
        assert all(torch.equal(torch.cat(parts), one) for parts, one in zip(shares, alone, strict=True))
    for start in (1, whole.steps_per_epoch, end - 1):
        later = rows_of(opened(home, views=views, share=0.5, fraction=0.5), start, end)
        assert all(torch.equal(one, other) for one, other in zip(later, alone[start:], strict=True))


def test_a_share_needs_the_graph_of_these_captions(home, tmp_path):
    with pytest.raises(DataError, match=r"train\.neighbourhoods needs the graph"):
        opened(home, graph=False)
    others = made_captions(tmp_path, pictures=40, tests=8)
    with pytest.raises(DataError, match="are not the distinct captions"):
        Neighbourhoods.open(others.path, home.paths["graph"], np.arange(40), None, config(), 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"neighbourhoods": -0.1}, "greater than or equal to 0"),
        ({"neighbourhoods": 1.1}, "less than or equal to 1"),
        ({"neighbourhoods": "true"}, "a number"),
        ({"neighbourhood_size": 1}, "greater than or equal to 2"),
        ({"neighbourhoods": 0.5, "neighbourhood_size": 129}, "129 is more than batch_size 128"),
        ({"neighbourhoods": 0.5, "shuffle_shards": 4}, "leave out one of them"),
    ],
)
def test_values_that_cannot_be_are_refused(changes, said):
    with pytest.raises(RecipeError) as caught:
        load_recipe("smoke", [f"train.{key}={value}" for key, value in changes.items()])
    assert said in caught.value.message


# What the stage reads, and what it is called.


def staged(home, objective, **train):
    recipe = RECIPE.model_copy(update={"train": TrainConfig.model_validate(TRAIN.model_dump() | train)})
    return pretrain(recipe, objective, 0, training_data(home.artifacts))


def test_a_training_reads_the_graph_where_a_share_is_drawn_by_it(home):
    plain, near = (staged(home, SimCLRConfig(), neighbourhoods=share) for share in (0.0, 0.5))
    assert plain.digest == staged(home, SimCLRConfig()).digest != near.digest
    assert list(plain.inputs) == ["captions", "images"] and near.inputs["graph"] == home.artifacts["graph"]
    assert near.identity["train"].get("neighbourhoods") == 0.5 and "neighbourhoods" not in plain.identity["train"]
    by_knn = XCLRConfig(graph=TargetGraph(source="knn"))
    assert staged(home, by_knn).inputs == staged(home, by_knn, neighbourhoods=0.5).inputs, "which reads it anyway"
    untrained = staged(home, RandomConfig(), neighbourhoods=0.5)
    assert untrained.digest == staged(home, RandomConfig()).digest
    assert [origin(each.config).uses for each in (plain, near, untrained)] == [
        "pixels", "pixels, captions, pretrained text model", "",
    ]  # fmt: skip


def test_a_network_that_is_tuned_sees_pictures_in_a_random_order(home):
    recipe = RECIPE.model_copy(update={"train": config()})
    checkpoint, data = home.artifacts["captions"], evaluation_stages.DataSets(
        home.artifacts["captions"], home.artifacts["images"], None, {}
    )  # fmt: skip
    tuned = evaluation_stages.finetune(recipe, "xclr", checkpoint, data, None)
    plain = evaluation_stages.finetune(RECIPE, "xclr", checkpoint, data, None)
    assert tuned.config.train.model_copy(update={"workers": 4}) == plain.config.train


# What it does.


def write_words(stage: Stage, out, progress) -> Produced:
    """vectors.npy: the words of each caption, float16 unit rows."""
    captions = pq.read_table(stage.inputs["captions"].path / "captions.parquet")["caption"].to_pylist()
    known = {word: place for place, word in enumerate(sorted({word for each in captions for word in each.split()}))}
    vectors = np.zeros((len(captions), len(known)), np.float32)
    for row, caption in enumerate(captions):
        vectors[row, [known[word] for word in caption.split()]] = 1
    np.save(out / "vectors.npy", (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16))
    return Produced(("vectors.npy",), {"rows": len(vectors)})


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Paths of captions, vectors and graph of few scenes, and the rows that are trained on."""
    folder = tmp_path_factory.mktemp("scenes")
    store, captions = Store(folder), made_captions(folder, pictures=480, tests=8)
    config = graph_stages.EmbeddingsConfig(weights="words", model="")
    vectors = commit(store, Stage(graph_stages.EMBEDDINGS, "words", config, {"captions": captions}), write_words)
    recipe = scenes_recipe().model_copy(update={"graph": RECIPE.graph.model_copy(update={"k": 16, "cutoff": None})})
    graph = commit(store, graph_stages.graph(recipe, captions, vectors), neighbours.run)
    splits = np.array(pq.read_table(captions.path / "captions.parquet")["split"].to_pylist())
    return captions.path, vectors.path / "vectors.npy", graph.path, np.flatnonzero(splits == "train")


def alike(similarity, rows, order, size=32):
    """Mean similarity of two pictures of a batch."""
    batches = torch.from_numpy(rows[order]).split(size)
    blocks = torch.stack([similarity.block(batch, batch) for batch in batches])
    return ((blocks.sum() - blocks.diagonal(dim1=1, dim2=2).sum()) / (len(batches) * size * (size - 1))).item()


def test_pictures_of_a_batch_are_more_alike_than_chance_can_make_them(scenes):
    """By their captions, which the graph is made of, and by what is drawn, which it does not know."""
    captions, vectors, graph, rows = scenes
    orders = [Neighbourhoods.open(captions, graph, rows, None, config(share, 16), 0).order(0) for share in (0.5, 1)]
    for similarity in (EmbeddingLookup.open(vectors), SharedFactors.open(captions)):
        half, whole = (alike(similarity, rows, order) for order in orders)
        random = [alike(similarity, rows, epoch_order(0, epoch, len(rows)).numpy()) for epoch in range(30)]
        assert half > np.mean(random) + 10 * np.std(random)
        assert whole > half + 5 * np.std(random)
