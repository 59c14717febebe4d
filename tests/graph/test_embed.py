"""Each distinct caption is encoded once; every row gets its unit vector."""

import json
import subprocess
import sys

import duckdb
import numpy as np
import polars
import pyarrow.parquet as pq
import pytest

from tests.kit.captions import MINILM, ROWS, captions_artifact, captions_table, make_stage
from tests.kit.stages import no_progress
from xclr import schema
from xclr.artifact import Manifest
from xclr.errors import DataError
from xclr.graph import SentenceEncoder, embed_captions
from xclr.graph.embed import CHUNK, distinct, read_captions, representatives, table
from xclr.graph.embed import run as run_embeddings
from xclr.graph.stages import EmbeddingsConfig, tell_precision


class LetterEncoder:
    """Counts letters; remembers what it was asked."""

    dim = 26

    def __init__(self):
        self.asked = []

    def encode(self, captions):
        self.asked += captions
        return np.array([[caption.count(chr(97 + i)) for i in range(26)] for caption in captions], dtype=np.float32)


def test_each_distinct_caption_is_encoded_once(tmp_path):
    encoder = LetterEncoder()
    embed_captions(captions_table(ROWS), encoder, tmp_path / "v.npy", no_progress)
    assert sorted(encoder.asked) == sorted({caption for caption, _ in ROWS})
    assert [len(each) for each in encoder.asked] == sorted((len(each) for each in encoder.asked), reverse=True)


def test_every_row_has_its_own_captions_vector_over_many_chunks(tmp_path):
    rng = np.random.default_rng(0)
    rows = [("".join(rng.choice(list("abcdefgh"), rng.integers(1, 9))), None) for _ in range(3 * CHUNK)]
    seen = []
    vectors = embed_captions(captions_table(rows), LetterEncoder(), tmp_path / "v.npy", lambda *x: seen.append(x))
    expected = LetterEncoder().encode([caption for caption, _ in rows])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_array_equal(vectors, expected.astype(np.float16))
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy", mmap_mode="r"), vectors)
    total = len({caption for caption, _ in rows})
    assert len(seen) == -(-total // CHUNK) > 1
    assert seen[-1] == (total, total)


@pytest.mark.parametrize("caption", ["123", ""])
def test_a_caption_without_direction_is_named(tmp_path, caption):
    with pytest.raises(DataError, match=rf"row 2: '{caption}'"):
        embed_captions(captions_table([("a", 0), ("a", 0), (caption, 1)]), LetterEncoder(), tmp_path / "v", no_progress)


def test_representatives_and_distinct():
    table_ = captions_table([("a", 0), ("b", 0), ("a", 1), ("c", 0), ("b", 0)])
    assert representatives(table_).tolist() == [0, 1, 0, 3, 1]
    assert distinct(table_).tolist() == [0, 1, 3]


def test_captions_are_sorted_and_must_be_dense(tmp_path):
    whole = captions_table(ROWS)
    schema.write(whole.take(list(range(len(ROWS)))[::-1]), tmp_path / "a.parquet", schema.CAPTIONS, {})
    assert read_captions(tmp_path / "a.parquet").equals(whole)
    schema.write(whole.slice(1), tmp_path / "b.parquet", schema.CAPTIONS, {})
    with pytest.raises(DataError, match="row_id"):
        read_captions(tmp_path / "b.parquet")
    with pytest.raises(DataError, match="no captions"):
        read_captions(captions_artifact(tmp_path / "c", []).path / "captions.parquet")


def test_table_shares_the_vectors_memory():
    vectors = np.arange(12, dtype=np.float16).reshape(3, 4)
    column = table(vectors)["vec"].chunk(0)
    assert np.shares_memory(column.values.to_numpy(), vectors)


def test_stage_writes_unit_rows_in_order(embeddings_run):
    artifact, produced, seen, stage = embeddings_run
    assert produced.files == ("embeddings.parquet", "vectors.npy")
    encoder = SentenceEncoder(MINILM).about
    assert produced.stats == {"rows": 13, "distinct": 11, **encoder}
    assert seen[-1] == (11, 11)
    vectors = np.load(artifact.path / "vectors.npy")
    assert vectors.shape == (13, 384)
    assert vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(vectors.astype(np.float64), axis=1), 1, atol=1e-3)
    direct = SentenceEncoder(MINILM).encode([caption for caption, _ in ROWS])
    np.testing.assert_allclose(vectors.astype(np.float32), direct, atol=5e-4)
    np.testing.assert_array_equal(vectors[3], vectors[0])
    about = json.loads(pq.read_schema(artifact.path / "embeddings.parquet").metadata[b"about"])
    config = {"weights": "0", "precision": "float32", "pieces": None}
    assert about == {"digest": stage.digest, "config": config, "encoder": encoder}


def test_a_lower_precision_is_named_and_its_loss_is_told(captions, tmp_path):
    plain = EmbeddingsConfig(weights="0", model=str(MINILM))
    digests = set()
    for precision in ("float32", "bfloat16", "int8"):
        config = plain.model_copy(update={"precision": precision})
        stage = make_stage("embeddings", config, captions)
        digests.add(stage.digest)
        (out := tmp_path / precision).mkdir()
        stats = run_embeddings(stage, out, no_progress).stats
        told = " ".join(tell_precision(Manifest.model_construct(stats=stats)))
        assert (not told) == (precision == "float32")
        if told:
            assert 0 < stats["loss_mean"] <= stats["loss_max"] < 0.2
            assert precision in told and f"{stats['loss_mean']:.1e}" in told
    assert len(digests) == 3


def test_related_captions_are_closer(embeddings):
    vectors = np.load(embeddings.path / "vectors.npy").astype(np.float32)
    dog, car, puppy, blue_car, soup, noodles = vectors[[0, 1, 2, 4, 5, 6]]
    assert dog @ puppy > dog @ car
    assert car @ blue_car > car @ soup
    assert soup @ noodles > soup @ dog


def test_other_readers_see_the_rows(embeddings):
    path = embeddings.path / "embeddings.parquet"
    vectors = np.load(embeddings.path / "vectors.npy")
    rows = duckdb.sql(f"select row_id, vec from '{path}' order by row_id").fetchall()
    assert [row for row, _ in rows] == list(range(13))
    np.testing.assert_array_equal(np.array([vec for _, vec in rows]), vectors.astype(np.float64))
    frame = polars.read_parquet(path)
    assert frame["row_id"].to_list() == list(range(13))
    np.testing.assert_array_equal(np.array(frame["vec"].to_list(), dtype=np.float16), vectors)


def test_importing_the_wing_loads_no_text_model():
    code = "import sys, xclr.graph; assert not {'sentence_transformers', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
