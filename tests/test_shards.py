"""Shards are there whole or not at all, and only missing ones are made again."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kit.captions import MINILM, ROWS, captions_artifact
from tests.kit.stages import no_progress
from xclr import shards
from xclr.graph import embed
from xclr.graph.stages import EMBEDDINGS, EmbeddingsConfig
from xclr.shards import Shard, folder, missing, writing
from xclr.stage import Stage


def test_a_shard_appears_when_its_block_ends_well(tmp_path):
    with writing(Shard(tmp_path, 3, 10)) as draft:
        (draft / "a.npy").write_bytes(b"1")
        assert missing(tmp_path, 5) == (0, 1, 2, 3, 4)
    assert missing(tmp_path, 5) == (0, 1, 2, 4)
    assert (folder(tmp_path, 3) / "a.npy").read_bytes() == b"1"


def test_a_shard_whose_block_fails_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="disk"), writing(Shard(tmp_path, 0, 10)) as draft:
        (draft / "a.npy").write_bytes(b"1")
        raise OSError("disk")
    assert missing(tmp_path, 1) == (0,) and list((tmp_path / shards.SHARDS).iterdir()) == []


def test_a_shard_that_is_there_stays_as_it_is(tmp_path):
    for content in (b"first", b"second"):
        with writing(Shard(tmp_path, 0, 10)) as draft:
            (draft / "a.npy").write_bytes(content)
    assert (folder(tmp_path, 0) / "a.npy").read_bytes() == b"first"


def test_embeddings_from_shards_made_apart_are_those_of_one_run(tmp_path):
    captions = captions_artifact(tmp_path / "captions", ROWS)

    def stage(shard: int) -> Stage:
        config = EmbeddingsConfig(weights="w", model=str(MINILM), batch_tokens=40, shard=shard)
        return Stage(EMBEDDINGS, "embeddings", config, {"captions": captions})

    assert stage(1).digest == stage(1000).digest, "how the work is cut names nothing"
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    for out in (whole, pieces):
        out.mkdir()
    embed.run(stage(1000), whole, no_progress)
    embed.run_shard(stage(2), pieces, 1, no_progress)
    made = (folder(pieces, 1) / "vectors.npy").stat().st_mtime_ns
    seen: list[tuple[int, int]] = []
    produced = embed.run(stage(2), pieces, lambda *numbers: seen.append(numbers))
    assert (folder(pieces, 1) / "vectors.npy").stat().st_mtime_ns == made, "a finished shard was made again"
    assert produced.scratch == (shards.SHARDS,) and seen[-1][0] == seen[-1][1]
    ours, theirs = (np.load(out / "vectors.npy").astype(np.float32) for out in (pieces, whole))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
