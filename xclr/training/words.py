"""Captions as token ids for a text tower trained from scratch."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from xclr.errors import StoreError, anew

WORD = re.compile(r"\w+|[^\w\s]")
PAD, UNKNOWN, FIRST = 0, 1, 2
MOST_WORDS, MOST_TOKENS = 32_768, 32
WORDS = "words.json"  # beside a checkpoint


class Vocabulary(NamedTuple):
    """What a text tower reads: words to ids from 2, in the order of the ids, and the most tokens of a caption."""

    known: Mapping[str, int]
    tokens: int

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read what `save` wrote; raises StoreError when it is not there."""
        if not path.is_file():
            raise StoreError(f"{path} is missing: the text tower's words", anew(path.parent))
        about = json.loads(path.read_text(encoding="utf-8"))
        return cls({word: index for index, word in enumerate(about["words"], start=FIRST)}, about["tokens"])

    def save(self, path: Path) -> None:
        """As JSON: {"tokens": most tokens of a caption, "words": [in the order of their ids]}."""
        path.write_text(json.dumps({"tokens": self.tokens, "words": list(self.known)}), encoding="utf-8")

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """LongTensor [n, t], t <= tokens: captions that are longer than any of the training's are cut."""
        return tokenize(captions, self.known)[:, : self.tokens]


class Reading(NamedTuple):
    """What tokens a text tower reads: those from `marks` on begin and end a caption; `tokens` of them at most."""

    marks: int
    tokens: int


def words(caption: str) -> list[str]:
    """Lower-case words and single punctuation marks."""
    return WORD.findall(caption.lower())


def vocabulary(captions: Iterable[str]) -> dict[str, int]:
    """The most frequent words of the training captions, ids from 2; 0 pads, 1 is any other word."""
    counts = Counter(word for caption in captions for word in words(caption))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))[: MOST_WORDS - 2]
    return {word: index for index, word in enumerate(ranked, start=FIRST)}


def tokenize(captions: Sequence[str], known: Mapping[str, int]) -> Tensor:
    """LongTensor [n, t], t the longest caption's words (at most MOST_TOKENS)."""
    ids = [[known.get(word, UNKNOWN) for word in words(caption)][:MOST_TOKENS] or [UNKNOWN] for caption in captions]
    tokens = torch.full((len(ids), max(map(len, ids))), PAD)
    for row, line in enumerate(ids):
        tokens[row, : len(line)] = torch.tensor(line)
    return tokens


def leave_out(tokens: Tensor, numbers: Tensor, share: float, marks: int) -> Tensor:
    """Captions [n, t] without the words whose number [n, t] is below `share`; the others move together, 0 behind them.

    numbers: from 0 to 1. Of each caption the word of the largest number stays, and so do ids from `marks` on, which are
    no words. Uniform numbers leave out that share: random deletion, arXiv 1901.11196, section 2. Nothing is read back
    from the device.
    """
    word = (tokens != PAD) & (tokens < marks)
    least = numbers.masked_fill(~word, 0).amax(1, keepdim=True).clamp(max=share)
    out = (tokens == PAD) | (word & (numbers < least))
    return tokens.masked_fill(out, PAD).gather(1, out.argsort(dim=1, stable=True))
