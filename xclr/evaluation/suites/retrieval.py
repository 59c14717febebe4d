"""Suite `retrieval`: pictures find their captions, and captions their pictures, by the cosine of their projections."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from xclr.errors import DataError
from xclr.evaluation.data import Answers, Features, Ints, Labels, Ragged, SuiteResult, predictions
from xclr.evaluation.networks.towers import projections
from xclr.evaluation.score import Floats, mean_score
from xclr.evaluation.stages import SuiteConfig

SAMPLE = 5000  # pictures at most, as in the published tables
DEPTHS = (1, 5, 10)
BLOCK = 1024  # queries at a time: 20 MB of cosines


def retrieval_suite(features: Features, labels: Labels, config: SuiteConfig) -> SuiteResult:
    """Recall of pictures among captions (split "image-to-text") and of captions among pictures ("text-to-image").

    `features.pictures` and `features.texts` are projections of the same rows, of which at most SAMPLE evenly spaced
    ones are judged. Metrics: recall1, recall5 and recall10, as `recalls` defines them; the intervals resample queries
    and keep the candidates. Rows of one group >= 0 in `labels.group` have one caption, so that each is right for the
    others. Predictions: the row of the best answer, of equal ones the first. Raises DataError without captions
    and for projections that are not finite.
    """
    pictures, texts = features.pictures, features.texts
    if texts is None or not len(texts.rows) or not np.array_equal(pictures.rows, texts.rows):
        raise DataError("retrieval needs a caption for each picture and has other rows", "leave the suite out")
    chosen = np.zeros(len(texts.rows), dtype=np.bool_)
    chosen[spaced(len(chosen), SAMPLE)] = True
    rows, same = texts.rows[chosen], identities(texts.rows[chosen], labels.group)
    right = members(rows, same)
    z, t = (projections(each.where(chosen)) for each in (pictures, texts))
    scores, parts = [], []
    for split, queries, candidates in (("image-to-text", z, t), ("text-to-image", t, z)):
        found, best = recalls(queries, candidates, same)
        scores += [
            mean_score(config, split, f"recall{depth}", each) for depth, each in zip(DEPTHS, found.T, strict=True)
        ]
        parts.append(Answers(split, rows, right, rows[best]))
    return SuiteResult(scores, predictions(parts))


def recalls(queries: Tensor, candidates: Tensor, same: Ints) -> tuple[Floats, Ints]:
    """How probably each query [n, d] has a right candidate [n, d] among its best 1, 5 and 10: [n, 3]; the best, [n].

    Candidate j is right for query i where same [n] is equal. Candidates of equal similarity are taken to be in random
    order, so that ties favour nobody: with b candidates above the best right one, beside it e wrong and r right ones
    of the same similarity, and m = k - b > 0 places left, the probability is 1 - C(e, m) / C(e + r, m).
    """
    identity = torch.from_numpy(same)
    found, best = [], []
    for start in range(0, len(queries), BLOCK):
        part = slice(start, start + BLOCK)
        similarity = queries[part] @ candidates.T  # [b, n]
        right = identity[part, None] == identity
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


def members(rows: Ints, same: Ints) -> Ragged:
    """The rows that share the caption of each row [n]."""
    _, place, counts = np.unique(same, return_inverse=True, return_counts=True)
    by_caption = Ragged(
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), rows[np.argsort(same, kind="stable")]
    )
    return by_caption.take(place)


def spaced(n: int, count: int) -> Ints:
    """At most `count` of the positions 0..n-1, evenly spaced, each once."""
    taken = min(n, count)
    return np.arange(taken) * n // max(taken, 1)
