"""ImageNet as its page gives it: a tar of a tar a synset, a tar of the validation pictures, and the devkit's labels."""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from xclr.captions.source import located, require
from xclr.errors import DataError
from xclr.files import HELD_OUT, TRAIN
from xclr.recipe import DataConfig
from xclr.synsets import SYNSET
from xclr.tars import entries, files, opened

ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")
MOST_DEVKIT = 256 << 20  # bytes, unpacked; the true one has 6 MB
CLASSES = 1000  # of the challenge; the devkit's later ids are inner nodes of WordNet
META, TRUTH = "data/meta.mat", "data/ILSVRC2012_validation_ground_truth.txt"  # in the devkit
NUMBER = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


class Packed(NamedTuple):
    """A picture in a tar: the name that it would have in the folders, and where it lies."""

    name: str
    file: str
    offset: int
    size: int


def pictures(data: DataConfig) -> list[Packed]:
    """Every picture of both tars, named as in the folders: train/<synset>/<file>, val/<synset>/<file>."""
    root = located(data)
    return [*_train(root / ARCHIVES[0]), *_held_out(root)]


def names(data: DataConfig) -> dict[str, str]:
    """All names of each synset, separated by commas, from the devkit."""
    return dict(_synsets(located(data)).values())


def _train(path: Path) -> Iterator[Packed]:
    with opened(path) as tar:
        for inner in files(tar):
            synset = Path(inner.name).stem
            if not SYNSET.fullmatch(synset):
                raise DataError(f"{path}: {inner.name} is no synset's tar", "fetch the training tar again")
            for each in files(tar, inner):  # their places are those in the outer file
                yield Packed(f"{TRAIN}/{synset}/{Path(each.name).name}", path.name, each.offset_data, each.size)


def _held_out(root: Path) -> Iterator[Packed]:
    """The labels are the devkit's lines; which one is a picture's is in its name, whatever the order in the tar."""
    path, labels = root / ARCHIVES[1], _labels(root)
    with opened(path) as tar:
        for each in files(tar):
            name = Path(each.name).name
            number = NUMBER.fullmatch(name)
            if number is None or not 0 < int(number.group(1)) <= len(labels):
                raise DataError(f"{path}: {each.name} is no picture of the devkit's labels", "fetch both again")
            synset = labels[int(number.group(1)) - 1]
            yield Packed(f"{HELD_OUT[0]}/{synset}/{name}", path.name, each.offset_data, each.size)


def _labels(root: Path) -> list[str]:
    """The synset of each validation picture, in the order of their numbers."""
    synsets, lines = _synsets(root), _devkit(root, TRUTH).split()
    try:
        return [synsets[int(line)][0] for line in lines]
    except (ValueError, KeyError) as error:
        raise _unusable(root, TRUTH, error) from error


def _synsets(root: Path) -> dict[int, tuple[str, str]]:
    """Synset and names of the devkit's ids."""
    from scipy.io import loadmat

    meta = BytesIO(_devkit(root, META))
    try:
        rows = loadmat(meta, squeeze_me=True)["synsets"]
        found = {int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"])) for row in rows}
    except Exception as error:  # SciPy raises whatever damage makes of its types
        raise _unusable(root, META, error) from error
    return {number: names for number, names in found.items() if number <= CLASSES}


def _unusable(root: Path, name: str, error: Exception) -> DataError:
    return DataError(f"{root / ARCHIVES[2]}: {name} cannot be read: {error!r}", "fetch the devkit again")


def _devkit(root: Path, name: str) -> bytes:
    path = root / ARCHIVES[2]
    try:
        with opened(path) as packed, gzip.open(packed) as unpacked:
            tar = BytesIO(unpacked.read(MOST_DEVKIT))
        entry = next((each for each in entries(tar) if each and each.name.endswith(name) and each.isreg()), None)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", "fetch it from ImageNet's page") from error
    if entry is None:
        raise DataError(f"{path} has no {name}", "it must be the devkit of tasks 1 and 2 of 2012")
    return tar.getvalue()[entry.offset_data : entry.offset_data + entry.size]


def archives(data: DataConfig) -> tuple[Path, ...]:
    """ImageNet's official tars of train and val; none where the folders are there instead."""
    root = located(data)
    if not (root / ARCHIVES[0]).exists() or (root / TRAIN).is_dir():
        return ()
    return tuple(require(root / name, "imagenet") for name in ARCHIVES[:2])
