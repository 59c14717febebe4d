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


def prepare(data, folder):
    """Runs the captions stage; returns the images stage, and the artifact that it will make."""
    captions, images = (Artifact(kind, Digest(kind, "0" * 32), folder / kind) for kind in ("captions", "images"))
    for each in (captions, images):
        each.path.mkdir(parents=True)
    run_captions(Stage("captions", "captions", CaptionsConfig(data=data, sha256=())), captions.path, no_progress)
    return Stage("images", "images", ImagesConfig(data=data, sha256=()), {"captions": captions}), images


def pack(data, folder, **options):
    """Runs the captions and images stages; returns the images artifact and what its stage produced."""
    stage, images = prepare(data, folder)
    return images, run_images(stage, images.path, no_progress, **options)


def write_table(pictures, folder):
    """A table with these pictures: bytes, or text that is a path or URL."""
    captions = [f"picture {row}" for row in range(len(pictures))]
    kind = pa.string() if any(isinstance(each, str) for each in pictures) else pa.binary()
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"caption": captions, "image": pa.array(pictures, kind)}), folder / "mine.parquet")
    return folder / "mine.parquet"


def pack_table(pictures, folder, **options):
    """Packs a table with these pictures."""
    return pack(DataConfig(source="table", path=write_table(pictures, folder), **options), folder)


RED = Image.new("RGB", (24, 16), (200, 30, 60))
PNG, WEBP, JPEG = encode(RED), encode(RED, "WEBP"), encode(RED, "JPEG")
HUGE = claiming(PNG, 60_000, 60_000)
