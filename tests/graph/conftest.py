"""Small real captions, encoded once by the packaged MiniLM."""

import pytest

from tests.kit.captions import MINILM, ROWS, artifact, captions_artifact, make_stage
from xclr.artifact import Artifact
from xclr.graph.embed import run as run_embeddings
from xclr.graph.stages import EmbeddingsConfig


@pytest.fixture(scope="session")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return captions_artifact(tmp_path_factory.mktemp("captions"), ROWS)


@pytest.fixture(scope="session")
def embeddings_run(captions: Artifact, tmp_path_factory: pytest.TempPathFactory):
    """(artifact, what the stage produced, its progress, the stage)"""
    out = tmp_path_factory.mktemp("embeddings")
    stage = make_stage("embeddings", EmbeddingsConfig(weights="0", model=str(MINILM), batch_tokens=40), captions)
    seen: list[tuple[int, int]] = []
    produced = run_embeddings(stage, out, lambda done, total: seen.append((done, total)))
    return artifact("embeddings", out), produced, seen, stage


@pytest.fixture(scope="session")
def embeddings(embeddings_run) -> Artifact:
    return embeddings_run[0]
