"""Text encoders: what turns captions into unit vectors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}


class Encoder(Protocol):
    """A frozen text model."""

    dim: int

    def encode(self, captions: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors [n, dim] of n captions, in their order."""
        ...


class SentenceEncoder:
    """A sentence-transformers model read from a folder, on the GPU where there is one; never asks the network."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        for name, value in QUIET.items():  # read when the package is imported
            os.environ.setdefault(name, value)
        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.batch_size = batch_size
        self.model = SentenceTransformer(str(folder), device=device, local_files_only=True)
        self.dim = len(self.encode([""])[0])

    def encode(self, captions: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors [n, dim] of n captions, in their order."""
        vectors = self.model.encode(
            list(captions),
            batch_size=self.batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return np.asarray(vectors, dtype=np.float32)
