"""Suites, the data sets they read, and networks from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pydantic import Field

from xclr.recipe.config import RUNTIME, Config

Dataset = Literal["imagenet", "real", "imagenet9", "objectnet", "mit-states"]
DATASETS: tuple[Dataset, ...] = get_args(Dataset)
SuiteName = Literal[
    "linear", "keywords", "imagenet", "real", "imagenet9", "objectnet", "mit-states", "knn", "few-shot", "zero-shot",
    "retrieval", "finetune",
]  # fmt: skip


class Needs(NamedTuple):
    """What a suite reads: features of which data set (None: of the recipe's own pictures), and labels of which."""

    pictures: Dataset | None = None
    labels: Dataset | None = None
    probe: bool = False  # the head that was fitted to ImageNet's training pictures
    towers: bool = False  # the heads of an objective between pictures and captions

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The data sets that must be there."""
        wanted = (self.pictures, self.labels, "imagenet" if self.probe else None)
        return tuple(each for each in DATASETS if each in wanted)


SUITES: Mapping[SuiteName, Needs] = {
    "linear": Needs(),
    "keywords": Needs(),
    "imagenet": Needs("imagenet", "imagenet", probe=True),
    "real": Needs("imagenet", "real", probe=True),
    "imagenet9": Needs("imagenet9", "imagenet9", probe=True),
    "objectnet": Needs("objectnet", "objectnet", probe=True),
    "mit-states": Needs("mit-states", "mit-states"),
    "knn": Needs("imagenet", "imagenet"),
    "few-shot": Needs("imagenet", "imagenet"),
    "zero-shot": Needs("imagenet", "imagenet", towers=True),
    "retrieval": Needs(towers=True),
    "finetune": Needs("imagenet", "imagenet"),
}


class ProbeConfig(Config):
    """The linear head on frozen features; every learning rate and weight decay is fitted at once.

    The best pair on a split of the training pictures is fitted again on all of them.
    """

    solver: Literal["sgd", "lbfgs", "ridge"] = Field(
        "sgd", description="sgd and lbfgs minimise the cross-entropy, ridge the squared error to one-hot targets"
    )
    learning_rates: tuple[float, ...] = Field((0.01, 0.03, 0.1), min_length=1, description="that compete (sgd)")
    weight_decays: tuple[float, ...] = Field((1e-5, 1e-4, 1e-3, 1e-2, 1e-1), min_length=1, description="that compete")
    epochs: int = Field(20, ge=1, description="of each pair; the chosen one takes three times as many (sgd)")


class FinetuneConfig(Config):
    """How the suite finetune trains a pretrained backbone and a classifier on ImageNet's training pictures."""

    epochs: int = Field(10, ge=1, description="passes over the training pictures")
    batch_size: int = Field(256, ge=2, description="pictures a step over all ranks")
    learning_rate: float = Field(0.01, gt=0, description="of SGD, at its highest")
    weight_decay: float = Field(0.0, ge=0, description="not on biases and norms")


WEIGHTS = (".pt", ".pth", ".bin", ".safetensors")  # endings of files with a state dict


class Reference(Config):
    """A network from elsewhere, a row to compare with."""

    library: Literal["torchvision", "timm", "open_clip"] = Field(description="whose network it is")
    model: str = Field(description="as the library names it: resnet50, vit_small_patch16_224, ViT-B-32")
    weights: str = Field(
        description="published weights by name (IMAGENET1K_V2, laion2b_s34b_b79k; timm: its tag, or default), the path "
        "of a file with a state dict, or random"
    )
    seed: int = Field(0, ge=0, description="of random weights")

    @property
    def is_file(self) -> bool:
        """Whether the weights are those of a file."""
        return Path(self.weights).suffix in WEIGHTS

    @property
    def label(self) -> str:
        """What a table calls it."""
        return f"{self.library} {self.model}"


class EvalConfig(Config):
    """Which suites judge the frozen features."""

    suites: tuple[SuiteName, ...] = Field(
        ("linear",),
        description="linear needs classes; keywords the emoji's annotations; zero-shot and retrieval captions; the "
        "others the data sets of `roots`",
    )
    roots: Mapping[Dataset, Path] = Field(
        {},
        description="where data sets lie: imagenet, imagenet9, objectnet, mit-states: the folder, or an uncompressed "
        "tar of it; real: real.json. The emoji and ImageNet's own recipe bring theirs",
    )
    references: tuple[Reference, ...] = Field((), description="networks from elsewhere that are judged too")
    probe: ProbeConfig = ProbeConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    prompts: tuple[str, ...] = Field((), description="of zero-shot, {} standing for the class; default: CLIP's eighty")
    bootstrap: int = Field(1000, ge=100, description="resamples of the items for an interval of one seed")
    seed: int = Field(0, ge=0, description="of the resamples, halves, draws and heads")
    shard: int = Field(
        50_000,
        ge=1,
        description="pictures of one piece of the features; an element of a job array",
        json_schema_extra=RUNTIME,
    )
