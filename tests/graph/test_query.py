"""The captions nearest to a free text."""

import numpy as np
import pytest

from tests.kit.captions import MINILM, ROWS
from xclr.graph import SentenceEncoder, query


@pytest.mark.parametrize("at_once", [4, 1 << 18])
def test_a_free_text_finds_what_is_like_it(captions, embeddings, at_once, monkeypatch):
    monkeypatch.setattr(query, "ROWS_AT_ONCE", at_once)
    encoder = SentenceEncoder(MINILM)
    found = query.nearest_captions("a blue automobile", captions.path, embeddings.path, encoder, 20)
    assert found[0].caption == "a blue car" and found[0].row_id == 4
    assert {each.caption for each in found} == {caption for caption, _ in ROWS}, "each distinct caption once"
    assert [each.similarity for each in found] == sorted((each.similarity for each in found), reverse=True)
    vectors = np.load(embeddings.path / "vectors.npy").astype(np.float32)
    asked = encoder.encode(["a blue automobile"])[0]
    assert found[0].similarity == pytest.approx(float(vectors[4] @ asked), abs=1e-5)
    assert query.nearest_captions("a dog", captions.path, embeddings.path, encoder, 1)[0].row_id == 0
