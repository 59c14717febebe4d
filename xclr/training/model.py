"""Backbones, projectors and the text tower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from xclr.errors import RecipeError
from xclr.recipe import PATCH, TrainConfig
from xclr.training.timm_models import UNFIT, checkpoint_blocks, timm_model, unfit


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with a shortcut (He et al., 2016)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        """[b, inside, h, w] to [b, outside, h / stride, w / stride]."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet_mini(config: TrainConfig) -> tuple[nn.Module, int]:
    """Four residual blocks for pictures of about 32 pixels; 8 x width features."""
    width = config.width
    backbone = nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        BasicBlock(width, width, 1),
        BasicBlock(width, 2 * width, 2),
        BasicBlock(2 * width, 4 * width, 2),
        BasicBlock(4 * width, 8 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    return backbone, 8 * width


def _vit(layers: int, heads: int, hidden: int) -> Callable[[TrainConfig], tuple[nn.Module, int]]:
    def build(config: TrainConfig) -> tuple[nn.Module, int]:
        from torchvision.models import VisionTransformer  # here, because its import takes 160 MB

        network = VisionTransformer(config.image_size, PATCH, layers, heads, hidden, 4 * hidden)
        network.heads = nn.Identity()
        return network, hidden

    return build


def _torchvision(name: str) -> Callable[[TrainConfig], tuple[nn.Module, int]]:
    def build(_: TrainConfig) -> tuple[nn.Module, int]:
        import torchvision  # here, because its import takes 160 MB

        network = getattr(torchvision.models, name)(weights=None)
        features = int(network.fc.in_features)
        network.fc = nn.Identity()
        return network, features

    return build


BACKBONES: Mapping[str, Callable[[TrainConfig], tuple[nn.Module, int]]] = {
    "resnet-mini": resnet_mini,
    **{name: _torchvision(name) for name in ("resnet18", "resnet34", "resnet50")},
    "vit-small": _vit(layers=12, heads=6, hidden=384),
    "vit-base": _vit(layers=12, heads=12, hidden=768),
}
NARROW = 8  # channels
STAGES = 4
MAP_SIDES = (16, 16, 4, 4)  # of what leaves them, as in the public code of arXiv 2110.14805
REPEATED = ("BasicBlock", "Bottleneck", "EncoderBlock")  # what a backbone is a sequence of


def build_backbone(config: TrainConfig) -> tuple[nn.Module, int]:
    """A backbone with fresh weights and its number of features.

    In channels-last format, unless the config says otherwise: CPUs and GPUs convolve it faster. With
    `activation_checkpointing` each block keeps its input only and computes its activations again in backward.
    """
    backbone, features = BACKBONES.get(config.backbone, timm_model)(config)
    if config.zero_init_residual:
        for block in backbone.modules():
            if (norm := _last_norm(block)) is not None:
                nn.init.zeros_(norm.weight)
    if config.activation_checkpointing:
        _keep_fewer(backbone, config)
    return backbone.to(memory_format=memory_format(config)), features


def check_backbone(config: TrainConfig) -> None:
    """Raise RecipeError where a backbone cannot be built, or does not map a view to one vector; makes no weights."""
    with torch.device("meta"), torch.inference_mode():
        backbone, features = build_backbone(config)
        try:
            out = backbone.eval()(torch.zeros(1, 3, config.image_size, config.image_size))
        except UNFIT as error:
            raise unfit(config, error) from error
    if not isinstance(out, Tensor) or out.shape != (1, features):
        raise RecipeError(f"{config.backbone} does not give one vector a picture", "choose a network that classifies")


def check_stages(config: TrainConfig) -> None:
    """Raise RecipeError where a backbone has no stages, or does not show what leaves them; makes no weights."""
    with torch.device("meta"):
        with_maps(build_backbone(config)[0], torch.zeros(2, 3, config.image_size, config.image_size))


def _keep_fewer(backbone: nn.Module, config: TrainConfig) -> None:
    """Have blocks keep their input only; a network of timm whose blocks are others does so itself."""
    blocks = [each for each in backbone.modules() if type(each).__name__ in REPEATED]
    for block in blocks:
        block.forward = partial(_twice, block, block.forward)
    if not blocks:
        checkpoint_blocks(backbone, config)


def stages_of(backbone: nn.Module) -> list[nn.Module]:
    """The last block of each of a backbone's four stages: a ResNet's layers, else the fourths of its blocks.

    Raises RecipeError where it is no sequence of blocks.
    """
    layers = [getattr(backbone, f"layer{n}", None) for n in range(1, STAGES + 1)]
    if all(isinstance(each, nn.Module) for each in layers):
        return [each for each in layers if each is not None]
    named = [getattr(backbone, name, None) for name in ("blocks", "stages")]
    blocks = next(
        (list(each) for each in named if isinstance(each, nn.Sequential)),
        [each for each in backbone.modules() if type(each).__name__ in REPEATED],
    )
    if len(blocks) < STAGES:
        raise RecipeError(
            f"a backbone with {len(blocks)} blocks has no {STAGES} stages", "set the objective's stages to 0"
        )
    return [blocks[n * len(blocks) // STAGES - 1] for n in range(1, STAGES + 1)]


def with_maps(backbone: nn.Module, views: Tensor) -> tuple[Tensor, ...]:
    """The features [n, d] of views, and what leaves each stage of the backbone, [n, ...] each, pooled to MAP_SIDES.

    Raises RecipeError where a stage gives nothing that could be compared.
    """
    maps: list[Tensor] = []
    hooks = [stage.register_forward_hook(lambda _stage, _given, out: maps.append(out)) for stage in stages_of(backbone)]
    try:
        features = backbone(views)
    finally:
        for hook in hooks:
            hook.remove()
    if len(maps) != STAGES or not all(isinstance(each, Tensor) for each in maps):
        raise RecipeError("the backbone does not show what leaves its stages", "set the objective's stages to 0")
    return features, *(_pooled(each, side) for each, side in zip(maps, MAP_SIDES, strict=True))


def _pooled(x: Tensor, side: int) -> Tensor:
    """Maps [n, c, h, w] averaged to at most side x side; rows of tokens as they are."""
    if x.ndim != 4 or max(x.shape[2:]) <= side:
        return x
    return nn.functional.adaptive_avg_pool2d(x, side)


def _last_norm(block: nn.Module) -> _BatchNorm | None:
    """The norm before a residual block's sum."""
    if type(block).__name__ not in REPEATED:
        return None
    return [each for name, each in block.named_modules() if isinstance(each, _BatchNorm) and not _beside(name)][-1]


def _beside(name: str) -> bool:
    return name.startswith(("shortcut", "downsample"))


def memory_format(config: TrainConfig) -> torch.memory_format:
    """How pictures lie in memory.

    Those of a very narrow network are not channels-last: on CPUs without AVX-512, oneDNN 3.12 writes behind its buffer
    in the gradient of a 1 x 1 convolution of stride 2 with fewer than 8 channels, and the process is aborted.
    """
    narrow = config.backbone == "resnet-mini" and config.width < NARROW
    return torch.channels_last if config.channels_last and not narrow else torch.contiguous_format


def _twice(block: nn.Module, forward: Callable[..., Tensor], x: Tensor) -> Tensor:
    """forward(x), computed again when its gradient is wanted."""
    if not torch.is_grad_enabled():
        return forward(x)
    again = partial(without_statistics, block)
    return checkpoint(forward, x, use_reentrant=False, context_fn=lambda: (nullcontext(), again()))


@contextmanager
def without_statistics(block: nn.Module) -> Iterator[None]:
    """Batch norms leave their running statistics as they are: the first time has counted this batch."""
    norms = [each for each in block.modules() if isinstance(each, _BatchNorm)]
    before = [
        (norm.momentum, norm.num_batches_tracked.clone()) for norm in norms if norm.num_batches_tracked is not None
    ]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, counted) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked = counted


def projector(features: int, config: TrainConfig) -> nn.Module:
    """What stands between the features and the loss: [b, features] to [b, projector_out].

    mlp: two layers with batch normalisation between them (SimCLR). mlp-bn: without biases and with one after the last
    too, as in SimCLR's own code. linear: one product without a bias, as in CLIP.
    """
    hidden, out = config.projector_hidden, config.projector_out
    if config.projector == "linear":
        return nn.Sequential(nn.Linear(features, out, bias=False))
    plain = config.projector == "mlp"
    layers = [nn.Linear(features, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True)]
    last = [nn.Linear(hidden, out, bias=plain), *([] if plain else [nn.BatchNorm1d(out)])]
    return nn.Sequential(*layers, *last)


class TextTower(nn.Module):
    """A small transformer over words, trained from scratch: token ids [b, t] (0 pads) to [b, out]."""

    def __init__(self, vocabulary: int, length: int, out: int, width: int = 128) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width, padding_idx=0)
        self.places = nn.Parameter(torch.randn(length, width) * 0.01)
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.out = nn.Linear(width, out)

    def forward(self, tokens: Tensor) -> Tensor:
        """Mean over the words that are there."""
        padding = tokens == 0
        hidden = self.layers(self.words(tokens) + self.places[: tokens.shape[1]], src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1).to(hidden.dtype)
        return self.out((hidden * kept).sum(1) / kept.sum(1))  # type: ignore[no-any-return]
