"""Encoded pictures, good and broken, made with Pillow."""

import hashlib
import io
import struct
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.kit.stages import no_progress
from xclr import schema
from xclr.artifact import Artifact, Digest
from xclr.captions import run as run_captions
from xclr.captions.stages import CAPTIONS, CaptionsConfig
from xclr.images import run as run_images
from xclr.images.generations import STATUSES
from xclr.images.stages import IMAGES, ImagesConfig
from xclr.recipe import DataConfig
from xclr.stage import Stage


def encode(picture, kind="PNG", **options):
    """The bytes of a picture file."""
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def claiming(png, width, height):
    """A PNG whose header claims another size, with a matching checksum."""
    header = b"IHDR" + struct.pack(">II", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def with_chunk(png, kind, data):
    """A PNG with one more chunk after its header."""
    chunk = struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    return png[:33] + chunk + png[33:]


def odd_exif():
    """Sound pictures whose EXIF is none: they stand as they are."""
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = encode(Image.new("RGB", (32, 48), (200, 30, 60)), "JPEG", exif=exif)
    short = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # orientation as a number, then as text
    assert short in jpeg
    return {
        "no TIFF": with_chunk(PNG, b"eXIf", b"not a TIFF file at all"),
        "random": with_chunk(PNG, b"eXIf", np.random.default_rng(0).bytes(1000)),
        "empty": with_chunk(PNG, b"eXIf", b""),
        "text": jpeg.replace(short, struct.pack(">HHI4s", 0x0112, 2, 4, b"abc\0")),
        "99": jpeg.replace(short, struct.pack(">HHIHH", 0x0112, 3, 1, 99, 0)),
    }


def prepare(data, folder):
    """Runs the captions stage; returns the images stage, and the artifact that it will make."""
    captions, images = (Artifact(kind, Digest(kind, "0" * 32), folder / kind) for kind in ("captions", "images"))
    for each in (captions, images):
        each.path.mkdir(parents=True)
    run_captions(Stage(CAPTIONS, "captions", CaptionsConfig(data=data, sha256=())), captions.path, no_progress)
    return Stage(IMAGES, "images", ImagesConfig(data=data, sha256=()), {"captions": captions}), images


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


def spoil(images, rows, folder):
    """An images artifact whose pictures of some rows are none, though its table says that they are."""
    table = schema.read(images / "images.parquet", schema.IMAGES).to_pylist()
    for path in images.iterdir():
        (folder / path.name).symlink_to(path)
    for row in rows:
        tar = folder / f"shard-{table[row]['shard']:05d}.tar"
        data = bytearray(tar.read_bytes())
        data[table[row]["offset"] : table[row]["offset"] + table[row]["size"]] = bytes(table[row]["size"])
        tar.unlink()
        tar.write_bytes(data)
    return folder


def check_rows(images, pictures):
    """The invariant of the images table: one row a picture, and its place in the tar holds its bytes."""
    rows = schema.read(images.path / "images.parquet", schema.IMAGES).to_pylist()
    assert [row["row_id"] for row in rows] == list(range(len(pictures)))
    for row, picture in zip(rows, pictures, strict=True):
        assert row["status"] in STATUSES
        assert row["bytes"] == len(picture or b"")
        assert row["sha256"] == hashlib.sha256(picture or b"").hexdigest()
        if row["status"] == "ok":
            assert row["error"] is None
            assert located(images, row) == picture
        else:
            assert row["error"]
            assert (row["shard"], row["offset"], row["size"]) == (None, None, None)
    return rows


def located(images, row):
    """The bytes at a row's shard, offset and size."""
    with (images.path / f"shard-{row['shard']:05d}.tar").open("rb") as tar:
        tar.seek(row["offset"])
        return tar.read(row["size"])


def photo(width, height, seed=0):
    """A JPEG with coarse and fine structure."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height), 3)
    noise = rng.normal(0, 25, (height, width, 3))
    return encode(Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)), "JPEG")


RED = Image.new("RGB", (24, 16), (200, 30, 60))
PNG, WEBP, JPEG = encode(RED), encode(RED, "WEBP"), encode(RED, "JPEG")
HUGE = claiming(PNG, 60_000, 60_000)


def turned(orientation=6):
    """A JPEG, left half red, right half blue, that a camera says is to be turned."""
    picture = Image.new("RGB", (60, 40), (255, 0, 0))
    picture.paste((0, 0, 255), (30, 0, 60, 40))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(picture, "JPEG", quality=95, exif=exif)


def see_through():
    """A PNG that is transparent, in a colour that must not show."""
    return encode(Image.new("RGBA", (40, 40), (200, 30, 60, 0)))


SERVED = {  # what the tests' server has at /picture/<name>, and the status it deserves
    "plain.jpg": (JPEG, "ok"),
    "tall.jpg": (encode(Image.new("RGB", (20, 1_000), (9, 9, 9)), "JPEG"), "ok"),
    "wide.jpg": (encode(Image.new("RGB", (3000, 2000), (10, 200, 10)), "JPEG"), "ok"),
    "webp": (WEBP, "ok"),
    "gif": (encode(RED, "GIF"), "ok"),
    "animated.gif": (encode(RED, "GIF", save_all=True, append_images=[RED.rotate(90)]), "ok"),
    "palette.png": (encode(RED.convert("P")), "ok"),
    "grey16.png": (encode(Image.fromarray(np.full((40, 40), 40_000, dtype=np.uint16))), "ok"),
    "alpha.png": (see_through(), "ok"),
    "cmyk.jpg": (encode(RED.convert("CMYK"), "JPEG"), "ok"),
    "turned.jpg": (turned(), "ok"),
    "cut.jpg": (encode(Image.effect_noise((200, 200), 80), "JPEG")[:900], "decode"),
    "pixel.png": (encode(Image.new("L", (1, 1))), "too_small"),
    "bomb.png": (HUGE, "too_large"),
    "empty": (b"", "decode"),
}
