"""Suites, the data sets they read, and networks from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from xclr.recipe.config import RUNTIME, Config, OneOf, Seed
from xclr.recipe.data import DataConfig
from xclr.recipe.suites import SUITES, Dataset

Framing = Literal["standard", "whole", "template"]  # of a data set's pictures
SuiteName = Annotated[str, OneOf(SUITES)]


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
    """How finetune and own-finetune train a pretrained backbone and a classifier on training pictures."""

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
    seed: Seed = Field(0, description="of random weights")

    @property
    def is_file(self) -> bool:
        """Whether the weights are those of a file."""
        return Path(self.weights).suffix in WEIGHTS

    @property
    def label(self) -> str:
        """What a table calls it."""
        return f"{self.library} {self.model}"


class EvalConfig(Config):
    """Which suites judge the frozen features, and of which pictures."""

    suites: tuple[SuiteName, ...] = Field(
        ("linear",),
        description="linear and the own- ones need classes; keywords the emoji's annotations; factors "
        "scenes; zero-shot, own-zero-shot "
        "and retrieval captions; the others the data sets of `roots`",
    )
    roots: Mapping[Dataset, Path] = Field(
        {},
        description="where data sets lie: imagenet, imagenet9, objectnet, mit-states: the folder, or an uncompressed "
        "tar of it; real: real.json. The emoji and ImageNet's own recipe bring theirs",
    )
    framing: Literal["official", "standard"] = Field(
        "official",
        description="official: ImageNet-9's pictures whole, ObjectNet's with the shortest edge resized to the crop, as "
        "the benchmarks' own tools show them; standard: both as ImageNet's, with a margin cut off",
    )
    references: tuple[Reference, ...] = Field((), description="networks from elsewhere that are judged too")
    data: DataConfig | None = Field(
        None,
        description="other pictures, told as in `data`, that the suites for own pictures judge instead of those that "
        "were trained on",
    )
    probe: ProbeConfig = ProbeConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    prompts: tuple[str, ...] = Field(
        (),
        description="of zero-shot and own-zero-shot, {} standing for the class; default: CLIP's eighty, of "
        "own-zero-shot data.caption_template",
    )
    bootstrap: int = Field(1000, ge=100, description="resamples of the items for an interval of one seed")
    seed: Seed = Field(0, description="of the resamples, halves, draws and heads")
    shard: int = Field(
        50_000,
        ge=1,
        description="pictures of one piece of the features; an element of a job array",
        json_schema_extra=RUNTIME,
    )

    @field_validator("data")
    @classmethod
    def _data_are_there(cls, value: DataConfig | None) -> DataConfig | None:
        if value is not None and not value.is_located:
            raise ValueError("name the table by `path`: what `url` names is fetched for `data` alone")
        return value
