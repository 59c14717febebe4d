"""The sentence-transformers encoder."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.captions import MINILM, ROWS
from xclr.graph import Encoder, SentenceEncoder, encoder
from xclr.graph.encoder import EVEN, LEAST, ahead, batches, usable


def test_unit_rows_in_the_order_of_the_captions():
    ours: Encoder = SentenceEncoder(MINILM, batch_tokens=40)
    captions = ["a cat", "a very long caption about a cat that sleeps on a sofa in the sun", "rain", "a cat"]
    vectors = ours.encode(captions)
    assert vectors.shape == (4, ours.dim) == (4, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    alone = np.concatenate([ours.encode([caption]) for caption in captions])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)


def test_the_peer_encodes_alike(monkeypatch):
    """sentence-transformers' own batches of 32, padded to the longest; with a prompt, of which a model makes more."""
    monkeypatch.setattr(encoder, "PIECE", 7)
    captions = [caption for caption, _ in ROWS] * 5
    ours = SentenceEncoder(MINILM)
    for prompt, plain in ((None, True), ("query: ", False)):
        ours.prompt = prompt
        ours.reads = ours._reads()
        assert (ours.reads is not None) == plain
        peer = ours.model.encode(
            captions, prompt=prompt, batch_size=32, normalize_embeddings=True, show_progress_bar=False
        )
        assert (1 - (ours.encode(captions) * peer).sum(1)).max() < 1e-5


def test_what_is_made_ahead_fails_where_it_is_used():
    def made():
        yield from (1, 2)
        raise OSError("the disk is gone")

    items = ahead(made())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)


def test_a_gpu_without_bfloat16_encodes_in_float32_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    assert usable("bfloat16", "cuda") == "float32"
    assert "Tesla T4 does not compute in bfloat16" in caplog.text
    assert usable("bfloat16", "cpu") == "bfloat16" and usable("float16", "cuda") == "float16"


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 300), max_size=200), most=st.integers(1, 2000))
def test_batches_hold_every_caption_once_within_the_budget(lengths, most):
    found = list(batches(np.array(lengths, dtype=np.int64), most))
    assert sorted(np.concatenate([np.empty(0, int), *found]).tolist()) == list(range(len(lengths)))
    for rows in found:
        longest = max(lengths[row] for row in rows)
        assert len(rows) == 1 or len(rows) * longest <= most
        assert all(lengths[row] >= EVEN * longest for row in rows) or len(rows) * longest < most // LEAST + longest


@pytest.mark.slow
def test_little_is_padding():
    """PERFORMANCE.md: at least 0.97 of the tokens of a chunk of captions are real."""
    words = ["a", "red", "bird", "sits", "on", "the", "old", "wall", "and", "sings", "to", "us", "all", "day", "long"]
    lengths = np.random.default_rng(0).integers(1, len(words), 1024)
    ours = SentenceEncoder(MINILM)
    ours.encode([" ".join(words[:length]) for length in lengths])
    assert ours.tokens / ours.padded >= 0.97


@pytest.mark.parametrize(("precision", "most"), [("bfloat16", 1e-3), ("float16", 1e-4), ("int8", 0.2)])
def test_a_lower_precision_moves_captions_a_little(precision, most):
    captions = [caption for caption, _ in ROWS]
    exact, low = SentenceEncoder(MINILM).encode(captions), SentenceEncoder(MINILM, precision).encode(captions)
    lost = 1 - (exact * low).sum(1)
    assert 1e-8 < lost.max() < most
    assert low.dtype == np.float32


def test_what_the_vectors_come_from():
    about = SentenceEncoder(MINILM).about
    assert about == {
        "model": "model", "revision": None, "pooling": "mean", "most_tokens": 256, "dim": 384, "precision": "float32",
    }  # fmt: skip


def test_a_folder_of_the_hubs_cache_tells_its_revision(tmp_path):
    folder = tmp_path / "snapshots" / "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    shutil.copytree(MINILM, folder)
    assert SentenceEncoder(folder).about["revision"] == folder.name
