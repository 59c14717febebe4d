"""Small data sets in the published layouts, about one another: ReaL, ImageNet-9 and ObjectNet know ImageNet's classes.

A class is a colour: a noisy square in the middle of its pictures, on a ground of a weaker shade, so that a linear probe
on little more than mean colours tells the classes apart.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from xclr.evaluation.datasets.imagenet9 import VARIANTS

NAMES = {  # the first ten of the 1,000, numbered 0 to 9 by published files; two are called shark
    "n01440764": "tench, Tinca tinca",
    "n01443537": "goldfish, Carassius auratus",
    "n01484850": "shark",
    "n01491361": "tiger shark, Galeocerdo cuvieri",
    "n01494475": "hammerhead, hammerhead shark",
    "n01496331": "electric ray, crampfish",
    "n01498041": "shark",
    "n01514668": "cock",
    "n01514859": "hen",
    "n01518878": "ostrich, Struthio camelus",
}
WNIDS = tuple(NAMES)
NINE = ("dog", "bird", "wheeled vehicle", "reptile", "carnivore", "insect", "musical instrument", "primate", "fish")
RGB = "dc2828 28c83c 3246dc e6d228 c83cd2 32d2d2 f08c1e 825028 f0f0f0 141414"
COLOURS = np.array([list(bytes.fromhex(each)) for each in RGB.split()])
SIDE, NOISE = 40, 25  # pixels, brightness


def picture(front: int | None, back: int | None, seed: int, *, border: int = 0) -> Image.Image:
    """A square in the colour of class `front` on the shade of class `back`, None for black, in a red border."""
    canvas = np.zeros((SIDE, SIDE, 3))
    if back is not None:
        canvas[:] = COLOURS[back % len(COLOURS)] * 0.5
    inner = slice(SIDE // 4, -SIDE // 4)
    if front is not None:
        canvas[inner, inner] = COLOURS[front % len(COLOURS)]
    elif back is not None:
        canvas[inner, inner] = canvas[0, 0] if seed % 2 else 0
    canvas += np.random.default_rng(seed).normal(0, NOISE, canvas.shape)
    if border:
        framed = np.full_like(canvas, (255, 0, 0))
        framed[border:-border, border:-border] = canvas[border:-border, border:-border]
        canvas = framed
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def save(shown: Image.Image, path: Path) -> None:
    """Write a picture, as PNG or JPEG by its name, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shown.save(path, "PNG" if path.suffix == ".png" else "JPEG", quality=95)


def imagenet(root: Path, classes: int = 3, train: int = 6, val: int = 3) -> Path:
    """train/<wnid>/ and val/<wnid>/ with so many pictures a class, and the list of names; returns `root`.

    Validation picture number i, counted from 1, is of class (i - 1) % classes: their numbers do not follow the folders.
    """
    for label, wnid in enumerate(WNIDS[:classes]):
        for index in range(train):
            save(picture(label, label, 1000 * label + index), root / "train" / wnid / f"{wnid}_{index}.JPEG")
    for index in range(classes * val):
        label = index % classes
        name = f"ILSVRC2012_val_{index + 1:08d}.JPEG"
        save(picture(label, label, 10**6 + index), root / "val" / WNIDS[label] / name)
    lines = [f"{wnid} {names}\n" for wnid, names in NAMES.items()]
    (root / "LOC_synset_mapping.txt").write_text("".join(lines[:classes]))
    return root


def real(path: Path, classes: int = 3, val: int = 3) -> Path:
    """real.json for the validation pictures of `imagenet`; returns `path`.

    Number 2 has no class, number 3 has two, all others their own.
    """
    lists = [[index % classes] for index in range(classes * val)]
    lists[1] = []
    lists[2] = [*lists[2], (2 + 1) % classes]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(lists))
    return path


def imagenet9(root: Path, classes: int = 3, each: int = 2) -> Path:
    """The eight variants with so many pictures a group, and in_to_in9.json; returns `root`.

    ImageNet's class c is group c, but the last class is in none (-1): there are classes - 1 groups, at most nine.
    """
    groups = min(classes - 1, len(NINE))
    for variant in VARIANTS:
        for group in range(groups):
            other = (group + 1) % groups
            front = None if variant in {"no_fg", "only_bg_b", "only_bg_t"} else group
            back = {"mixed_rand": other, "mixed_next": other, "only_fg": None}.get(variant, group)
            for index in range(each):
                folder = root / variant / "val" / f"{group:02d}_{NINE[group]}"
                save(picture(front, back, 100 * group + index), folder / f"{variant}_{index}.JPEG")
    mapping = {str(label): label if label < groups else -1 for label in range(classes)}
    (root / "in_to_in9.json").write_text(json.dumps(mapping))
    return root


def as_kaggle(root: Path) -> Path:
    """An ImageNet of class folders, laid out as Kaggle packs it: its lists above, val flat; returns `root`."""
    below = root / "ILSVRC" / "Data" / "CLS-LOC"
    (below / "val").mkdir(parents=True)
    (root / "train").rename(below / "train")
    lines = ["ImageId,PredictionString"]
    for path in sorted((root / "val").rglob("*.*")):
        lines.append(f"{path.stem},{path.parent.name} 85 1 499 272 {path.parent.name} 1 1 9 9 ")
        path.rename(below / "val" / path.name)
    (root / "LOC_val_solution.csv").write_text("\r\n".join(lines))
    shutil.rmtree(root / "val")
    return root


def objectnet(root: Path, classes: int = 3, each: int = 2) -> Path:
    """images/ with red borders and mappings/ for the labels "Fish" (classes 0 and 1) and "Thing 2", "Thing 3", ...

    One folder more, of the label "Banana", is none of ImageNet's. Returns `root`.
    """
    labels = {f"thing_{label}": f"Thing {label}" for label in range(2, classes)} | {"fish": "Fish", "banana": "Banana"}
    shown = {f"thing_{label}": label for label in range(2, classes)} | {"fish": 0, "banana": 5}
    for folder, label in shown.items():
        for index in range(each):
            front = index % 2 if folder == "fish" else label
            save(picture(front, 5, 7000 + 10 * label + index, border=2), root / "images" / folder / f"{index:x}.png")
    full = list(NAMES.values())[:classes]
    overlap = {"Fish": "; ".join(full[:2])} | {f"Thing {label}": full[label] for label in range(2, classes)}
    ids = {str(label): classes - 1 - label for label in range(classes)}  # an order of its own, as the published one has
    mappings = root / "mappings"
    mappings.mkdir()
    (mappings / "folder_to_objectnet_label.json").write_text(json.dumps(labels))
    (mappings / "objectnet_to_imagenet_1k.json").write_text(json.dumps(overlap))
    (mappings / "pytorch_to_imagenet_2012_id.json").write_text(json.dumps(ids))
    (mappings / "imagenet_to_label_2012_v2").write_text("".join(f"{name}\n" for name in reversed(full)))
    return root


def mit_states(root: Path, nouns: int = 3, adjectives: int = 2, each: int = 3) -> Path:
    """images/<adjective> <noun>/ for all pairs but the last one, and a folder "adj cat"; returns `root`.

    The noun is the colour of the square, the adjective that of the ground.
    """
    things = ("bear", "clock", "tomato", "velvet", "wire")[:nouns]
    states = ("ancient", "bright", "molten", "wet")[:adjectives]
    pairs = [(adjective, noun) for adjective in range(adjectives) for noun in range(nouns)]
    for place, (adjective, noun) in enumerate(pairs[:-1]):
        for index in range(each):
            folder = root / "images" / f"{states[adjective]} {things[noun]}"
            save(picture(noun, 5 + adjective, 100 * place + index), folder / f"{index}.jpg")
    save(picture(9, 9, 1), root / "images" / "adj cat" / "0.jpg")
    return root


def packed(folder: Path, path: Path, below: str = ".") -> Path:
    """The tar of a folder that `tar -cf PATH -C FOLDER .` makes, or one with another name above all; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        tar.add(folder, below)
    return path


def tarred(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    """A tar of given headers and contents; returns `path`."""
    with tarfile.open(path, "w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def mean_colour(encoded: bytes) -> np.ndarray:
    """The mean red, green and blue of an encoded picture, float64 [3]."""
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), dtype=np.float64).mean(axis=(0, 1))


def every(folder: Path) -> dict[str, str]:
    """All of them below a folder, as evaluate.roots names them."""
    builders = {"imagenet": imagenet, "imagenet9": imagenet9, "objectnet": objectnet, "mit-states": mit_states}
    for name, build in builders.items():
        (folder / name).mkdir(parents=True)
        build(folder / name)
    real(folder / "real.json")
    return {name: str(folder / name) for name in builders} | {"real": str(folder / "real.json")}
