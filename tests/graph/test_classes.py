"""Class graphs keep the distribution of similarities and lose the identities."""

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pytest

from tests.kit.captions import captions_artifact, captions_table, make_stage
from tests.kit.stages import no_progress
from xclr import schema
from xclr.errors import DataError, RecipeError
from xclr.evaluation.datasets.imagenet import _shipped
from xclr.evaluation.suites.zero_shot import imagenet_synsets
from xclr.graph.classes import class_ids_of, class_vectors, cosine, random_class
from xclr.graph.classes import run as run_class_graph
from xclr.graph.embed import representatives
from xclr.graph.encoder import SentenceEncoder
from xclr.graph.stages import CLASS_GRAPH, ClassGraphConfig
from xclr.graph.textmodel import locate
from xclr.stage import Stage
from xclr.synsets import first_name


def config(seed=0, source="random_class"):
    return ClassGraphConfig(source=source, seed=seed)


@pytest.fixture
def means():
    rows = np.random.default_rng(0).standard_normal((9, 5))
    rows[4] = 0
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)


def matrix(path):
    table = schema.read(path, schema.GRAPH_CLASS)
    size = int(table.num_rows**0.5)
    found = np.full((size, size), np.nan)
    found[table["src"].to_numpy(), table["dst"].to_numpy()] = table["sim"].to_numpy()
    return found


def test_class_vector_is_the_mean_of_its_distinct_captions():
    captions = captions_table([("a", 1), ("b", 1), ("a", 1), ("a", 3), ("c", None), ("b", 3), ("a", 1)])
    vectors = np.eye(3, dtype=np.float16)[[0, 1, 0, 0, 2, 1, 0]]
    found = class_vectors(vectors, class_ids_of(captions), representatives(captions))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(found, [[0, 0, 0], [half, half, 0], [0, 0, 0], [half, half, 0]])


def test_shuffle_keeps_the_values_and_is_symmetric(means):
    before, after = cosine(means), random_class(means, seed=0)
    upper = np.triu_indices(9, 1)
    np.testing.assert_array_equal(np.sort(before[upper]), np.sort(after[upper]))
    np.testing.assert_array_equal(after, after.T)
    np.testing.assert_array_equal(np.diag(after), 1)
    assert (before != after).any()


def test_a_class_without_rows_is_similar_to_none(means):
    for similarity in (cosine(means), random_class(means, seed=3)):
        assert similarity[4].tolist() == similarity[:, 4].tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_the_seed_decides(means):
    np.testing.assert_array_equal(random_class(means, 5), random_class(means, 5))
    assert (random_class(means, 5) != random_class(means, 6)).any()


def test_stage(captions, embeddings, tmp_path):
    produced = run_class_graph(make_stage("class_graph", config(), captions, embeddings), tmp_path, no_progress)
    found = matrix(tmp_path / "graph_class.parquet")
    assert produced.files == ("graph_class.parquet", "classes.parquet")
    names = schema.read(tmp_path / "classes.parquet", schema.CLASSES)["name"].to_pylist()
    assert names == [f"class {label}" for label in range(5)]
    assert produced.stats["classes"] == 5  # 3 has no rows
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1)
    assert produced.stats["mean_similarity"] == pytest.approx(found[np.triu_indices(5, 1)].mean())
    vectors = np.load(embeddings.path / "vectors.npy").astype(np.float64)
    groups = [vectors[[0, 2, 7]], vectors[[1, 4, 9]], vectors[[5, 6, 12]], vectors[[0]]]
    means = np.array([group.mean(0) / np.linalg.norm(group.mean(0)) for group in groups])
    expected = np.append((means @ means.T)[np.triu_indices(4, 1)], [0] * 4)
    np.testing.assert_allclose(np.sort(found[np.triu_indices(5, 1)]), np.sort(expected), atol=1e-6)


def test_other_readers_see_the_rows(captions, embeddings, tmp_path):
    run_class_graph(make_stage("class_graph", config(), captions, embeddings), tmp_path, no_progress)
    path = tmp_path / "graph_class.parquet"
    query = f"select count(*), sum((src = dst)::int), min(src), max(dst) from '{path}'"
    assert duckdb.sql(query).fetchall() == [(25, 5, 0, 4)]
    frame = polars.read_parquet(path)
    np.testing.assert_array_equal(frame["sim"].to_numpy().reshape(5, 5), matrix(path))


@pytest.mark.parametrize(
    ("label", "text", "remedy"),
    [(None, "no row has a label", "label_column"), (32767, "32768 classes", "merge"), (-2, "negative", "from 0")],
)
def test_labels_that_cannot_be_used(embeddings, tmp_path, label, text, remedy):
    captions = captions_artifact(tmp_path, [("a", label), ("b", None)])
    with pytest.raises(DataError, match=text) as raised:
        run_class_graph(make_stage("class_graph", config(), captions, embeddings), tmp_path, no_progress)
    assert remedy in raised.value.remedy


def test_unknown_source(captions, embeddings, tmp_path):
    with pytest.raises(RecipeError, match="thesaurus") as raised:
        stage = make_stage("class_graph", config(source="thesaurus"), captions, embeddings)
        run_class_graph(stage, tmp_path, no_progress)
    assert "random_class" in raised.value.remedy


def with_classes(folder, classes):
    """A captions artifact of one row a class, with what the classes stand for."""
    artifact = captions_artifact(folder, [(name, label) for label, (name, _) in enumerate(classes)])
    names, synsets = zip(*classes, strict=True)
    table = pa.table({"label": range(len(classes)), "name": names, "synset": synsets}, schema=schema.CLASSES)
    schema.write(table, artifact.path / "classes.parquet", schema.CLASSES, {})
    return artifact


def run_on(artifact, settings, out):
    run_class_graph(Stage(CLASS_GRAPH, "class graph", settings, {"captions": artifact}), out, no_progress)
    return matrix(out / "graph_class.parquet")


def test_wordnet_needs_the_classes_only(tmp_path):
    found = run_on(
        with_classes(tmp_path / "in", [("dog", "n02084071"), ("cat", "n02121620"), ("tench", "n01440764")]),
        config(source="wordnet"),
        tmp_path,
    )
    np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(np.diag(found), 1)
    assert found[0, 1] == pytest.approx(0.857142857, abs=1e-6) and found[0, 2] < found[0, 1]


@pytest.mark.slow
def test_class_captions_are_cosines_of_the_text_model(tmp_path):
    folder = locate("sentence-transformers/all-MiniLM-L6-v2")
    settings = ClassGraphConfig(source="class_captions", weights="x", template="a photo of a {}", model=str(folder))
    classes = [("tabby cat", None), ("Persian cat", None), ("fire engine", None)]
    found = run_on(with_classes(tmp_path / "in", classes), settings, tmp_path)
    vectors = SentenceEncoder(folder).encode([f"a photo of a {name}" for name, _ in classes])
    np.testing.assert_allclose(found, vectors @ vectors.T, atol=1e-5)
    assert found[0, 1] > found[0, 2] + 0.1


@pytest.mark.slow
def test_the_thousand_names_of_imagenet_are_told_apart_by_an_uncased_model(tmp_path):
    """By WordNet's first names, which ImageNet's are; no two are as near as 0.98."""
    synsets = imagenet_synsets()
    classes = [(first_name(each, _shipped()[each]), each) for each in synsets]
    assert len(synsets) == 1000
    assert dict(map(reversed, classes))["n02113186"] == "Cardigan Welsh corgi"
    assert dict(map(reversed, classes))["n02963159"] == "cardigan"
    folder = locate("sentence-transformers/all-MiniLM-L6-v2")
    settings = ClassGraphConfig(source="class_captions", weights="x", template="a photo of a {}", model=str(folder))
    found = run_on(with_classes(tmp_path / "in", classes), settings, tmp_path)
    np.fill_diagonal(found, 0)
    assert found.shape == (1000, 1000) and found.max() < 0.98


def test_two_classes_of_one_name_are_refused_before_anything_is_encoded(tmp_path):
    settings = ClassGraphConfig(source="class_captions", weights="x", template="a {}", model="/no/model")
    artifact = with_classes(tmp_path / "in", [("crane", "n02012849"), ("dog", None), ("Crane", "n03126707")])
    with pytest.raises(DataError, match="classes 0 and 2 have one name, 'Crane'"):
        run_on(artifact, settings, tmp_path)
