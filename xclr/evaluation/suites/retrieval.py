"""Suite `retrieval`: pictures find their captions, and captions their pictures, by the cosine of their projections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xclr.errors import DataError
from xclr.evaluation.data import Answers, Bools, Features, FeatureSet, Ints, Labels, Ragged, SuiteResult, predictions
from xclr.evaluation.networks.towers import projections
from xclr.evaluation.score import Floats, mean_score
from xclr.evaluation.stages import SuiteConfig

SAMPLE = 5000  # pictures at most, as in the published tables
DEPTHS = (1, 5, 10)
BLOCK = 1024  # queries at a time: 20 MB of cosines


def retrieval_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """Recall of pictures among captions (split "image-to-text") and of captions among pictures ("text-to-image").

    `features.pictures` and `features.texts` are projections of the same rows, with those of at most SAMPLE evenly
    spaced pictures. A picture is `labels.attribute` of its row, the first row that shows it (else each row is one): it
    counts once, and any of its captions is right for it, as in CLIP_benchmark. Rows of one group >= 0 in `labels.group`
    have one caption, so that each is right for the other's picture. Metrics: recall1, recall5 and recall10, as
    `recalls` defines them; the intervals resample queries and keep the candidates. Predictions: the row of the best
    answer, of equal ones the first. Raises DataError without captions and for projections that are not finite.
    """
    pictures, texts = features.pictures, features.texts
    if texts is None or not len(texts.rows) or not np.array_equal(pictures.rows, texts.rows):
        raise DataError("retrieval needs a caption for each picture and has other rows", "leave the suite out")
    shown, first, place = np.unique(
        labels.attribute[texts.rows] if len(labels.attribute) else texts.rows, return_index=True, return_inverse=True
    )
    kept = spaced(len(shown), SAMPLE)
    chosen = np.isin(place, kept)
    rows, own = texts.rows[chosen], texts.rows[first[kept]]
    caption, picture = identities(rows, labels.group), np.searchsorted(kept, place[chosen])
    z, t = projections(FeatureSet(own, pictures.vectors[first[kept]])), projections(texts.where(chosen))
    right = Captioned.of(picture, caption)
    scores, parts = [], []
    for split, queries, candidates, matches, asked, found_in in (
        ("image-to-text", z, t, right.of_pictures, own, rows),
        ("text-to-image", t, z, right.of_captions, rows, own),
    ):
        found, best = recalls(queries, candidates, matches)
        scores += [
            mean_score(config, split, f"recall{depth}", each) for depth, each in zip(DEPTHS, found.T, strict=True)
        ]
        targets = Ragged.of(found_in[matches(slice(each, each + 1))[0].numpy()] for each in range(len(asked)))
        parts.append(Answers(split, asked, targets, found_in[best]))
    return SuiteResult(scores, predictions(parts))


@dataclass(frozen=True, eq=False)
class Captioned:
    """Which captions are right for which pictures: any that says what one of the picture's own says."""

    has: Bools  # [P, S]: whether a picture has a saying
    said: Ints  # [n]: the saying of each caption

    @classmethod
    def of(cls, picture: Ints, caption: Ints) -> Captioned:
        """From the picture [n], numbered from 0, and the saying [n] of each caption."""
        _, said = np.unique(caption, return_inverse=True)
        has = np.zeros((picture.max() + 1, said.max() + 1), dtype=np.bool_)
        has[picture, said] = True
        return cls(has, said)

    def of_pictures(self, part: slice) -> Tensor:
        """Which captions are right for some pictures, bool [b, n]."""
        return torch.from_numpy(self.has[part][:, self.said])

    def of_captions(self, part: slice) -> Tensor:
        """Which pictures are right for some captions, bool [b, P]."""
        return torch.from_numpy(self.has[:, self.said[part]].T)


def recalls(queries: Tensor, candidates: Tensor, right_of: Callable[[slice], Tensor]) -> tuple[Floats, Ints]:
    """How probably each query [n, d] has a right candidate [m, d] among its best 1, 5 and 10: [n, 3]; the best, [n].

    `right_of` says which candidates are right for some queries, bool [b, m]. Candidates of equal similarity are taken
    to be in random order, so that ties favour nobody: with b candidates above the best right one, beside it e wrong and
    r right ones of the same similarity, and m = k - b > 0 places left, it is 1 - C(e, m) / C(e + r, m).
    """
    found, best = [], []
    for start in range(0, len(queries), BLOCK):
        part = slice(start, min(start + BLOCK, len(queries)))
        similarity, right = queries[part] @ candidates.T, right_of(part)  # [b, m]
        highest = similarity.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        level = similarity == highest
        counts = (similarity > highest, level & ~right, level & right)
        found.append(among_best(*(each.sum(1).numpy().astype(np.float64) for each in counts)))
        best.append(similarity.argmax(1))
    return np.concatenate(found), torch.cat(best).numpy()


def among_best(above: Floats, wrong: Floats, right: Floats) -> Floats:
    """The probabilities [n, 3] of `recalls`, from b, e and r of each query [n]."""
    missed, columns = np.ones_like(above), {}
    for depth in range(1, max(DEPTHS) + 1):
        place = depth - 1 - above  # of this answer among those that are equal; below 0 it is above them
        chance = (wrong - place) / np.maximum(wrong + right - place, 1)  # that it is wrong, all before it being so
        missed = np.where(place < 0, missed, missed * np.maximum(chance, 0))
        columns[depth] = 1 - missed
    return np.stack([columns[depth] for depth in DEPTHS], axis=1)


def identities(rows: Ints, group: Ints) -> Ints:
    """A number for the caption of each row [n]: its group, or one of its own where that is -1 or there are none."""
    own = -1 - rows
    if not len(group):
        return own
    return np.where(group[rows] >= 0, group[rows], own)


def spaced(n: int, count: int) -> Ints:
    """At most `count` of the positions 0..n-1, evenly spaced, each once."""
    taken = min(n, count)
    return np.arange(taken) * n // max(taken, 1)
