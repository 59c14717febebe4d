"""What the graph's page tells of drawn scenes: how far captions follow the truth, and the truth of each picture."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from tests.kit.scenes import made_pictures, scenes_recipe
from tests.kit.stages import commit, no_progress
from xclr.captions.stages import captions as captions_stage
from xclr.graph import stages as graph_stages
from xclr.graph.neighbours import run as run_graph
from xclr.recipe.scenes import FACTORS
from xclr.report import graph_facts
from xclr.report.graph import run
from xclr.report.graph_facts import PAIRS_DRAWN, cosines_of, drawn_ends, drawn_pairs
from xclr.report.graph_page import beside_truth
from xclr.report.graph_truth import Truth, truth_of
from xclr.stage import Produced
from xclr.store import Store


def write_words(stage, out, progress):
    """vectors.npy: of each caption the sum of random vectors of its words, as a float16 unit row."""
    captions = pq.read_table(stage.inputs["captions"].path / "captions.parquet")["caption"].to_pylist()
    vectors = np.stack([sum(map(vector_of, each.replace(",", "").split())) for each in captions])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.save(out / "vectors.npy", vectors.astype(np.float16))
    return Produced(("vectors.npy",), {"rows": len(captions)})


def vector_of(word):
    return np.random.default_rng(zlib.crc32(word.encode())).normal(size=32)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The stage of the page, over few scenes."""
    home, recipe = tmp_path_factory.mktemp("scenes"), scenes_recipe()
    store, images = Store(home), made_pictures(home)
    made = {"captions": store.reference(captions_stage(recipe, store).digest), "images": images}
    made["embeddings"] = commit(store, graph_stages.embeddings(recipe, store, made["captions"]), write_words)
    made["graph"] = commit(store, graph_stages.graph(recipe, made["captions"], made["embeddings"]), run_graph)
    return graph_stages.graph_report(recipe, **made)


@pytest.fixture(scope="module")
def scenes(report):
    """scenes.parquet: the words of each row's factors, and the vectors."""
    table = pq.read_table(report.inputs["captions"].path / "scenes.parquet").sort_by("row_id")
    return table, np.load(report.inputs["embeddings"].path / "vectors.npy").astype(np.float32)


def test_the_page_tells_the_truth_of_each_picture_and_how_captions_follow_it(report, scenes, tmp_path):
    produced = run(report, tmp_path, no_progress)
    html = (tmp_path / "graph.html").read_text()
    table, vectors = scenes
    left, right = drawn_ends(480, report.config.seed)
    common = sum(np.array(table[name])[left] == np.array(table[name])[right] for name in FACTORS)
    cosines = (vectors[left] * vectors[right]).sum(1)
    expected = spearmanr(np.clip(cosines, -1, 1), common / len(FACTORS)).statistic
    assert 0.1 < expected < 0.9
    assert produced.stats["captions_and_truth"] == pytest.approx(expected, abs=1e-9)
    assert f"<dt>captions and truth</dt><dd><bdi>{expected:.2f}, rank correlation</bdi></dd>" in html
    assert html.count('<figure class="curve">') == 4 and "factors in common, number" in html
    assert f"{PAIRS_DRAWN:,} random pairs" in html
    truths = [f"{row['colour']} {row['texture']} {row['kind']}, {row['place']}" for row in table.to_pylist()]
    captions = pq.read_table(report.inputs["captions"].path / "captions.parquet").sort_by("row_id")["caption"]
    true = set(zip(captions.to_pylist(), truths, strict=True))
    shown = re.findall(r'title="([^"]*)"><span>(?:<b>[^<]*</b> )?<bdi>[^<]*</bdi></span><small>([^<]*)</small>', html)
    assert len(shown) == html.count('<div class="tile">') > 100 and set(shown) <= true


def test_quartiles_are_those_of_the_pairs_with_as_much_in_common():
    cosines = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.9, -0.5], np.float32)
    truth = Truth(np.zeros((7, 4), np.int64), cosines, np.array([0, 0, 0, 0, 0, 4, 2]))
    numbers, found = truth.quartiles()
    assert numbers.tolist() == [0, 2, 4]
    np.testing.assert_allclose(found, [[0.2, 0.3, 0.4], [-0.5] * 3, [0.9] * 3], rtol=1e-6)
    assert "<svg" in beside_truth(truth)[1], "no pair has one or three in common"


def test_pairs_are_of_different_rows_and_read_in_parts(scenes, monkeypatch):
    left, right = drawn_ends(3, seed=0)
    assert {*zip(left.tolist(), right.tolist(), strict=True)} == {(a, b) for a in range(3) for b in range(3) if a != b}
    stored, nodes = scenes[1].astype(np.float16), np.arange(0, 480, 3)
    ends, tally = drawn_ends(480, seed=1), drawn_pairs(stored, nodes, seed=1)
    whole = cosines_of(stored, *ends)
    assert tally.sum() == PAIRS_DRAWN == len(whole)
    monkeypatch.setattr(graph_facts, "PAIRS_READ", 30_001)
    np.testing.assert_array_equal(cosines_of(stored, *ends), whole)
    np.testing.assert_array_equal(drawn_pairs(stored, nodes, seed=1), tally)


def test_other_captions_have_no_truth(tmp_path, scenes):
    assert truth_of(tmp_path, scenes[1], seed=0) is None
