"""The features stage: one forward pass of the frozen backbone over every picture and rendering."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from xclr.images import read_pictures, usable_rows
from xclr.stages import FeaturesConfig, PretrainConfig, Produced, Progress, Stage
from xclr.store import Store
from xclr.training import CHECKPOINT, build_backbone
from xclr.training.batches import read_groups, source_side
from xclr.training.keyed import keyed_uniform
from xclr.training.views import PLAIN, as_groups, evaluation_backdrop, shuffled_groups, still, texture_bank

CHUNK = 512  # pictures a forward pass
Render = Callable[[Tensor, Tensor], Tensor]  # (pictures [b, 4, S, S], rows [b]) -> [b, 3, s, s]


def run(stage: Stage, out: Path, progress: Progress) -> Produced:
    """Write <variant>.rows.npy (int64 [n]) and <variant>.npy (float16 [n, F]) for every rendering."""
    assert isinstance(stage.config, FeaturesConfig)
    captions, images, checkpoint = (stage.inputs[role] for role in ("captions", "images", "checkpoint"))
    manifest = Store(checkpoint.path.parents[2]).manifest(checkpoint)
    pretrained = PretrainConfig.model_validate(manifest.config)
    backbone = load_backbone(checkpoint.path / CHECKPOINT, pretrained)
    splits = np.asarray(
        pq.read_table(captions.path / "captions.parquet", columns=["split"]).column("split").to_pylist()
    )
    usable = usable_rows(images.path)
    rows = usable[splits[usable] != "unused"]
    pictures = read_pictures(images.path, rows, source_side(pretrained.train))
    renders = renderings(stage.config, as_groups(read_groups(captions.path), len(splits)), pretrained.train.image_size)
    total = sum(int(chooses(variant, splits[rows]).sum()) for variant in renders)
    files, done = [], 0
    for variant, render in renders.items():
        chosen = np.flatnonzero(chooses(variant, splits[rows]))
        parts = []
        for part in _forward(backbone, render, pictures, rows, chosen):
            parts.append(part)
            done += len(part)
            progress(done, total)
        np.save(out / f"{variant}.rows.npy", rows[chosen])
        np.save(out / f"{variant}.npy", np.concatenate(parts) if parts else np.zeros((0, 0), np.float16))
        files += [f"{variant}.rows.npy", f"{variant}.npy"]
    return Produced(tuple(files), {"forward_passes": done, "rows": len(rows)})


def load_backbone(path: Path, config: PretrainConfig) -> nn.Module:
    """The frozen backbone of a checkpoint, in evaluation mode."""
    backbone, _ = build_backbone(config.train)
    backbone.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["backbone"])
    return backbone.eval().requires_grad_(False)


def chooses(variant: str, splits: npt.NDArray[np.str_]) -> npt.NDArray[np.bool_]:
    """Which rows a rendering is made of, by their splits."""
    if variant == "plain":
        return np.ones(len(splits), dtype=bool)
    return np.asarray(splits == ("train" if variant == "trained" else "pictures"))


def renderings(config: FeaturesConfig, groups: Tensor, side: int) -> Mapping[str, Render]:
    """plain: grey behind; trained: backgrounds as in training; mixed_same, mixed_rand: of the own, of another group."""
    bank = texture_bank()

    def plain(pictures: Tensor, rows: Tensor) -> Tensor:
        return still(pictures, PLAIN, side)

    def same(pictures: Tensor, rows: Tensor) -> Tensor:
        return still(pictures, evaluation_backdrop(bank, groups[rows], rows, side), side)

    def rand(pictures: Tensor, rows: Tensor) -> Tensor:
        return still(pictures, evaluation_backdrop(bank, shuffled_groups(groups[rows], rows), rows, side), side)

    def trained(pictures: Tensor, rows: Tensor) -> Tensor:
        u = keyed_uniform((0x7A,), rows, 4)
        textured = evaluation_backdrop(bank, groups[rows], rows, side)
        own = (u[:, 3] < config.background)[:, None, None, None]
        return still(pictures, torch.where(own, textured, u[:, :3, None, None].expand_as(textured)), side)

    if not config.backgrounds:
        return {"plain": plain}
    return {"plain": plain, "trained": trained, "mixed_same": same, "mixed_rand": rand}


@torch.inference_mode()
def _forward(
    backbone: nn.Module, render: Render, pictures: Tensor, rows: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]
) -> Iterator[npt.NDArray[np.float16]]:
    for begin in range(0, len(chosen), CHUNK):
        part = torch.from_numpy(chosen[begin : begin + CHUNK])
        batch = render(pictures[part], torch.from_numpy(rows)[part])
        yield backbone(batch.contiguous(memory_format=torch.channels_last)).half().numpy()
