"""Captions as token ids for a text tower trained from scratch."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

WORD = re.compile(r"\w+|[^\w\s]")
PAD, UNKNOWN = 0, 1
MOST_WORDS, MOST_TOKENS = 32_768, 32


def words(caption: str) -> list[str]:
    """Lower-case words and single punctuation marks."""
    return WORD.findall(caption.lower())


def vocabulary(captions: Iterable[str]) -> dict[str, int]:
    """The most frequent words of the training captions, ids from 2; 0 pads, 1 is any other word."""
    counts = Counter(word for caption in captions for word in words(caption))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: MOST_WORDS - 2]
    return {word: index for index, word in enumerate(ranked, start=2)}


def tokenize(captions: Sequence[str], known: Mapping[str, int]) -> Tensor:
    """LongTensor [n, t], t the longest caption's words (at most MOST_TOKENS)."""
    ids = [[known.get(word, UNKNOWN) for word in words(caption)][:MOST_TOKENS] or [UNKNOWN] for caption in captions]
    tokens = torch.full((len(ids), max(map(len, ids))), PAD)
    for row, line in enumerate(ids):
        tokens[row, : len(line)] = torch.tensor(line)
    return tokens
