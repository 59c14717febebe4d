"""Text encoders: what turns captions into unit vectors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from xclr.graph.textmodel import ENCODERS, encoder_of
from xclr.recipe import Precision

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
BATCH_TOKENS = {"cpu": 1024, "cuda": 1 << 15}  # what keeps the device busy; more is slower on a CPU (measured: by 40%)
EVEN = 0.95  # a caption with fewer tokens than this share of the batch's longest starts another batch ...
LEAST = 4  # ... once the batch holds this part of the budget
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Encoder(Protocol):
    """A frozen text model."""

    dim: int

    def encode(self, captions: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors [n, dim] of n captions, in their order."""
        ...

    @property
    def about(self) -> dict[str, Any]:
        """What the vectors come from: `dim` and `precision` at least."""
        ...


def open_encoder(model: str, precision: Precision = "float32", batch_tokens: int | None = None) -> Encoder:
    """The encoder of a text model that `text_model` found."""
    name, folder = encoder_of(model)
    module, _, attribute = ENCODERS[name].partition(":")
    encoder: Encoder = getattr(import_module(module), attribute)(Path(folder), precision, batch_tokens)
    return encoder


class SentenceEncoder:
    """A sentence-transformers model read from a folder, on the GPU where there is one; never asks the network.

    `precision` is that of its products: int8 quantises the linear layers (weights by channel, activations by tensor)
    and runs on the CPU. `batch_tokens` bounds a batch, padding included.
    """

    def __init__(self, folder: Path, precision: Precision = "float32", batch_tokens: int | None = None) -> None:
        device = "cuda" if torch.cuda.is_available() and precision != "int8" else "cpu"
        self.folder, self.precision = folder, precision
        self.model = _load(folder, device)
        if precision == "int8":
            self.model = _quantised(self.model)
        else:
            self.model.to(DTYPES[precision])
        self.batch_tokens = batch_tokens or BATCH_TOKENS[device]
        self.tokens = self.padded = 0  # encoded so far
        self.dim = len(self.encode([""])[0])

    def encode(self, captions: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors [n, dim] of n captions, in their order."""
        lengths = self._lengths(captions)
        vectors: npt.NDArray[np.float32] | None = None
        for rows in batches(lengths, self.batch_tokens):
            self.tokens += int(lengths[rows].sum())
            self.padded += len(rows) * int(lengths[rows].max())
            found = self.model.encode(
                [captions[row] for row in rows],
                batch_size=len(rows),
                show_progress_bar=False,
                convert_to_tensor=True,
            )
            part = F.normalize(found.float(), dim=1).cpu().numpy()  # in half precision it would be off by 1e-3
            vectors = np.empty((len(captions), part.shape[1]), np.float32) if vectors is None else vectors
            vectors[rows] = part
        return np.empty((0, self.dim), np.float32) if vectors is None else vectors

    def _lengths(self, captions: Sequence[str]) -> npt.NDArray[np.int64]:
        """Tokens of each caption, after truncation."""
        found = self.model.tokenizer(list(captions), truncation=True, max_length=self.model.max_seq_length)
        return np.fromiter(map(len, found["input_ids"]), np.int64, len(captions))

    @property
    def about(self) -> dict[str, Any]:
        """What the vectors come from, for the table's metadata: revision (of the hub, where known), pooling, sizes."""
        modes = [module.pooling_mode for module in self.model if hasattr(module, "pooling_mode")]
        return {
            "model": self.folder.name,
            "revision": self.folder.name if self.folder.parent.name == "snapshots" else None,
            "pooling": str(modes[0]) if modes else "of the model's own",
            "most_tokens": self.model.max_seq_length,
            "dim": self.dim,
            "precision": self.precision,
        }


def batches(lengths: npt.NDArray[np.int64], most: int) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of captions in batches of about equal length, longest first: at most `most` tokens with padding.

    A single caption may be longer than that.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = max(1, most // longest)
        part = lengths[order[start : start + size]]
        uneven = np.flatnonzero((part < EVEN * longest) & (np.arange(len(part)) * longest >= most // LEAST))
        size = int(uneven[0]) if len(uneven) else len(part)
        yield order[start : start + size]
        start += size


def _load(folder: Path, device: str) -> SentenceTransformer:
    for name, value in QUIET.items():  # read when the package is imported
        os.environ.setdefault(name, value)
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]
    return SentenceTransformer(str(folder), device=device, local_files_only=True)


def _quantised(model: SentenceTransformer) -> SentenceTransformer:
    """Linear layers with int8 weights; torch's own, which needs no other runtime (3.8 times float32, with VNNI)."""
    from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it will move to torchao, whose CPU kernels need a compiler
        layers = {torch.nn.Linear: per_channel_dynamic_qconfig}
        quantised: SentenceTransformer = quantize_dynamic(model, layers)  # type: ignore[no-untyped-call]
    return quantised
