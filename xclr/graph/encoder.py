"""Text encoders: what turns captions into unit vectors."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from xclr.graph.textmodel import ENCODERS, encoder_of
from xclr.recipe import Precision

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

QUIET = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
BATCH_TOKENS = {"cpu": 1024, "cuda": 1 << 15}  # what keeps the device busy; more is slower on a CPU (measured: by 40%)
CHUNK = {"cpu": 1024, "cuda": 1 << 15}  # captions at a time: those between two reports of progress
PIECE = 1 << 13  # captions tokenised at once
PROBE = ["A", "Two words, and MORE", ""]
EVEN = 0.95  # a caption with fewer tokens than this share of the batch's longest starts another batch ...
LEAST = 4  # ... once the batch holds this part of the budget
Ints = npt.NDArray[np.int64]
T = TypeVar("T")
log = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Encoder(Protocol):
    """A frozen text model. One that wants many captions at once says how many, in `chunk`."""

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
        self.folder, self.precision = folder, usable(precision, device)
        self.model = _load(folder, device).eval()
        if precision == "int8":
            self.model = _quantised(self.model)
        else:
            self.model.to(DTYPES[self.precision])
        self.batch_tokens, self.chunk = batch_tokens or BATCH_TOKENS[device], CHUNK[device]
        self.prompt = self.model.prompts.get(self.model.default_prompt_name)
        self.reads = self._reads()
        self.tokens = self.padded = 0  # encoded so far
        self.dim = len(self.encode([""])[0])

    @torch.inference_mode()
    def encode(self, captions: Sequence[str]) -> npt.NDArray[np.float32]:
        """Unit vectors [n, dim] of n captions, in their order; they leave the device together."""
        if not len(captions):
            return np.empty((0, self.dim), np.float32)
        places, found = [], []
        for rows, features in ahead(self._batches(captions)):
            given = {
                name: each.to(self.model.device) if isinstance(each, Tensor) else each
                for name, each in features.items()
            }
            vectors = self.model(given)["sentence_embedding"][:, : self.model.truncate_dim]
            found.append(F.normalize(vectors.float(), dim=1))  # in half precision it would be off by 1e-3
            places.append(rows)
        units = torch.cat(found).cpu().numpy()
        return np.asarray(units[np.argsort(np.concatenate(places))])

    def _batches(self, captions: Sequence[str]) -> Iterator[tuple[Ints, dict[str, Any]]]:
        """Captions in batches of about equal length: their positions, and what the model reads."""
        order = np.argsort([-len(caption) for caption in captions], kind="stable")
        for start in range(0, len(captions), PIECE):
            piece = order[start : start + PIECE]
            texts = [captions[row] for row in piece]
            ids = self._ids(texts)
            lengths = np.fromiter(map(len, ids), np.int64, len(ids))
            for rows in batches(lengths, self.batch_tokens):
                self.tokens += int(lengths[rows].sum())
                self.padded += len(rows) * int(lengths[rows].max())
                yield piece[rows], self._features([texts[row] for row in rows], [ids[row] for row in rows])

    def _features(self, texts: list[str], ids: list[list[int]]) -> dict[str, Any]:
        """What the model reads; its own way takes 10 times as long as padding the tokens."""
        if self.reads is None:
            return dict(self.model.preprocess(texts, prompt=self.prompt))
        ours = padded(ids, self.model.tokenizer.pad_token_id)
        return {name: ours[name] for name in self.reads}

    def _reads(self) -> tuple[str, ...] | None:
        """The names of what the model reads where that is padded tokens; None where it is something of its own."""
        theirs = self.model.preprocess(PROBE, prompt=self.prompt)
        ours = padded(self._ids(PROBE), self.model.tokenizer.pad_token_id or 0)
        return tuple(theirs) if all(_same(each, ours.get(name)) for name, each in theirs.items()) else None

    def _ids(self, captions: list[str]) -> list[list[int]]:
        """Tokens of each caption, after truncation."""
        most = self.model.max_seq_length
        found = self.model.tokenizer(
            captions, truncation=True, max_length=most, return_attention_mask=False, return_token_type_ids=False
        )
        return list(found["input_ids"])

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


def usable(precision: Precision, device: str) -> Precision:
    """The precision, or float32 on a GPU that does not compute in bfloat16, and says so."""
    if precision == "bfloat16" and device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name()
        log.warning("%s does not compute in bfloat16: captions are encoded in float32; float16 is faster", name)
        return "float32"
    return precision


def padded(ids: Sequence[Sequence[int]], pad: int) -> dict[str, Any]:
    """What most text models read: tokens padded at the end [b, longest], which of them are real, and one segment."""
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    real = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.full(real.shape, pad, np.int64)
    tokens[real] = np.fromiter(chain.from_iterable(ids), np.int64, int(lengths.sum()))
    whole = torch.from_numpy(tokens)
    segments = torch.zeros_like(whole)
    mask = torch.from_numpy(real.astype(np.int64))
    return {"input_ids": whole, "attention_mask": mask, "token_type_ids": segments, "modality": "text"}


def _same(a: object, b: object) -> bool:
    return torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next of which is made in a thread while one is used."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


def batches(lengths: Ints, most: int) -> Iterator[Ints]:
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
