"""Every source answers block() as an explicit computation does."""

import numpy as np
import pytest
import torch

from tests.graph.conftest import ROWS, captions_artifact, make_stage, no_progress
from xclr import schema
from xclr.errors import DataError
from xclr.graph import ClassGraph, EmbeddingLookup, KnnGraph, SimilaritySource, run_class_graph, run_graph
from xclr.stages import ClassGraphConfig, GraphKnnConfig

ROWS_ASKED = torch.tensor([3, 0, 8, 12, 7, 10])
COLS_ASKED = torch.tensor([10, 12, 0, 1, 5, 11, 8, 3])


@pytest.fixture(scope="module")
def knn_path(captions, embeddings, tmp_path_factory):
    out = tmp_path_factory.mktemp("graph")
    run_graph(make_stage("graph", GraphKnnConfig(k=2, cutoff=0.5, block=8), captions, embeddings), out, no_progress)
    return out / "graph_knn.parquet"


@pytest.fixture(scope="module")
def class_path(captions, embeddings, tmp_path_factory):
    out = tmp_path_factory.mktemp("classes")
    config = ClassGraphConfig(source="random_class", seed=1)
    run_class_graph(make_stage("class_graph", config, captions, embeddings), out, no_progress)
    return out / "graph_class.parquet"


@pytest.fixture(params=["embeddings", "knn", "class"])
def source(request, captions, embeddings, knn_path, class_path) -> SimilaritySource:
    table = captions.path / "captions.parquet"
    return {
        "embeddings": lambda: EmbeddingLookup.open(embeddings.path / "vectors.npy"),
        "knn": lambda: KnnGraph.open(knn_path, table),
        "class": lambda: ClassGraph.open(class_path, table),
    }[request.param]()


def test_every_source_is_a_similarity(source):
    rows = torch.arange(len(ROWS))
    whole = source.block(rows, rows)
    assert whole.dtype == torch.float32
    assert whole.abs().max() <= 1
    torch.testing.assert_close(whole, whole.T, rtol=0, atol=1e-6)
    torch.testing.assert_close(whole.diagonal(), torch.ones(len(ROWS)), rtol=0, atol=1e-3)
    part = source.block(ROWS_ASKED, COLS_ASKED)
    assert part.shape == (6, 8)
    torch.testing.assert_close(part, whole[ROWS_ASKED[:, None], COLS_ASKED], rtol=0, atol=1e-6)
    assert source.block(ROWS_ASKED[:0], COLS_ASKED).shape == (0, 8)


def test_embedding_lookup(embeddings):
    source = EmbeddingLookup.open(embeddings.path / "vectors.npy")
    assert isinstance(source.vectors, np.memmap)
    vectors = np.load(embeddings.path / "vectors.npy").astype(np.float64)
    expected = vectors[ROWS_ASKED] @ vectors[COLS_ASKED].T
    np.testing.assert_allclose(source.block(ROWS_ASKED, COLS_ASKED), np.clip(expected, -1, 1), atol=1e-6)
    assert source.block(torch.tensor([0]), torch.tensor([3])).item() == pytest.approx(1, abs=1e-4)
    with pytest.raises(IndexError):
        source.block(torch.tensor([len(ROWS)]), COLS_ASKED)


def test_embedding_lookup_takes_single_precision():
    vectors = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    found = EmbeddingLookup(vectors).block(torch.tensor([0, 1]), torch.tensor([1]))
    torch.testing.assert_close(found, torch.tensor([[0.6], [1.0]]))


def test_class_graph(class_path, captions):
    source = ClassGraph.open(class_path, captions.path / "captions.parquet")
    table = schema.read(class_path, schema.GRAPH_CLASS)
    stored = {(s, d): v for s, d, v in zip(*(table[name].to_pylist() for name in ("src", "dst", "sim")), strict=True)}
    found = source.block(ROWS_ASKED, COLS_ASKED)
    for i, row in enumerate(ROWS_ASKED.tolist()):
        for j, col in enumerate(COLS_ASKED.tolist()):
            a, b = ROWS[row][1], ROWS[col][1]
            expected = float(row == col) if a is None or b is None else stored[a, b]
            assert found[i, j] == expected


def test_class_graph_of_other_captions(class_path, tmp_path):
    captions = captions_artifact(tmp_path, [("a", 5)])
    with pytest.raises(DataError, match="5 classes, the captions need 6"):
        ClassGraph.open(class_path, captions.path / "captions.parquet")


def test_knn_graph(knn_path, captions):
    source = KnnGraph.open(knn_path, captions.path / "captions.parquet")
    stored = {}
    for row in schema.read(knn_path, schema.graph_knn(2)).to_pylist():
        for dst, sim in zip(row["dst"], row["sim"], strict=True):
            stored[row["src"], dst] = stored[dst, row["src"]] = sim
    first = {row: next(i for i, (caption, _) in enumerate(ROWS) if caption == ROWS[row][0]) for row in range(len(ROWS))}
    found = source.block(ROWS_ASKED, COLS_ASKED)
    seen = set()
    for i, row in enumerate(ROWS_ASKED.tolist()):
        for j, col in enumerate(COLS_ASKED.tolist()):
            a, b = first[row], first[col]
            expected = 1.0 if a == b else stored.get((a, b), 0.0)
            assert found[i, j] == expected
            seen.add("same" if a == b else "stored" if (a, b) in stored else "none")
    assert seen == {"same", "stored", "none"}


def test_knn_graph_of_other_captions(knn_path, tmp_path):
    captions = captions_artifact(tmp_path, [("a", 5)])
    with pytest.raises(DataError, match="not the distinct captions"):
        KnnGraph.open(knn_path, captions.path / "captions.parquet")
