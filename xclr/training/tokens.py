"""Captions as token ids for a text tower as CLIP's, whose output is that of the end token: the largest id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from xclr.recipe import TextConfig
from xclr.training.words import FIRST, PAD, UNKNOWN, Vocabulary, words


class Tokens(Protocol):
    """Captions to int64 [n, t], 0 after the end token; t, of the longest, is at most the context."""

    @property
    def size(self) -> int:
        """How many ids there are."""

    @property
    def marks(self) -> int:
        """The first of the last ids, which are no words: they begin and end a caption."""

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """The ids of captions; longer ones are cut before the end token."""


@dataclass(frozen=True)
class Words:
    """The words of the training captions: 0 pads, 1 is any other word, the last id ends a caption."""

    known: Mapping[str, int]
    context: int

    @property
    def size(self) -> int:
        """How many ids there are."""
        return FIRST + len(self.known) + 1

    @property
    def marks(self) -> int:
        """The end token."""
        return self.size - 1

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """The ids of captions; longer ones are cut before the end token."""
        found = ([self.known.get(word, UNKNOWN) for word in words(each)] for each in captions)
        ids = [[*each[: self.context - 1], self.size - 1] for each in found]
        tokens = torch.full((len(ids), max(map(len, ids))), PAD)
        for row, line in enumerate(ids):
            tokens[row, : len(line)] = torch.tensor(line)
        return tokens


@dataclass(frozen=True)
class Pieces:
    """CLIP's byte pairs, as open_clip has them, between a begin and an end token."""

    context: int

    @cached_property
    def _tokenizer(self) -> Any:  # noqa: ANN401
        from open_clip import SimpleTokenizer  # here, because its import takes 3 s

        return SimpleTokenizer(context_length=self.context)

    @property
    def size(self) -> int:
        """How many ids there are."""
        return int(self._tokenizer.vocab_size)

    @property
    def marks(self) -> int:
        """The begin token, before the end token."""
        return int(self._tokenizer.sot_token_id)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """The ids of captions; longer ones are cut before the end token."""
        tokens: Tensor = self._tokenizer(list(captions))
        return tokens[:, : int((tokens != PAD).sum(1).max())]


def open_tokens(config: TextConfig, vocabulary: Vocabulary | None) -> Tokens:
    """What turns captions into ids for a text tower; `vocabulary` has the words of one that reads words."""
    if config.tokens == "bpe":
        return Pieces(config.context)
    assert vocabulary is not None
    return Words(vocabulary.known, config.context)
