"""Encoded pictures, good and broken, made with Pillow."""

import io
import struct
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from xclr.artifact import Artifact, Digest
from xclr.captions import run as run_captions
from xclr.images import run as run_images
from xclr.recipe import DataConfig
from xclr.stages import CaptionsConfig, ImagesConfig, Stage


def encode(picture, kind="PNG", **options):
    """The bytes of a picture file."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def claiming(png, width, height):
    """A PNG whose header claims another size, with a matching checksum."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def no_progress(done, total):
    """For runs nobody watches."""


def pack(data, folder):
    """Runs the captions and images stages; returns the images artifact and what its stage produced."""
    captions, images = (Artifact(kind, Digest(kind, "0" * 32), folder / kind) for kind in ("captions", "images"))
    for each in (captions, images):
        each.path.mkdir(parents=True)
    run_captions(Stage("captions", "captions", CaptionsConfig(data=data, sha256=())), captions.path, no_progress)
    stage = Stage("images", "images", ImagesConfig(data=data, sha256=()), {"captions": captions})
    return images, run_images(stage, images.path, no_progress)


def pack_table(pictures, folder, **columns):
    """Packs a table with these pictures (bytes or None)."""
    captions = [f"picture {row}" for row in range(len(pictures))]
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.table({"caption": captions, "image": pa.array(pictures, pa.binary()), **columns})
    pq.write_table(table, folder / "mine.parquet")
    return pack(DataConfig(source="table", path=folder / "mine.parquet"), folder)


RED = Image.new("RGB", (24, 16), (200, 30, 60))
PNG, WEBP, JPEG = encode(RED), encode(RED, "WEBP"), encode(RED, "JPEG")
HUGE = claiming(PNG, 60_000, 60_000)
