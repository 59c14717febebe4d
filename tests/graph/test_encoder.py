"""The sentence-transformers encoder."""

import numpy as np

from tests.graph.conftest import MINILM
from xclr.graph import Encoder, SentenceEncoder


def test_unit_rows_in_the_order_of_the_captions():
    encoder: Encoder = SentenceEncoder(MINILM, batch_size=2)
    captions = ["a cat", "a very long caption about a cat that sleeps on a sofa in the sun", "rain", "a cat"]
    vectors = encoder.encode(captions)
    assert vectors.shape == (4, encoder.dim) == (4, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    alone = np.concatenate([encoder.encode([caption]) for caption in captions])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
