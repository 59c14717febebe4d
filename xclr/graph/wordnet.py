"""WordNet's Wu-Palmer similarity between classes, all pairs at once, as NLTK computes it pair by pair.

A taxonomy is a table of synsets with their hypernyms, closed under going up. That of the 1,000 ImageNet classes comes
with the package (`python -m xclr.graph.wordnet SYNSETS` makes it); others are read from NLTK's corpus.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from xclr import schema
from xclr.errors import DataError

SHIPPED = Path(__file__).parent / "data" / "imagenet_synsets.parquet"
REMEDY = "python -m nltk.downloader wordnet, or graph.source: class_captions, which needs no WordNet"


class Taxonomy(NamedTuple):
    """Noun synsets by their offset, as in n02084071, with their names and what stands right above them."""

    names: Mapping[str, str]
    above: Mapping[str, tuple[str, ...]]


@cache
def shipped() -> Taxonomy:
    """The ImageNet classes and everything above them (WordNet 3.0; its licence is in NOTICE)."""
    rows = schema.read(SHIPPED, schema.TAXONOMY).to_pylist()
    return Taxonomy(
        {each["synset"]: each["name"] for each in rows}, {each["synset"]: tuple(each["hypernyms"]) for each in rows}
    )


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """The 1,000 classes of ILSVRC 2012, sorted: none is above another, so they are the leaves of the shipped table."""
    above = shipped().above
    inner = {over for each in above.values() for over in each}
    return tuple(sorted(above.keys() - inner))


def wu_palmer(synsets: Sequence[str], taxonomy: Taxonomy) -> npt.NDArray[np.float64]:
    """Similarities [C, C] of synsets; entry (i, j) is NLTK's wup_similarity of i with j.

    2 d / (l_i + l_j + 2 d): d is one more than the greatest depth of the common hypernym with the greatest least depth
    (i itself before others, then by name), l the shortest path from each to it, which may go over a higher one.
    Source: Wu and Palmer, 1994; NLTK 3.10.
    """
    shallow, deep = _depths(taxonomy, min), _depths(taxonomy, max)
    nodes = sorted(taxonomy.above, key=lambda each: (-shallow[each], taxonomy.names[each]))
    place = {each: index for index, each in enumerate(nodes)}
    least, greatest = (np.array([depths[each] for each in nodes]) for depths in (shallow, deep))
    up = _distances(nodes, taxonomy)
    classes = np.array([place[each] for each in synsets])
    similarity = np.empty((len(classes), len(classes)))
    for row, node in enumerate(classes):
        over = np.flatnonzero(np.isfinite(up[node]))  # deepest first
        common = np.isfinite(up[classes][:, over])
        chosen = over[common.argmax(axis=1)]
        itself = np.isfinite(up[classes, node]) & (least[chosen] == least[node])
        chosen[itself] = node
        to_chosen = np.min(up[node, over] + up[chosen][:, over], axis=1)
        from_other = np.min(up[classes] + up[chosen], axis=1)
        depth = greatest[chosen] + 1.0
        similarity[row] = 2 * depth / (to_chosen + from_other + 2 * depth)
    return similarity


def from_nltk(synsets: Iterable[Any]) -> Taxonomy:
    """The taxonomy of NLTK synsets and everything above them."""
    names: dict[str, str] = {}
    above: dict[str, tuple[str, ...]] = {}
    left = list(synsets)
    while left:
        each = left.pop()
        key = offset(each)
        if key not in names:
            over = [*each.hypernyms(), *each.instance_hypernyms()]
            names[key], above[key] = each.name(), tuple(sorted(map(offset, over)))
            left += over
    return Taxonomy(names, above)


def offset(synset: Any) -> str:  # noqa: ANN401 - NLTK has no types
    """The name that ImageNet gives to a synset of NLTK."""
    return f"{synset.pos()}{synset.offset():08d}"


def located(classes: Sequence[tuple[str, str | None]]) -> tuple[list[str], Taxonomy]:
    """Synsets of classes, given by name and synset if known, and a taxonomy that holds them.

    A name without a synset is looked up in NLTK's corpus: its first sense as a noun. Raises DataError when the corpus
    is needed and missing, or does not know a name.
    """
    given = [synset for _, synset in classes]
    if all(synset in shipped().names for synset in given):
        return [synset for synset in given if synset is not None], shipped()
    corpus = _corpus([name for name, synset in classes if synset not in shipped().names])
    found = [_sense(corpus, name, synset) for name, synset in classes]
    unknown = [name for (name, _), each in zip(classes, found, strict=True) if each is None]
    if unknown:
        raise DataError(
            f"WordNet does not know {len(unknown)} of {len(classes)} classes: {', '.join(map(repr, unknown[:5]))}",
            "give classes names of WordNet nouns, or synsets (n02084071), or use graph.source: class_captions",
        )
    return [offset(each) for each in found], from_nltk(found)


def _corpus(names: Sequence[str]) -> Any:  # noqa: ANN401
    """NLTK's WordNet, if it is on this machine."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError as error:
        few = ", ".join(map(repr, names[:5]))
        raise DataError(f"WordNet is not on this machine and {len(names)} classes need it: {few}", REMEDY) from error
    return wordnet


def _sense(corpus: Any, name: str, synset: str | None) -> Any:  # noqa: ANN401
    if synset is not None:
        return corpus.synset_from_pos_and_offset("n", int(synset[1:]))
    senses = corpus.synsets(name.replace(" ", "_"), pos="n")
    return senses[0] if senses else None


def _depths(taxonomy: Taxonomy, pick: Callable[[Iterable[int]], int]) -> dict[str, int]:
    """Steps to the root of every synset, by the shortest (min) or the longest (max) way."""
    known: dict[str, int] = {}

    def depth(synset: str) -> int:
        if synset not in known:
            over = taxonomy.above[synset]
            known[synset] = 1 + pick([depth(each) for each in over]) if over else 0
        return known[synset]

    for synset in taxonomy.above:
        depth(synset)
    return known


def _distances(nodes: Sequence[str], taxonomy: Taxonomy) -> npt.NDArray[np.float32]:
    """Fewest steps up from each node to each other, inf where there is no way: [A, A]."""
    place = {each: index for index, each in enumerate(nodes)}
    steps = np.full((len(nodes), len(nodes)), np.inf, dtype=np.float32)
    for row, node in zip(steps, nodes, strict=True):
        level, taken = {node}, 0
        while level:
            for each in level:
                row[place[each]] = min(row[place[each]], taken)
            level, taken = {over for each in level for over in taxonomy.above[each]}, taken + 1
    return steps


def main() -> None:
    """Write the shipped table from a file with a synset a line."""
    from nltk.corpus import wordnet

    lines = Path(sys.argv[1]).read_text().split()
    taxonomy = from_nltk(wordnet.synset_from_pos_and_offset("n", int(each[1:])) for each in lines)
    order = sorted(taxonomy.names)
    columns = {
        "synset": order,
        "name": [taxonomy.names[each] for each in order],
        "hypernyms": [taxonomy.above[each] for each in order],
    }
    about = {"source": "WordNet 3.0", "classes": len(lines)}
    schema.write(pa.table(columns, schema=schema.TAXONOMY), SHIPPED, schema.TAXONOMY, about)


if __name__ == "__main__":
    main()
