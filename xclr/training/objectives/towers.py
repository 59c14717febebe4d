"""The towers of pictures and captions, and the pairs they embed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from torch import Tensor, nn
from torch.nn import functional as F

from xclr.graph import EmbeddingLookup
from xclr.graph.embed import read_captions
from xclr.objective import anchor_index, at_least_float32, default_block, gather_rows, gather_views
from xclr.recipe import PairsConfig, TextConfig, TrainConfig
from xclr.training.model import TextTower, projector
from xclr.training.objectives.materials import Looked, Lookup, Materials
from xclr.training.tokens import Tokens, open_tokens
from xclr.training.words import FIRST, Reading, Vocabulary, tokenize, vocabulary

COLUMNS = ("row_id", "caption", "split")


class TextPairs(NamedTuple):
    """One view of each picture and its caption, as one rank sees them."""

    pictures: Tensor  # [b, d] this rank's unit rows
    captions: Tensor  # [b, d]
    all_pictures: Tensor  # [B, d] those of all ranks
    all_captions: Tensor  # [B, d]
    keys: Tensor | None  # [b, ...] what the graph compares rows by
    all_keys: Tensor | None  # [B, ...]
    own: Tensor  # [b] columns of this rank's among all
    temperature: float | Tensor


class Towers(nn.Module):
    """The head on the pictures' features, and the text tower on what `texts` looks up for row ids.

    `words` are those of a text tower that reads tokens of words, `reading` is of one that reads tokens at all.
    """

    def __init__(
        self,
        head: nn.Module,
        text: nn.Module,
        texts: Lookup,
        blockwise_from: int,
        words: Vocabulary | None = None,
        reading: Reading | None = None,
    ) -> None:
        super().__init__()
        self.head, self.text, self.texts = head, text, texts
        self.blockwise_from, self.words, self.reading = blockwise_from, words, reading

    def forward(self, features: Tensor, looked: Looked, temperature: float | Tensor) -> list[TextPairs]:
        """Pictures and captions of all ranks, once for each view."""
        z, t = unit(self.head(features)), unit(self.text(looked.text))
        return pairs_of_views(z, t, looked.graph, temperature)

    def block(self, candidates: Tensor) -> int | None:
        """Rows at a time, of one view's candidates; None for all at once."""
        return block_of(candidates, 2 * len(candidates), self.blockwise_from)


def pairs_of_views(z: Tensor, t: Tensor, keys: Tensor | None, temperature: float | Tensor) -> list[TextPairs]:
    """Each view of the pictures z [2b, d] with its caption t [b, d], unit rows both; of all ranks."""
    all_captions, all_keys = gather_rows(t), None if keys is None else gather_rows(keys)
    own = anchor_index(len(t), views=1, device=t.device)
    return [
        TextPairs(pictures, t, all_pictures, all_captions, keys, all_keys, own, temperature)
        for pictures, all_pictures in zip(z.chunk(2), gather_views(z).chunk(2), strict=True)
    ]


def unit(x: Tensor) -> Tensor:
    """Rows of length one, in float32 or wider."""
    return F.normalize(x.to(at_least_float32(x)), dim=1)


def block_of(candidates: Tensor, views: int, blockwise_from: int) -> int | None:
    """How many anchors a global batch takes at a time; None, all at once, below `blockwise_from` views."""
    return default_block(len(candidates), candidates.device) if views >= blockwise_from else None


def scratch_text(words: Vocabulary, config: TrainConfig) -> nn.Module:
    """The tower on tokens, with fresh weights."""
    return TextTower(len(words.known) + FIRST, words.tokens, config.projector_out)


def frozen_text(width: int, config: TrainConfig) -> nn.Module:
    """The tower on a frozen text model's vectors [n, width], with fresh weights."""
    hidden, out = config.projector_hidden, config.projector_out
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))


def causal_text(tokens: Tokens, text: TextConfig, config: TrainConfig) -> nn.Module:
    """CLIP's tower on tokens, open_clip's, with fresh weights: the end token's output, projected without a bias.

    Dropout is of what each block's attention and MLP add to the stream; open_clip has none.
    """
    from open_clip.transformer import TextTransformer  # here, because its import takes 3 s

    tower = TextTransformer(
        text.context, tokens.size, text.width, text.heads, text.layers, output_dim=config.projector_out
    )
    tower.transformer.register_forward_pre_hook(_as_long, with_kwargs=True)
    for block in tower.transformer.resblocks if text.dropout else ():
        block.ls_1, block.ls_2 = nn.Dropout(text.dropout), nn.Dropout(text.dropout)  # in the place of scales
    return tower  # type: ignore[no-any-return]


def _as_long(
    transformer: nn.Module, given: tuple[Tensor, ...], named: dict[str, Any]
) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """The causal mask of as many tokens as the batch has, of the whole context's."""
    length = given[0].shape[1]
    return given, named | {"attn_mask": named["attn_mask"][:length, :length]}


def build_towers(config: PairsConfig, materials: Materials) -> Towers:
    train, words, reading = materials.config, None, None
    texts: Lookup
    if isinstance(config.text, TextConfig):
        captions = read_captions(materials.inputs["captions"] / "captions.parquet", COLUMNS)
        if config.text.tokens == "words":
            words = Vocabulary(known_words(captions), config.text.context)
        tokens = open_tokens(config.text, words)
        text, texts = causal_text(tokens, config.text, train), partial(tokenized, captions["caption"], tokens)
        reading = Reading(tokens.marks, config.text.context)
    elif config.text == "frozen":
        lookup = EmbeddingLookup.open(materials.inputs["embeddings"] / "vectors.npy")
        text, texts = frozen_text(lookup.width, train), partial(_vectors, lookup)
    else:
        table, words = _tokens(materials.inputs["captions"])
        text, texts = scratch_text(words, train), table.__getitem__
        reading = Reading(FIRST + len(words.known), words.tokens)
    return Towers(projector(materials.features, train), text, texts, train.blockwise_from, words, reading)


def _vectors(lookup: EmbeddingLookup, rows: Tensor) -> Tensor:
    """The vectors [b, d] of row ids, float32."""
    return lookup.keys(rows).float()


def tokenized(captions: pa.ChunkedArray, tokens: Tokens, rows: Tensor) -> Tensor:
    """The tokens of the captions of row ids; they are made batch by batch, of which few are long."""
    return tokens(captions.take(rows.numpy()).to_pylist())


def _tokens(captions: Path) -> tuple[Tensor, Vocabulary]:
    table = read_captions(captions / "captions.parquet", COLUMNS)
    known = known_words(table)
    tokens = tokenize(table.column("caption").to_pylist(), known)
    return tokens, Vocabulary(known, tokens.shape[1])


def known_words(captions: pa.Table) -> dict[str, int]:
    """The words of the training captions."""
    texts, splits = captions.column("caption").to_pylist(), captions.column("split").to_pylist()
    return vocabulary(text for text, split in zip(texts, splits, strict=True) if split == "train")
