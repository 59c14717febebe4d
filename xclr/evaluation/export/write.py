"""The stage `export`: the emoji's evaluation pictures in the published layouts of the paper's data sets."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from xclr.evaluation.export.drawings import SIDE
from xclr.evaluation.export.layouts import Drawing, data_sets, read_emoji, real
from xclr.evaluation.stages import ExportConfig
from xclr.images import read_pictures
from xclr.stage import Produced, Progress, Stage
from xclr.training.views import premultiplied

CHUNK = 512  # pictures in memory
REAL = "real.json"


def run(stage: Stage[ExportConfig], out: Path, progress: Progress) -> Produced:
    """Write imagenet.tar, imagenet9.tar, objectnet.tar and mit-states.tar, uncompressed, and real.json.

    Pictures are SIDE pixels wide, ObjectNet's in a red frame beside; the same rows and config give the same bytes.
    Raises DataError where the captions are not of the emoji, or these are too few.
    """
    images = stage.inputs["images"]
    emoji = read_emoji(stage.inputs["captions"], images)
    sets = data_sets(emoji, stage.config)
    total, done = sum(each.size for each in sets), 0
    for each in sets:
        files = {name: text.encode() for name, text in each.texts.items()}
        for drawing in each.drawings:
            for part in drawn(drawing, images.path):
                files.update(part)
                done += len(part)
                progress(done, total)
        write_tar(out / f"{each.name}.tar", files)
    lists = real(emoji)
    (out / REAL).write_text(json.dumps(lists), encoding="utf-8")
    stats = {each.name: each.size for each in sets} | {
        "real": len(lists),
        "real_empty": lists.count([]),
        "classes": len(emoji.classes),
        "left_out": len(emoji.of("pictures")) - len(lists),
    }
    return Produced((*(f"{each.name}.tar" for each in sets), REAL), stats)


def drawn(drawing: Drawing, images: Path) -> Iterator[dict[str, bytes]]:
    """Draw and encode pictures, some at a time: encoded files by name."""
    for begin in range(0, len(drawing.rows), CHUNK):
        these = slice(begin, begin + CHUNK)
        rows = drawing.rows[these]
        pictures = premultiplied(read_pictures(images, rows, SIDE))
        pixels = (255 * drawing.draw(pictures, torch.from_numpy(rows))).round().clamp(0, 255).to(torch.uint8)
        squares = pixels.permute(0, 2, 3, 1).numpy()
        yield {name: encode(square, name) for name, square in zip(drawing.names[these], squares, strict=True)}


def encode(pixels: npt.NDArray[np.uint8], name: str) -> bytes:
    """Pixels [s, s, 3] as PNG, or as JPEG of full colour resolution, as the name says."""
    stream = io.BytesIO()
    picture = Image.fromarray(pixels)
    if name.endswith(".png"):
        picture.save(stream, "PNG")
    else:
        picture.save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes]) -> None:
    """Write an uncompressed tar of files, sorted by name, that names neither times nor owners."""
    with (
        path.open("wb") as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT, encoding="utf-8") as tar,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            tar.addfile(entry, io.BytesIO(files[name]))
