"""The graph stage: nodes are distinct captions, ids are their rows."""

import duckdb
import numpy as np
import polars
import pytest
import torch

from tests.graph.conftest import ROWS, captions_artifact, make_stage, no_progress
from xclr import schema
from xclr.errors import DataError
from xclr.graph import TopK, run_graph
from xclr.graph.neighbours import cosines, mean_similarity, near_duplicates
from xclr.stages import GraphKnnConfig

NODES = [0, 1, 2, 4, 5, 6, 7, 8, 9, 11, 12]


@pytest.fixture(scope="module")
def graph(captions, embeddings, tmp_path_factory):
    out = tmp_path_factory.mktemp("graph")
    stage = make_stage("graph", GraphKnnConfig(k=4, cutoff=0.5, block=5), captions, embeddings)
    return out / "graph_knn.parquet", run_graph(stage, out, no_progress)


@pytest.fixture(scope="module")
def cosine(embeddings):
    vectors = np.load(embeddings.path / "vectors.npy").astype(np.float64)[NODES]
    return np.clip((vectors @ vectors.T).astype(np.float32), -1, 1)


def test_neighbours_of_each_distinct_caption(graph, cosine):
    path, produced = graph
    assert produced.files == ("graph_knn.parquet",)
    rows = schema.read(path, schema.graph_knn(4)).to_pylist()
    assert [row["src"] for row in rows] == NODES
    for i, row in enumerate(rows):
        others = sorted((-cosine[i, j], NODES[j]) for j in range(11) if j != i)
        assert row["dst"] == [node for _, node in others[:4]]
        assert row["sim"] == [-minus for minus, _ in others[:4]]
        assert row["count"] == sum(-minus >= 0.5 for minus, _ in others)


def test_meaning(graph):
    table = schema.read(graph[0], schema.graph_knn(4)).to_pydict()
    nearest = {src: dst[0] for src, dst in zip(table["src"], table["dst"], strict=True)}
    assert ROWS[nearest[0]][0] == "A dog"
    assert nearest[5] in {6, 12}


def test_statistics(graph, cosine):
    stats = graph[1].stats
    off = ~np.eye(11, dtype=bool)
    counts = ((cosine >= 0.5) & off).sum(1)
    assert stats["nodes"] == 11
    assert stats["edges"] == counts.sum() // 2
    assert stats["mean_similarity"] == pytest.approx(cosine[off].mean(), abs=0.01)
    top1 = np.where(off, cosine, -2).max(1)
    assert stats["median_top1"] == pytest.approx(np.sort(top1)[5])
    assert stats["isolated"] == pytest.approx((counts == 0).mean())
    assert stats["near_duplicates"] == ((cosine > 0.95) & off).sum() // 2 == 1


def test_other_readers_see_the_rows(graph):
    path, _ = graph
    expected = schema.read(path, schema.graph_knn(4)).to_pydict()
    rows = duckdb.sql(f"select src, dst, sim, count from '{path}' order by src").fetchall()
    assert [list(row[1]) for row in rows] == expected["dst"]
    assert [list(row[2]) for row in rows] == expected["sim"]
    frame = polars.read_parquet(path)
    assert frame["src"].to_list() == NODES
    assert [list(each) for each in frame["dst"]] == expected["dst"]
    assert frame["count"].to_list() == expected["count"]


def test_too_few_captions_say_what_to_set(captions, embeddings, tmp_path):
    stage = make_stage("graph", GraphKnnConfig(k=11, cutoff=0.5, block=5), captions, embeddings)
    with pytest.raises(DataError, match="11 distinct captions") as raised:
        run_graph(stage, tmp_path, no_progress)
    assert raised.value.remedy == "--set graph.k=10"
    alone = captions_artifact(tmp_path / "alone", [("a dog", 0), ("a dog", 0)])
    with pytest.raises(DataError, match="1 distinct") as raised:
        run_graph(
            make_stage("graph", GraphKnnConfig(k=1, cutoff=0.5, block=5), alone, embeddings), tmp_path, no_progress
        )
    assert "two different captions" in raised.value.remedy


def test_cosines_stay_within_one_and_ties_are_ordered():
    found = TopK(torch.tensor([[7, 3, 5, -1]]), torch.tensor([[1.0002, 1.0001, 0.5, torch.nan]]))
    clamped = cosines(found)
    assert clamped.ids.tolist() == [[3, 7, 5, -1]]
    assert clamped.sims[0, :3].tolist() == [1, 1, 0.5]
    assert clamped.sims[0, 3].isnan()


def test_mean_similarity_is_seeded_and_leaves_self_out():
    opposite = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).half()
    assert mean_similarity(opposite, seed=0) == -1
    rows = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=1).half()
    assert mean_similarity(rows, seed=1) == mean_similarity(rows, seed=1) != mean_similarity(rows, seed=2)


def test_near_duplicates_count_a_pair_once():
    found = TopK(torch.tensor([[1, 2], [0, -1], [0, 1]]), torch.tensor([[0.99, 0.9], [0.99, torch.nan], [0.96, 0.2]]))
    assert near_duplicates(found) == 2
