"""ImageNet as its page gives it: a tar of a tar a synset, a tar of the validation pictures, and the devkit's labels."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from xclr.captions.source import located, require
from xclr.errors import DataError
from xclr.files import HELD_OUT, TRAIN
from xclr.recipe import DataConfig
from xclr.synsets import SYNSET

ARCHIVES = ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz")
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
    with _opened(path) as outer, path.open("rb") as stream:
        for inner in outer:
            synset = Path(inner.name).stem
            if not SYNSET.fullmatch(synset):
                raise DataError(f"{path}: {inner.name} is no synset's tar", "fetch the training tar again")
            stream.seek(inner.offset_data)
            with tarfile.open(fileobj=stream, mode="r:") as tar:  # its places are those in the outer file
                for each in tar:
                    yield Packed(f"{TRAIN}/{synset}/{Path(each.name).name}", path.name, each.offset_data, each.size)


def _held_out(root: Path) -> Iterator[Packed]:
    """The labels are the devkit's lines; which one is a picture's is in its name, whatever the order in the tar."""
    path, synsets = root / ARCHIVES[1], _synsets(root)
    labels = [synsets[int(line)][0] for line in _devkit(root, TRUTH).split()]
    with _opened(path) as tar:
        for each in tar:
            name = Path(each.name).name
            number = NUMBER.fullmatch(name)
            if number is None or not 0 < int(number.group(1)) <= len(labels):
                raise DataError(f"{path}: {each.name} is no picture of the devkit's labels", "fetch both again")
            synset = labels[int(number.group(1)) - 1]
            yield Packed(f"{HELD_OUT[0]}/{synset}/{name}", path.name, each.offset_data, each.size)


def _synsets(root: Path) -> dict[int, tuple[str, str]]:
    """Synset and names of the devkit's ids."""
    from scipy.io import loadmat

    try:
        rows = loadmat(BytesIO(_devkit(root, META)), squeeze_me=True)["synsets"]
        found = {int(row["ILSVRC2012_ID"]): (str(row["WNID"]), str(row["words"])) for row in rows}
    except (KeyError, TypeError, ValueError, OSError, IndexError) as error:
        raise DataError(f"{root / ARCHIVES[2]}: {META} cannot be read: {error}", "fetch the devkit again") from error
    return {number: names for number, names in found.items() if number <= CLASSES}


def _devkit(root: Path, name: str) -> bytes:
    path = root / ARCHIVES[2]
    try:
        with tarfile.open(path, "r:gz") as tar:
            entry = next((each for each in tar if each.name.endswith(name) and each.isreg()), None)
            stream = tar.extractfile(entry) if entry else None
            if stream is not None:
                return stream.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}", "fetch it from ImageNet's page") from error
    raise DataError(f"{path} has no {name}", "it must be the devkit of tasks 1 and 2 of 2012")


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """A plain tar; raises DataError where it ends early or is none."""
    try:
        with tarfile.open(path, "r:") as tar:
            yield tar
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as a tar: {error}", "fetch it again") from error


def archives(data: DataConfig) -> tuple[Path, ...]:
    """ImageNet's official tars of train and val; none where the folders are there instead."""
    root = located(data)
    if not (root / ARCHIVES[0]).exists() or (root / TRAIN).is_dir():
        return ()
    return tuple(require(root / name, "imagenet") for name in ARCHIVES[:2])
