"""The suites: what each reads, and which of its scores are columns of the tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

Dataset = Literal["imagenet", "real", "imagenet9", "objectnet", "mit-states"]
ON_OTHERS = ("retrieval", "linear", "own-knn")  # suites that judge other pictures where nobody names any
DATASETS: tuple[Dataset, ...] = get_args(Dataset)


class ScoreColumn(NamedTuple):
    """A score that is a column of the tables: its split and metric, the heading, and what it is, in words."""

    split: str
    metric: str
    heading: str
    about: str
    paper: bool = False  # among the paper's


class Suite(NamedTuple):
    """A suite: features of which data set (None: of the recipe's own pictures), and labels of which.

    The function NAME_suite of the module of its name in xclr.evaluation.suites judges these.
    """

    pictures: Dataset | None = None
    labels: Dataset | None = None
    probe: bool = False  # the head that was fitted to ImageNet's training pictures
    towers: bool = False  # the heads of an objective between pictures and captions
    fits: bool = False  # it fits a head of its own, as evaluate.probe says
    trains: bool = False  # it trains the backbone on, which networks from elsewhere do not bear
    classes: bool = False  # the recipe's own pictures must have classes
    annotated: bool = False  # and keywords
    drawn: bool = False  # they are scenes whose truth is known
    columns: tuple[ScoreColumn, ...] = ()

    @property
    def own(self) -> bool:
        """Whether it judges the recipe's own pictures by their classes."""
        return self.pictures is None and self.classes

    @property
    def reads_all(self) -> bool:
        """Whether it reads the features of all of the recipe's own pictures."""
        return self.pictures is None and not self.trains and (self.own or not self.towers)

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The data sets that must be there."""
        wanted = (self.pictures, self.labels, "imagenet" if self.probe else None)
        return tuple(each for each in DATASETS if each in wanted)


SUITES: Mapping[str, Suite] = {  # in the order of the columns
    "imagenet": Suite("imagenet", "imagenet", probe=True, columns=(
        ScoreColumn("val", "top1", "ImageNet", "linear probe on ImageNet's validation pictures", paper=True),
    )),
    "real": Suite("imagenet", "real", probe=True, columns=(
        ScoreColumn("val", "top1", "ReaL", "the same head, by the labels of ImageNet-ReaL", paper=True),
    )),
    "imagenet9": Suite("imagenet9", "imagenet9", probe=True, columns=(
        ScoreColumn("mixed_same", "top1", "IN9 same", "the same head on backgrounds of the object's class", paper=True),
        ScoreColumn("mixed_rand", "top1", "IN9 mixed", "the same head on backgrounds of a random class", paper=True),
        ScoreColumn("gap", "gap", "bg gap", "IN9 same minus IN9 mixed: how far it leans on the background", paper=True),
    )),
    "objectnet": Suite("objectnet", "objectnet", probe=True, columns=(
        ScoreColumn("all", "top1", "ObjectNet", "the same head on all of ObjectNet", paper=True),
        ScoreColumn("overlap", "top1", "ObjectNet overlap", "ObjectNet's classes that ImageNet has too"),
    )),
    "mit-states": Suite("mit-states", "mit-states", fits=True, columns=(
        ScoreColumn("objects", "top1", "MIT objects", "linear probe for the nouns of MIT-States", paper=True),
        ScoreColumn("attributes", "top1", "MIT attributes", "linear probe for its adjectives", paper=True),
    )),
    "knn": Suite("imagenet", "imagenet", columns=(
        ScoreColumn("val", "top1", "k-NN", "vote of the nearest training pictures, nothing fitted"),
    )),
    "few-shot": Suite("imagenet", "imagenet", fits=True, columns=(
        ScoreColumn("1-percent", "top1", "1% labels", "probe fitted to 1% of the training pictures"),
        ScoreColumn("10-percent", "top1", "10% labels", "probe fitted to 10% of the training pictures"),
    )),
    "finetune": Suite("imagenet", "imagenet", trains=True, columns=(
        ScoreColumn("val", "top1", "fine-tuned", "the backbone trained on, with labels"),
    )),
    "zero-shot": Suite("imagenet", "imagenet", towers=True, columns=(
        ScoreColumn("val", "top1", "zero-shot", "the class whose text is nearest, without labels"),
    )),
    "retrieval": Suite(towers=True, columns=(
        ScoreColumn("image-to-text", "recall1", "image to text R@1", "the nearest caption is the picture's"),
    )),
    "linear": Suite(fits=True, classes=True, columns=(
        ScoreColumn("pictures", "top1", "pictures top-1", "linear probe on held-out pictures"),
        ScoreColumn("concepts", "top1", "concepts top-1", "linear probe on concepts never trained on"),
        ScoreColumn("vendor", "top1", "vendor top-1", "linear probe on drawings of a vendor never trained on"),
    )),
    "own-knn": Suite(classes=True, columns=(
        ScoreColumn("pictures", "top1", "pictures k-NN", "vote of the nearest training pictures for held-out ones"),
    )),
    "own-few-shot": Suite(fits=True, classes=True, columns=(
        ScoreColumn("1-percent", "top1", "own 1% labels", "probe fitted to 1% of the recipe's own training pictures"),
        ScoreColumn("10-percent", "top1", "own 10% labels", "probe fitted to 10% of them"),
        ScoreColumn("100-percent", "top1", "own 100% labels", "probe fitted to all of them"),
    )),
    "own-zero-shot": Suite(towers=True, classes=True, columns=(
        ScoreColumn("pictures", "top1", "own zero-shot", "the class whose text own pictures are nearest to"),
    )),
    "own-finetune": Suite(trains=True, classes=True, columns=(
        ScoreColumn("pictures", "top1", "own fine-tuned", "the backbone trained on, with labels of own pictures"),
    )),
    "factors": Suite(fits=True, classes=True, drawn=True, columns=(
        ScoreColumn("random", "top1", "kind, random places", "probe for an object's kind where places are random"),
        ScoreColumn("same", "top1", "kind, usual places", "the same probe, places as in training"),
        ScoreColumn("gap", "gap", "place gap", "usual minus random places: how far it leans on the place"),
        ScoreColumn("combinations", "top1", "kind, new colours", "the same probe on kinds in colours never seen"),
        ScoreColumn("colour", "top1", "colour", "probe for the object's colour, random places"),
        ScoreColumn("texture", "top1", "texture", "probe for its texture, random places"),
        ScoreColumn("place", "top1", "place", "probe for the place, random places"),
        ScoreColumn("random-120", "top1", "kind, 120 labels", "probe for the kind of 120 labels, random places"),
    )),
    "keywords": Suite(annotated=True, columns=(
        ScoreColumn("concepts", "map", "keywords mAP", "mean average precision of keywords, same concepts"),
    )),
}  # fmt: skip
