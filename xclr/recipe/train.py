"""How a backbone is pretrained."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from xclr.recipe.config import LATER, RUNTIME, Config
from xclr.recipe.graph import USES

PATCH = 16  # of a vision transformer, pixels
NETWORK = ("backbone", "width", "image_size", "zero_init_residual", "normalisation")  # fields that say what it is
BACKBONES = ("resnet-mini", "resnet18", "resnet34", "resnet50", "vit-small", "vit-base")
TIMM = "timm/"  # before the name of a network of timm
FROM_TIMM, FROM_TORCHVISION, FROM_RUN = "timm:", "torchvision:", "run:"  # before names of weights
PUBLISHED = (FROM_TIMM, FROM_TORCHVISION)


def _known_backbone(name: str) -> str:
    if name not in BACKBONES and not name.startswith(TIMM):
        near = difflib.get_close_matches(name, BACKBONES, n=1)
        nearest = f" (did you mean {near[0]}?)" if near else ""
        known = f"{', '.join(BACKBONES)}, and no {TIMM}NAME of a network of timm{nearest}"
        raise PydanticCustomError("backbone", "it is none of {known}", {"known": known})
    return name


def placed_weights(weights: str, base: Path) -> str:
    """The weights, a relative path starting at a folder; names stay."""
    return weights if weights.startswith((*PUBLISHED, FROM_RUN)) else str(base / weights)


Backbone = Annotated[
    str,
    AfterValidator(_known_backbone),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "enum": list(BACKBONES)}, {"type": "string", "pattern": f"^{TIMM}."}]}
    ),
]


class TrainConfig(Config):
    """How a backbone is pretrained."""

    backbone: Backbone = Field(
        "resnet-mini",
        description="resnet-mini is made for 32 pixels; the other short names are torchvision's, patches of 16; "
        "timm/NAME: a network of timm, timm/vit_small_patch16_224",
    )
    init: str | None = Field(
        None,
        min_length=1,
        description="weights to start from; default: fresh ones. timm:NAME.TAG and torchvision:ENTRY are published, "
        "run:NAME/METHOD/SEED are those of a run in the same HOME; else the path of a state dict (.pt, .pth, .bin, "
        ".safetensors), or the folder of a checkpoint",
        json_schema_extra=LATER,
    )
    width: int = Field(16, ge=4, description="channels of the first block (resnet-mini)")
    image_size: int = Field(32, ge=8, description="side of a training view, pixels")
    zero_init_residual: bool = Field(
        False,
        description="residual blocks begin as the identity: the scale of their last norm starts at 0 (ResNets)",
        json_schema_extra=LATER,
    )
    projector: Literal["mlp", "mlp-bn", "linear"] = Field(
        "mlp",
        description="what stands between the features and the loss. mlp: linear, batch norm, ReLU, linear; mlp-bn: "
        "without biases, and with a batch norm at the end; linear: one product",
        json_schema_extra=LATER,
    )
    projector_hidden: int = Field(512, ge=1, description="units of the projector's hidden layer")
    projector_out: int = Field(128, ge=1, description="size of the vectors that the loss compares")
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the training pictures that a pretraining sees, drawn by its seed: those of a smaller "
        "share are among those of a larger one, and an epoch is a pass over them",
    )
    epochs: int = Field(12, ge=1, description="passes over the training pictures")
    batch_size: int = Field(256, ge=2, description="samples per step over all ranks; each gives two views")
    optimizer: Literal["adamw", "sgd", "lars"] = Field("adamw", description="sgd and lars have momentum 0.9")
    learning_rate: float = Field(3e-3, gt=0, description="at its highest, after lr_rule")
    final_learning_rate: float = Field(
        0.0, ge=0, description="at the end of the cosine, as it is: no lr_rule", json_schema_extra=LATER
    )
    lr_rule: Literal["absolute", "linear", "sqrt"] = Field(
        "absolute",
        description="what learning_rate is multiplied by: absolute 1, linear batch_size / 256, sqrt sqrt(batch_size)",
    )
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = Field(
        (0.9, 0.999),
        description="of adamw: how slowly its means of gradients and of their squares move",
        json_schema_extra=LATER,
    )
    weight_decay: float = Field(1e-4, ge=0, description="not on biases and norms")
    warmup_fraction: float = Field(0.05, ge=0, lt=1, description="share of the steps with rising learning rate")
    views: Literal["stickers", "simclr", "autoaugment"] = Field(
        "stickers",
        description="stickers: cut-out pictures on drawn backgrounds, in one pass on the batch; simclr: crop, flip, "
        "colour, grey, blur; autoaugment: crop, flip and AutoAugment's ImageNet policy",
    )
    normalisation: Literal["half", "imagenet", "none"] = Field(
        "half",
        description="of pixels from 0 to 1. half: less 0.5, over 0.25; imagenet: less the means of ImageNet's "
        "channels, over their deviations; none: as they are",
        json_schema_extra=LATER,
    )
    min_crop: float = Field(0.3, gt=0, le=1, description="smallest share of the picture's area in a crop")
    background: float = Field(
        0.8, ge=0, le=1, description="how often a transparent picture gets its group's background (stickers)"
    )
    captions: Literal["draw", "all"] = Field(
        "draw",
        description="of a picture with several, one an epoch. draw: any; all: in turn, each once before "
        "one comes again",
        json_schema_extra=LATER,
    )
    shuffle_shards: int | None = Field(
        None, ge=1, description="shuffle pictures within so many shards at a time, for slow disks; default: within all"
    )
    neighbourhoods: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of each batch that comes by neighbourhoods of the kNN graph of captions: harder negatives, "
        "and others to be like; 0: all pictures come in a random order",
        json_schema_extra=LATER,
    )
    neighbourhood_size: int = Field(
        32, ge=2, description="pictures of such a neighbourhood, where there are as many", json_schema_extra=LATER
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of the network's products; weights and losses stay float32"
    )
    channels_last: bool = Field(True, description="memory format of pictures in the network")
    compile: bool = Field(
        False,
        description="torch.compile the step: backbone, projector and loss, or where that goes block by block the "
        "backbone; on a GPU also the colours of photographs",
    )
    compile_mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = Field(
        "default", description="torch.compile's mode", json_schema_extra=LATER
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        description="pictures of a rank whose activations are in memory at a time: loss and gradient stay those "
        "of the whole batch, at one forward pass more. Batch norms of the backbone see such a block, not the batch",
        json_schema_extra=LATER,
    )
    activation_checkpointing: bool = Field(
        False, description="compute activations twice to keep fewer in memory", json_schema_extra=RUNTIME
    )
    blockwise_from: int = Field(
        2048,
        ge=2,
        description="views in a global batch from which the loss goes block by block",
        json_schema_extra=RUNTIME,
    )
    decode: Literal["cpu", "gpu", "auto"] = Field(
        "cpu",
        description="what decodes and cuts JPEGs (simclr). cpu: workers; gpu: nvJPEG, whose pixels are slightly "
        "different ones; auto: gpu where the machine that plans the run has one, which a login node has not, else cpu",
        json_schema_extra=LATER,
    )
    workers: int = Field(
        4,
        ge=0,
        description="processes of each rank that decode pictures, at most one a core",
        json_schema_extra=RUNTIME,
    )
    log_every: int = Field(5, ge=1, description="steps between two log lines", json_schema_extra=RUNTIME)
    watch_every: int | None = Field(
        100,
        ge=1,
        description="steps between two looks at a fixed sample, on the next step that is logged: k-NN top-1, effective "
        "rank, dead dimensions; null: none. A training of fewer steps has none",
        json_schema_extra=RUNTIME,
    )
    checkpoint_every: int = Field(100, ge=1, description="steps between two checkpoints", json_schema_extra=RUNTIME)
    keep_checkpoints: int = Field(
        2, ge=1, description="newest checkpoints kept, beside the best", json_schema_extra=RUNTIME
    )
    stop_dead: bool = Field(
        True,
        description="end a training of which nothing can come any more: 500 steps in a row after the warm-up a learned "
        "scale at its lower limit, or the same features for all pictures",
        json_schema_extra=RUNTIME,
    )
    stuck_after_s: int = Field(
        600, ge=1, description="how long ranks wait for one that is late", json_schema_extra=RUNTIME
    )

    @model_validator(mode="after")
    def _fits_its_backbone(self) -> TrainConfig:
        if self.backbone.startswith("vit") and self.image_size % PATCH:
            raise ValueError(f"image_size {self.image_size} is no multiple of {PATCH}, the patches of {self.backbone}")
        if self.zero_init_residual and not self.backbone.startswith("resnet"):
            raise ValueError(f"zero_init_residual is for ResNets, and backbone is {self.backbone}")
        return self

    @model_validator(mode="after")
    def _decodes_for_its_views(self) -> TrainConfig:
        if self.decode == "gpu" and self.views != "simclr":
            raise ValueError(f"decode: gpu is for views: simclr, and views is {self.views}; leave decode out")
        return self

    @model_validator(mode="after")
    def _has_room_for_neighbourhoods(self) -> TrainConfig:
        if not self.neighbourhoods:
            return self
        if self.neighbourhood_size > self.batch_size:
            raise ValueError(
                f"neighbourhood_size {self.neighbourhood_size} is more than batch_size {self.batch_size}, which holds "
                "several neighbourhoods"
            )
        if self.shuffle_shards is not None:
            raise ValueError("neighbourhoods are over all shards, and shuffle_shards wants few; leave out one of them")
        return self

    @property
    def peak_rate(self) -> float:
        """The highest learning rate: learning_rate, times batch_size / 256 or sqrt(batch_size) by the rule."""
        factor = {"absolute": 1.0, "linear": self.batch_size / 256, "sqrt": math.sqrt(self.batch_size)}
        return self.learning_rate * factor[self.lr_rule]

    @property
    def rate(self) -> str:
        """Optimiser, highest learning rate and how that came about, for people."""
        rule = f", {self.lr_rule}" if self.lr_rule != "absolute" else ""
        return f"{self.optimizer} {self.peak_rate:g}" + (f" ({self.learning_rate:g}{rule})" if rule else "")

    @property
    def uses(self) -> tuple[str, ...]:
        """What its batches are put together by, as tables name it; nothing where the order is random."""
        return USES["knn"] if self.neighbourhoods else ()

    @property
    def cuts_photographs(self) -> bool:
        """Whether views are cut from photographs, of which large ones are decoded at a smaller scale."""
        return self.views != "stickers"

    @property
    def network(self) -> TrainConfig:
        """What says which network it is and how it sees a picture, and nothing of its training."""
        return TrainConfig(**{name: getattr(self, name) for name in NETWORK})

    def seen(self, pictures: int) -> int:
        """How many of so many training pictures a pretraining sees: fraction * pictures, rounded."""
        return round(self.fraction * pictures)
