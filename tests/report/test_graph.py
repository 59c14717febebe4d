"""What the graph's page tells: components, pairs, entropies, and pictures with near captions."""

from __future__ import annotations

import importlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.kit.captions import artifact, captions_artifact, make_stage
from tests.kit.pictures import encode
from tests.kit.stages import commit, no_progress
from xclr import schema
from xclr.captions import stages as captions_stages
from xclr.graph import stages as graph_stages
from xclr.graph.stages import ReportConfig
from xclr.images import stages as images_stages
from xclr.objective import soft_targets
from xclr.pipeline import KINDS
from xclr.recipe import Recipe
from xclr.report import graph_facts
from xclr.report.graph import STEPS, run
from xclr.report.graph_facts import BATCHES, TEMPERATURES, SampledPairs, components, largest, read, target_entropies
from xclr.store import Store


def write_graph(path, rows, k=3):
    """A graph_knn table of (src, [(dst, sim)], count)."""
    columns = {"src": [], "dst": [], "sim": [], "count": []}
    for src, near, count in rows:
        pads = k - len(near)
        columns["src"].append(src)
        columns["dst"].append([dst for dst, _ in near] + [-1] * pads)
        columns["sim"].append([sim for _, sim in near] + [float("nan")] * pads)
        columns["count"].append(count)
    table = pa.table(columns, schema=schema.graph_knn(k))
    schema.write(table, path, schema.graph_knn(k), {"config": {"k": k, "cutoff": 0.6, "method": "exact"}})


GRAPH = [
    (0, [(2, 0.99), (3, 0.7)], 2),
    (2, [(0, 0.99)], 1),
    (3, [(0, 0.7)], 1),
    (5, [(9, 0.94)], 5),
    (7, [], 0),
    (9, [(5, 0.94)], 1),
]


@pytest.fixture
def graph(tmp_path):
    write_graph(tmp_path / "graph_knn.parquet", GRAPH)
    return read(tmp_path / "graph_knn.parquet")


def test_a_graph_is_read_once_in_batches(graph, tmp_path, monkeypatch):
    assert graph.nodes.tolist() == [0, 2, 3, 5, 7, 9]
    assert graph.counts.tolist() == [2, 1, 1, 5, 0, 1]
    np.testing.assert_array_equal(graph.nearest, np.array([0.99, 0.99, 0.7, 0.94, np.nan, 0.94], np.float32))
    assert graph.duplicates.rows.tolist() == [[0, 2]]
    assert graph.similar.rows.tolist() == [[5, 9], [0, 3]]
    np.testing.assert_allclose(graph.similar.sims, [0.94, 0.7])
    assert graph.histogram.sum() == 6
    monkeypatch.setattr(graph_facts, "BATCH_ROWS", 2)
    again = read(tmp_path / "graph_knn.parquet")
    for name in ("nodes", "counts", "nearest", "components", "histogram"):
        np.testing.assert_array_equal(getattr(again, name), getattr(graph, name))
    assert again.similar.rows.tolist() == graph.similar.rows.tolist()


def test_components_and_the_largest(graph):
    ids = graph.components
    assert len(set(ids.tolist())) == 3
    assert ids[0] == ids[1] == ids[2] != ids[3] == ids[5] != ids[4]
    assert [(each.size, each.rows.tolist()) for each in largest(graph)] == [(3, [0, 2, 3]), (2, [5, 9])]


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 30), edges=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_components_are_those_of_a_search(n, edges):
    edges = [(a % n, b % n) for a, b in edges]
    tails, heads = (np.array([edge[side] for edge in edges], dtype=np.int32) for side in (0, 1))
    found = components(n, tails, heads)
    near = {node: {node} for node in range(n)}
    for _ in range(n):
        for a, b in edges:
            near[a] = near[b] = near[a] | near[b]
            for each in near[a]:
                near[each] = near[a]
    assert all((found[a] == found[b]) == (b in near[a]) for a in range(n) for b in range(n))


def test_of_pairs_the_most_similar_stay_each_once(monkeypatch):
    monkeypatch.setattr(graph_facts, "LISTED", 2)
    first = SampledPairs(np.array([[1, 2], [3, 4]]), np.array([0.5, 0.9], np.float32))
    second = SampledPairs(np.array([[3, 4], [0, 9], [5, 6]]), np.array([0.9, 0.7, 0.2], np.float32))
    best = first.best(second)
    assert best.rows.tolist() == [[3, 4], [0, 9]]
    assert SampledPairs.none().best(SampledPairs.none()).rows.shape == (0, 2)


def test_entropies_are_those_of_the_targets_that_xclr_trains_on():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(90, 6, generator=generator), dim=1).half().numpy()
    found = target_entropies(vectors, np.arange(90), seed=0)
    assert list(found) == [90]
    views = torch.from_numpy(vectors).double().repeat(2, 1)
    itself = torch.eye(180, dtype=torch.bool)
    for tau, entropy in zip(TEMPERATURES, found[90], strict=True):
        targets = soft_targets((views @ views.T).clamp(-1, 1), temperature=tau, exclude=itself)
        expected = -torch.xlogy(targets, targets).sum(1).mean()
        assert entropy == pytest.approx(float(expected), rel=1e-3)


def test_entropies_of_several_batch_sizes():
    vectors = np.tile(np.eye(8, dtype=np.float16), (200, 1))
    found = target_entropies(vectors, np.arange(1600), seed=0)
    assert list(found) == [size for size in BATCHES if size <= 1600]
    assert all((np.diff(values) > -1e-9).all() for values in found.values()), "warmer targets are more spread"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Captions, one very long, of which one picture in three was lost, and the graph of their vectors."""
    folder = tmp_path_factory.mktemp("report")
    hostile = "<script>alert(1)</script>"
    names = [f"{hostile if i == 1 else 'thing'} {i // 2} {'left' if i % 2 else 'right'}" for i in range(24)]
    names[23] += " and more" * 25_000
    pictures = [b"lost" if i % 3 == 0 else encode(Image.new("RGB", (20, 20), (9 * i, 0, 0))) for i in range(24)]
    pq.write_table(pa.table({"caption": names, "image": pictures}), folder / "t.parquet")
    recipe = Recipe.model_validate({
        "name": "t", "data": {"source": "table", "path": str(folder / "t.parquet")}, "graph": {"k": 4, "cutoff": 0.2},
    })  # fmt: skip
    store = Store(folder / "home")
    made = {"captions": commit(store, captions_stages.captions(recipe, store), runner("captions"))}
    made["images"] = commit(store, images_stages.images(recipe, store, made["captions"])[-1], runner("images"))
    made["embeddings"] = commit(store, graph_stages.embeddings(recipe, store, made["captions"]), runner("embeddings"))
    made["graph"] = commit(store, graph_stages.graph(recipe, made["captions"], made["embeddings"]), runner("graph"))
    return graph_stages.graph_report(recipe, **made)


def runner(kind):
    return importlib.import_module(KINDS[kind].run).run


def test_the_page_shows_pictures_that_are_there(inputs, tmp_path):
    seen = []
    produced = run(inputs, tmp_path, lambda *numbers: seen.append(numbers))
    assert produced.files == ("graph.html",) and seen[-1] == (STEPS, STEPS)
    html = (tmp_path / "graph.html").read_text()
    assert html.count('<figure class="question">') == produced.stats["shown"] > 5
    assert html.count('<figure class="curve">') == 3
    assert "truth" not in html and "<small>" not in html, "which is known of drawn scenes alone"
    assert "captions_and_truth" not in produced.stats
    assert "<script>alert(1)" not in html and "&lt;script&gt;alert(1)" in html
    assert "http://" not in html.replace("http://www.w3.org", "") and "https://" not in html, "nothing from elsewhere"
    lost = [f"<bdi>thing {i // 2} right</bdi>" for i in range(0, 24, 6)]
    sheet = html[html.index('<div class="sheet">') :]
    assert not any(each in sheet for each in lost)
    assert "<bdi>thing 11 left and more" in sheet and " and more" * 40 not in html, "of a long caption the beginning"


def test_without_pictures_the_page_says_so(tmp_path):
    captions = captions_artifact(tmp_path / "captions", [("a dog", 0), ("a cat", 1), ("a bird", 1)])
    images = artifact("images", tmp_path / "images")
    images.path.mkdir()
    lost = {"status": "dns", "attempt": 1} | dict.fromkeys(
        ("http", "error", "bytes", "width", "height", "sha256", "shard", "offset", "size")
    )
    table = pa.Table.from_pylist([{"row_id": row, **lost} for row in range(3)], schema=schema.IMAGES)
    schema.write(table, images.path / "images.parquet", schema.IMAGES, {})
    (tmp_path / "embeddings").mkdir()
    np.save(tmp_path / "embeddings" / "vectors.npy", np.eye(3, 4, dtype=np.float16))
    (tmp_path / "graph").mkdir()
    write_graph(tmp_path / "graph" / "graph_knn.parquet", [(row, [], 0) for row in range(3)])
    others = [artifact(kind, tmp_path / kind) for kind in ("embeddings", "graph")]
    stage = make_stage("graph_report", ReportConfig(dataset="t"), captions, images, *others)
    produced = run(stage, tmp_path, no_progress)
    html = (tmp_path / "graph.html").read_text()
    assert "No picture of two near captions" in html and html.count("There are none.") == 2
    assert produced.stats["shown"] == 0 and produced.stats["components"] == 3
