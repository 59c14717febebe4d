"""The graph stage: nodes are distinct captions, ids are their rows."""

import json

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest
import torch

from tests.kit.captions import ROWS, captions_artifact, make_stage
from tests.kit.stages import no_progress
from xclr import schema, shards
from xclr.errors import DataError
from xclr.graph import TopK, approximate, neighbours
from xclr.graph.neighbours import cosines, mean_similarity, near_duplicates
from xclr.graph.neighbours import run as run_graph
from xclr.graph.stages import GraphKnnConfig

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
        near = [(minus, node) for minus, node in others[:4] if -minus >= 0.5]
        assert row["dst"] == [node for _, node in near] + [-1] * (4 - len(near))
        assert row["sim"][: len(near)] == [-minus for minus, _ in near]
        assert np.isnan(row["sim"][len(near) :]).all()
        assert row["count"] == sum(-minus >= 0.5 for minus, _ in others)


def test_meaning(graph):
    table = schema.read(graph[0], schema.graph_knn(4)).to_pydict()
    nearest = {src: dst[0] for src, dst in zip(table["src"], table["dst"], strict=True)}
    assert ROWS[nearest[0]][0] == "A dog"
    assert nearest[7] == 0


def test_statistics(graph, cosine):
    stats = graph[1].stats
    off = ~np.eye(11, dtype=bool)
    counts = ((cosine >= 0.5) & off).sum(1)
    assert stats["nodes"] == 11
    assert stats["edges"] == counts.sum() // 2
    assert stats["mean_similarity"] == pytest.approx(cosine[off].mean(), abs=0.01)
    top1 = np.where(off & (cosine >= 0.5), cosine, np.nan)
    assert stats["median_top1"] == torch.tensor(top1[counts > 0]).nan_to_num(-2).max(1).values.median()
    assert stats["isolated"] == pytest.approx((counts == 0).mean())
    assert stats["near_duplicates"] == ((cosine > 0.95) & off).sum() // 2 == 1


def test_other_readers_see_the_rows(graph):
    path, _ = graph
    expected = schema.read(path, schema.graph_knn(4)).to_pydict()
    rows = duckdb.sql(f"select src, dst, sim, count from '{path}' order by src").fetchall()
    assert [list(row[1]) for row in rows] == expected["dst"]
    assert str([list(row[2]) for row in rows]) == str(expected["sim"])  # NaN is NaN
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
    opposite = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]], dtype=np.float16)
    assert mean_similarity(opposite, np.array([0, 2]), seed=0) == -1
    rows = torch.nn.functional.normalize(torch.randn(50, 8, generator=torch.Generator().manual_seed(0)), dim=1).half()
    once, again, other = (mean_similarity(rows.numpy(), np.arange(50), seed=seed) for seed in (1, 1, 2))
    assert once == again != other


def test_near_duplicates_count_a_pair_once():
    found = TopK(torch.tensor([[1, 2], [0, -1], [0, 1]]), torch.tensor([[0.99, 0.9], [0.99, torch.nan], [0.96, 0.2]]))
    assert near_duplicates(found).tolist() == [[0, 1], [0, 2]]
    assert near_duplicates(found, first=5).tolist() == [[0, 6], [0, 7], [1, 5]], "ids count from the first of all"


def made_from(parts, config, captions, embeddings, out):
    """The graph of parts compared one after another, the second half by elements of their own, in reverse order."""
    out.mkdir()
    stage = make_stage("graph", config.model_copy(update={"part": parts}), captions, embeddings)
    number = len(shards.pairs(len(shards.parts(len(NODES), parts))))
    for shard in reversed(range(number // 2, number)):
        neighbours.run_shard(stage, out, shard, no_progress)
    made = {path: path.stat().st_mtime_ns for path in (out / shards.SHARDS).glob("*/*")}
    seen = []
    produced = run_graph(stage, out, lambda *numbers: seen.append(numbers))
    assert all(path.stat().st_mtime_ns == when for path, when in made.items()), "a finished shard was made again"
    assert {total for _, total in seen} == {11 * 10 // 2} and seen[-1] == (55, 55)
    return stage.digest, schema.read(out / "graph_knn.parquet", schema.graph_knn(config.k)), produced.stats


@pytest.mark.parametrize(("k", "cutoff"), [(1, 0.5), (4, None), (4, 0.2), (10, 0.2)])
def test_the_parts_change_nothing(k, cutoff, captions, embeddings, tmp_path):
    config = GraphKnnConfig(k=k, cutoff=cutoff, block=3)
    whole, *others = (made_from(parts, config, captions, embeddings, tmp_path / f"{parts}") for parts in (11, 4, 2))
    for digest, table, stats in others:
        assert digest == whole[0]
        assert str(table.to_pydict()) == str(whole[1].to_pydict())  # NaN is NaN
        assert stats == whole[2]


def test_without_a_cut_off_all_others_count(captions, embeddings, tmp_path):
    stage = make_stage("graph", GraphKnnConfig(k=4, cutoff=None, block=5), captions, embeddings)
    run_graph(stage, tmp_path, no_progress)
    table = schema.read(tmp_path / "graph_knn.parquet", schema.graph_knn(4))
    assert set(table["count"].to_pylist()) == {10}
    assert min(min(row) for row in table["dst"].to_pylist()) >= 0


@pytest.mark.parametrize("cutoff", [None, 0.3])
def test_the_approximate_graph_has_the_recall_that_was_asked_for(cutoff, captions, embeddings, tmp_path, monkeypatch):
    monkeypatch.setattr(approximate, "BLOCK", 7)  # near cells are looked up in many blocks
    tables = {}
    for method in ("exact", "approximate"):
        config = GraphKnnConfig(k=4, cutoff=cutoff, block=5, method=method, recall=0.99)
        (out := tmp_path / method).mkdir()
        produced = run_graph(make_stage("graph", config, captions, embeddings), out, no_progress)
        assert produced.stats["method"] == method
        tables[method] = schema.read(out / "graph_knn.parquet", schema.graph_knn(4))
    about = json.loads(pq.read_schema(out / "graph_knn.parquet").metadata[b"about"])
    assert about["measured"]["recall"] == produced.stats["recall"] >= 0.99
    assert about["measured"]["probes"] <= about["measured"]["cells"]
    for name in ("src", "dst", "sim"):
        assert str(tables["approximate"][name].to_pylist()) == str(tables["exact"][name].to_pylist())
