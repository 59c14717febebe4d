"""Every source answers block() as an explicit computation does."""

import numpy as np
import pytest
import torch

from tests.kit.captions import ROWS, captions_artifact, make_stage
from tests.kit.stages import no_progress
from xclr import schema
from xclr.errors import DataError
from xclr.graph import (
    ClassGraph,
    EmbeddingLookup,
    KnnGraph,
    RandomPair,
    SameClass,
    SameRow,
    SimilaritySource,
    open_similarity,
)
from xclr.graph.classes import run as run_class_graph
from xclr.graph.neighbours import run as run_graph
from xclr.graph.similarity import Corrupted, Permuted
from xclr.graph.stages import ClassGraphConfig, GraphKnnConfig
from xclr.recipe import TargetGraph

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


@pytest.fixture(
    params=["embeddings", "knn", "class", "same class", "same row", "random pair", "permuted", "shuffled", "corrupted"]
)
def source(request, captions, embeddings, knn_path, class_path) -> SimilaritySource:
    table = captions.path / "captions.parquet"
    return {
        "embeddings": lambda: EmbeddingLookup.open(embeddings.path / "vectors.npy"),
        "knn": lambda: KnnGraph.open(knn_path, table),
        "class": lambda: ClassGraph.open(class_path, table),
        "same class": lambda: SameClass.open(table.parent),
        "same row": SameRow,
        "permuted": lambda: Permuted.of(embeddings.path / "vectors.npy", table, 3),
        "shuffled": lambda: Permuted.of_rows(embeddings.path / "vectors.npy", 3),
        "corrupted": lambda: Corrupted(
            EmbeddingLookup.open(embeddings.path / "vectors.npy"), 3, cutoff=0.4, drop=0.5, add=0.2, unlike=0.1
        ),
        "random pair": lambda: RandomPair.open(embeddings.path / "vectors.npy", 3),
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


def test_between_gives_blocks_of_the_same_similarities(source):
    whole = source.block(ROWS_ASKED, COLS_ASKED)
    some = source.to(torch.device("cpu")).between(source.keys(ROWS_ASKED), source.keys(COLS_ASKED))
    torch.testing.assert_close(torch.cat([some(slice(0, 4)), some(slice(4, 6))]), whole)


def test_same_class_and_same_row(captions):
    labels = schema.read(captions.path / "captions.parquet", schema.CAPTIONS)["label"].to_pylist()
    found = SameClass.open(captions.path).block(ROWS_ASKED, COLS_ASKED)
    for i, row in enumerate(ROWS_ASKED.tolist()):
        for j, col in enumerate(COLS_ASKED.tolist()):
            alike = row == col or (labels[row] is not None and labels[row] == labels[col])
            assert found[i, j] == alike
    assert torch.equal(SameRow().block(ROWS_ASKED, COLS_ASKED), (ROWS_ASKED[:, None] == COLS_ASKED).float())


def test_permuted_captions_keep_classes_together_and_give_each_that_of_another(captions, embeddings):
    table, vectors = captions.path / "captions.parquet", embeddings.path / "vectors.npy"
    rows = schema.read(table, schema.CAPTIONS).sort_by("row_id")
    labels, texts = rows["label"].to_pylist(), rows["caption"].to_pylist()
    group = [text if label is None else label for label, text in zip(labels, texts, strict=True)]
    every = torch.arange(len(group))
    found, other = (Permuted.of(vectors, table, seed) for seed in (0, 1))
    together = torch.tensor([[a == b for b in group] for a in group])
    assert (found.block(every, every)[together] > 0.999).all()
    given = found.stands_in.tolist()
    assert all(group[row] != group[given[row]] for row in range(len(group)))
    assert len({group[each] for each in given}) == len(set(group))  # a permutation
    assert found.stands_in.tolist() != other.stands_in.tolist()
    torch.testing.assert_close(
        found.block(ROWS_ASKED, COLS_ASKED),
        EmbeddingLookup.open(vectors).block(found.stands_in[ROWS_ASKED], found.stands_in[COLS_ASKED]),
    )


def test_a_random_pair_has_its_value_in_every_batch_and_no_structure():
    values = torch.linspace(-0.5, 0.9, 1 << 16)
    rows = torch.arange(400) * 7_919
    found, other = (RandomPair(values, seed).block(rows, rows) for seed in (0, 1))
    torch.testing.assert_close(RandomPair(values, 0).block(rows[5:9], rows[91:94]), found[5:9, 91:94])
    off = found[~torch.eye(400, dtype=torch.bool)]
    assert (found != other).float().mean() > 0.99
    assert off.mean().item() == pytest.approx(values.mean().item(), abs=0.01)
    assert off.std().item() == pytest.approx(values.std().item(), abs=0.01)
    rank = torch.linalg.matrix_rank(found - found.mean())
    assert rank == 400  # of independent entries; a graph of few features would have a low one


@pytest.mark.parametrize("name", ["captions", "class", "augmentation", "random_pair", "knn", "random_class"])
def test_a_recipes_graph_is_opened_by_its_name(name, captions, embeddings, knn_path, class_path):
    inputs = {
        "captions": captions.path, "embeddings": embeddings.path,
        "graph": knn_path.parent, "class_graph": class_path.parent,
    }  # fmt: skip
    found = open_similarity(TargetGraph(source=name), inputs).block(ROWS_ASKED, COLS_ASKED)
    assert found.shape == (6, 8) and found[3, 1] == 1
