"""A table of 200,000 real short texts, each with a picture of its word: WordNet's, from Debian's wordnet-base.

`python -m tests.bench.words DIR [N]` writes DIR/words.parquet and DIR/words.yaml, for `xclr run DIR/words.yaml`. First
come the definitions and example sentences of the glosses (about 165,000), then "a photo of a ..." for as many words as
are missing.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

INSTALLED = Path("/usr/share/wordnet")
KINDS = ("noun", "verb", "adj", "adv")
SIDE, PART = 64, 10_000
RECIPE = """name: words
data: {source: table, path: words.parquet}
graph: {part: 65536}
objectives: [xclr]
train: {batch_size: 256, epochs: 1}
"""


def texts(n: int) -> list[tuple[str, str]]:
    """n (word, text) pairs, no text twice; raises ValueError when WordNet has fewer."""
    found: dict[str, str] = {}
    for source in (glosses, photos):
        for word, text in source():
            found.setdefault(text, word)
            if len(found) == n:
                return [(word, text) for text, word in found.items()]
    raise ValueError(f"WordNet gives {len(found)} texts, not {n}")


def synsets() -> Iterator[tuple[list[str], str]]:
    """Words and gloss of each synset."""
    for kind in KINDS:
        for line in (INSTALLED / f"data.{kind}").read_text().splitlines():
            if not line.startswith("  "):
                fields, _, gloss = line.partition(" | ")
                parts = fields.split(" ")
                words = parts[4 : 4 + 2 * int(parts[3], 16) : 2]
                yield [re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words], gloss.strip()


def glosses() -> Iterator[tuple[str, str]]:
    """Definitions, and the sentences quoted after them."""
    for words, gloss in synsets():
        definition, *_ = gloss.split('; "', 1)
        for text in (definition.strip('"; '), *re.findall(r'"([^"]+)"', gloss)):
            if text := text.strip():
                yield words[0], text


def photos() -> Iterator[tuple[str, str]]:
    """A caption for each word."""
    for words, _ in synsets():
        for word in words:
            yield word, f"a photo of a {word}"


def picture(word: str) -> bytes:
    """The word, drawn on a colour of its own."""
    hue = sum(word.encode()) * 37 % 360
    image = Image.new("RGB", (SIDE, SIDE), f"hsl({hue}, 60%, 80%)")
    ImageDraw.Draw(image).multiline_text((4, 4), word.replace(" ", "\n"), "black", ImageFont.load_default(12))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def main(folder: Path, n: int = 200_000) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pairs = texts(n)
    schema = pa.schema([("caption", pa.string()), ("image", pa.binary())])
    with pq.ParquetWriter(folder / "words.parquet", schema) as writer:
        for start in range(0, n, PART):
            part = pairs[start : start + PART]
            columns = {"caption": [text for _, text in part], "image": [picture(word) for word, _ in part]}
            writer.write_table(pa.table(columns, schema=schema))
    (folder / "words.yaml").write_text(RECIPE)
    print(f"{n:,} texts: {folder}/words.parquet; then: xclr run {folder}/words.yaml --until graph")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
