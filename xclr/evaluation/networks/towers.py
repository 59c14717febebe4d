"""The towers of an objective between pictures and captions, as its training left them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xclr.errors import DataError, StoreError, anew
from xclr.evaluation.data import FeatureSet
from xclr.graph import Encoder
from xclr.recipe import PairsConfig, TextConfig
from xclr.training import CHECKPOINT
from xclr.training.model import projector
from xclr.training.objectives.towers import causal_text, frozen_text, scratch_text, unit
from xclr.training.stages import PretrainConfig
from xclr.training.tokens import open_tokens
from xclr.training.words import WORDS, Vocabulary

BLOCK = 4096  # pictures or captions at a time
Reader = Callable[[Sequence[str]], Tensor]  # captions [m] -> what the text tower reads of them, [m, ...]


@dataclass(frozen=True, eq=False)
class PairTowers:
    """Both towers in evaluation mode: the head on a backbone's features, and the text tower on what `read` gives."""

    head: nn.Module
    text: nn.Module
    read: Reader

    @torch.inference_mode()
    def pictures(self, features: Tensor) -> Tensor:
        """Unit rows float32 [n, d] of features [n, F]."""
        parts = (features[start : start + BLOCK].float() for start in range(0, max(1, len(features)), BLOCK))
        return torch.cat([unit(self.head(part)) for part in parts])

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> Tensor:
        """Unit rows float32 [m, d] of captions, m >= 1."""
        parts = (captions[start : start + BLOCK] for start in range(0, len(captions), BLOCK))
        return torch.cat([unit(self.text(self.read(part))) for part in parts])


def projections(items: FeatureSet) -> Tensor:
    """Stored projections as unit rows float32 [n, d]; raises DataError when one is not finite."""
    vectors = items.tensor()
    if not bool(vectors.isfinite().all()):
        raise DataError(
            "projections of pictures or captions are not finite", "lower train.learning_rate and train again"
        )
    return F.normalize(vectors, dim=1)


def load_towers(checkpoint: Path, config: PretrainConfig, encoder: Encoder | None) -> PairTowers | None:
    """The towers of the pretraining in the folder `checkpoint`; None where its objective has no captions.

    `encoder` is the text model whose vectors a frozen text tower was trained on; others need none. Raises StoreError
    for a checkpoint of a version that kept the backbone only, DataError for an encoder that does not fit.
    """
    objective, train = config.objective, config.train
    if not isinstance(objective, PairsConfig):
        return None
    state = _state(checkpoint / CHECKPOINT)
    text: nn.Module
    read: Reader
    if isinstance(objective.text, TextConfig):
        known = Vocabulary.load(checkpoint / WORDS) if objective.text.tokens == "words" else None
        tokens = open_tokens(objective.text, known)
        text, read = causal_text(tokens, objective.text, train), tokens
    elif objective.text == "scratch":
        words = Vocabulary.load(checkpoint / WORDS)
        text, read = scratch_text(words, train), words.tokenize
    else:
        width = state["text"]["0.weight"].shape[1]
        text, read = frozen_text(width, train), _stored(_fitting(encoder, width, checkpoint))
    head = projector(state["head"]["0.weight"].shape[1], train)
    head.load_state_dict(state["head"])
    text.load_state_dict(state["text"])
    return PairTowers(_still(head), _still(text), read)


def _state(path: Path) -> dict[str, Any]:
    """The weights by part, both towers among them."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    if lost := [part for part in ("head", "text") if part not in state]:
        raise StoreError(
            f"{path} holds no {' and no '.join(lost)}: an earlier version of xclr wrote it", anew(path.parent)
        )
    return state


def _fitting(encoder: Encoder | None, width: int, checkpoint: Path) -> Encoder:
    """The encoder, if its vectors are as wide as those of the training."""
    if encoder is None or encoder.dim != width:
        given = "no text model was given" if encoder is None else f"the text model's have size {encoder.dim}"
        raise DataError(
            f"the text tower in {checkpoint} reads caption vectors of size {width}, and {given}",
            "set embed.model to the model that the training's captions were embedded with",
        )
    return encoder


def _stored(encoder: Encoder) -> Reader:
    """Unit vectors in half precision, as the embeddings stage stores them for the training."""
    return lambda captions: F.normalize(torch.from_numpy(encoder.encode(captions)), dim=1).half().float()


def _still(tower: nn.Module) -> nn.Module:
    return tower.eval().requires_grad_(False)
