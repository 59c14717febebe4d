"""Encoded pictures: opened safely, judged, turned upright, stored smaller.

`python -m xclr.images.picture SHORTEST_EDGE` does so for another process, picture by picture over its standard input
and output, so that what kills a decoder kills no download. It imports little, because many of it are started.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import resource
import signal
import struct
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from xclr.recipe import MIN_SIDE

if TYPE_CHECKING:
    from cv2.typing import MatLike

FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP")
# not among them: formats for which Pillow starts other programs (EPS) or that no page shows
SUFFIX = {"WEBP": "webp", "PNG": "png", "JPEG": "jpg", "MPO": "jpg", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
ORIENTATION = 0x0112  # of EXIF
TURNS = {  # by orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
SIDEWAYS = 5  # from that orientation on, width and height are exchanged
MOST_PIXELS = 50_000_000  # 34 bytes of WebP may be 169 million, and every reader decodes them
MOST_RATIO = 50  # of the sides: rules, film strips, bombs
QUALITY = 95  # of the JPEGs that are written
MARGIN = 1.5  # times the edge that a picture is decoded to at least; with 1 fine structure differs by a quarter
PARTS = (8, 4, 2, 1)  # of its size that a JPEG can be decoded to
BEGINNING = 24  # bytes of what is no picture, in messages
PATIENCE_S, MEMORY = 60, 4 << 30  # of the process, for a picture


class Judged(NamedTuple):
    """Columns of an images row, the suffix of its file, and what is to be stored (None: the bytes as they came)."""

    columns: dict[str, Any]
    suffix: str = ""
    stored: bytes | None = None


def opened(data: bytes | BinaryIO) -> Image.Image:
    """An encoded picture in one of FORMATS, or a file that holds one; raises what Pillow raises.

    Of what is none of them the error says how it begins.
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return Image.open(stream, formats=_formats())
    except UnidentifiedImageError:
        size = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        beginning = stream.read(BEGINNING)
        raise UnidentifiedImageError(f"{size:,} bytes that are no picture: {beginning!r}") from None


@cache
def _formats() -> tuple[str, ...]:
    """FORMATS that this Pillow knows; it raises KeyError for others."""
    Image.init()
    return tuple(each for each in FORMATS if each in Image.OPEN)


def orientation(picture: Image.Image) -> int:
    """As EXIF says, from 1 (upright) to 8; 1 where it says nothing that can be read."""
    if picture.format == "TIFF":
        return 1  # Pillow turns it by itself
    try:
        said = picture.getexif().get(ORIENTATION)
    except Exception:  # noqa: BLE001 - whatever Pillow makes of broken EXIF, the picture itself may be sound
        return 1
    return said if isinstance(said, int) and said in TURNS else 1


def size_of(picture: Image.Image) -> tuple[int, int]:
    """Width and height once it is upright."""
    return picture.size[::-1] if orientation(picture) >= SIDEWAYS else picture.size


def upright(picture: Image.Image) -> Image.Image:
    """Turned as its EXIF says."""
    picture.load()
    return turned(picture, orientation(picture))


def turned(picture: Image.Image, orientation: int) -> Image.Image:
    """Turned as an orientation says."""
    return picture if orientation == 1 else picture.transpose(TURNS[orientation])


def rgba(picture: Image.Image) -> Image.Image:
    """Red, green, blue, alpha; 16-bit grey is scaled, which Pillow's convert would cut off at 255."""
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture, dtype=np.float32) / 257).clip(0, 255).astype(np.uint8))
    return picture.convert("RGBA")


def rgb(picture: Image.Image, behind: float) -> Image.Image:
    """Red, green, blue; transparent parts show a grey of brightness `behind`, in [0, 1]."""
    if picture.mode == "RGB":
        picture.load()
        return picture
    if picture.mode in {"L", "CMYK", "YCbCr"}:
        return picture.convert("RGB")
    layers = rgba(picture)
    paper = Image.new("RGB", layers.size, (round(255 * behind),) * 3)
    paper.paste(layers, mask=layers.getchannel("A"))
    return paper


def judge(data: bytes | None, edge: int | None = None) -> Judged:
    """Status, size and SHA-256 of an encoded picture as it came, and what of it is stored; never raises on bad bytes.

    With `edge` everything is stored as an upright RGB JPEG whose shortest edge is at most `edge` pixels, ratio kept; a
    file that is one already stays as it is. Of an animation that is the first frame, transparent parts become white.
    """
    found: dict[str, Any] = {"bytes": len(data or b""), "sha256": hashlib.sha256(data or b"").hexdigest()}
    if not data:
        return Judged(found | {"status": "decode", "error": "no bytes"})
    try:
        with opened(data) as picture:
            width, height = picture.size
            found |= {"width": width, "height": height}
            if refused := _refused(width, height):
                return Judged(found | refused)
            suffix, stored = SUFFIX.get(picture.format or "", "img"), None
            if edge is None or _is_plain(picture, edge):
                rgb(upright(picture), 1.0)
            else:
                suffix, stored = "jpg", _smaller(data, picture, edge)
    except Image.DecompressionBombError as error:
        return Judged(found | {"status": "too_large", "error": str(error)[:200]})
    except Exception as error:  # noqa: BLE001 - Pillow raises whatever broken bytes make its plugins do
        found = {name: found[name] for name in ("bytes", "sha256")}
        return Judged(found | {"status": "decode", "error": f"{type(error).__name__}: {error}"[:200]})
    return Judged(found | {"status": "ok"}, suffix, stored)


def _refused(width: int, height: int) -> dict[str, str]:
    """Status and error of a picture whose size nobody should decode, before anybody does."""
    short, long = sorted((width, height))
    if short < MIN_SIDE:
        return {"status": "too_small", "error": f"{width} x {height}"}
    if width * height > MOST_PIXELS:
        return {"status": "too_large", "error": f"{width} x {height}: more than {MOST_PIXELS:,} pixels"}
    if long > MOST_RATIO * short:
        return {"status": "too_large", "error": f"{width} x {height}: a side is more than {MOST_RATIO} times the other"}
    return {}


def _is_plain(picture: Image.Image, edge: int) -> bool:
    """True for an upright RGB or grey JPEG that is small enough."""
    small = min(picture.size) <= edge and picture.format == "JPEG" and picture.mode in {"RGB", "L"}
    return small and orientation(picture) == 1


def _smaller(data: bytes, picture: Image.Image, edge: int) -> bytes:
    """An upright RGB JPEG, shortest edge at most `edge`: blurred, then sampled bilinearly at distances of r pixels.

    The blur is a Gaussian of variance (r^2 - 1) / 6, by which a triangle of half-width r exceeds one of half-width 1:
    as near to Lanczos as Pillow's bilinear filter, which is that triangle, at a third of its CPU.
    """
    import cv2  # which only decoders need

    short = min(picture.size)
    size = tuple(max(1, round(side * min(1.0, edge / short))) for side in picture.size)
    pixels = _pixels(data, picture, next(part for part in PARTS if part == 1 or short >= part * MARGIN * edge))
    if pixels.shape[1::-1] != size:
        ratio = max(pixels.shape[1] / size[0], pixels.shape[0] / size[1])
        pixels = cv2.resize(cv2.GaussianBlur(pixels, (0, 0), math.sqrt((ratio**2 - 1) / 6)), size)
    if (turn := orientation(picture)) != 1:
        pixels = np.asarray(turned(Image.fromarray(pixels), turn))
    return cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1].tobytes()


def _pixels(data: bytes, picture: Image.Image, part: int) -> MatLike:
    """Blue, green, red at a part of the size; by OpenCV where it can, else by Pillow, which says what is broken."""
    import cv2

    if picture.format == "JPEG" and picture.mode in {"RGB", "L"}:
        flag = cv2.IMREAD_COLOR if part == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{part}")
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is not None:
            return pixels
    return cv2.cvtColor(np.asarray(rgb(picture, 1.0).reduce(part)), cv2.COLOR_RGB2BGR)


def serve(asked: BinaryIO, answers: BinaryIO, edge: int | None) -> None:
    """Judge pictures that come as size and bytes, and answer with sizes, columns as JSON and bytes, until none come.

    A picture that takes too long ends the process.
    """
    while header := asked.read(4):
        data = asked.read(*struct.unpack("!I", header))
        signal.alarm(PATIENCE_S)
        judged = judge(data, edge)
        signal.alarm(0)
        stored = judged.stored or b""
        said = json.dumps([judged.columns, judged.suffix, judged.stored is not None]).encode()
        answers.write(struct.pack("!II", len(said), len(stored)) + said + stored)
        answers.flush()


if __name__ == "__main__":
    import cv2

    cv2.setNumThreads(1)  # one decoder a core
    with suppress(ValueError, OSError):  # a system without that limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    serve(sys.stdin.buffer, sys.stdout.buffer, int(sys.argv[1]) or None)
