"""Pictures as tensors: every mode becomes a square of red, green, blue and alpha."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.kit.pictures import JPEG, PNG, RED, WEBP, claiming, encode, odd_exif, pack, pack_table, write_table
from xclr.errors import DataError
from xclr.evaluation.networks.pictures import prepare
from xclr.images import EncodedPictures, decode, read_pictures, usable_rows
from xclr.images.picture import judge, opened, size_of, upright
from xclr.images.preparation import Preparation
from xclr.recipe import DataConfig

SIDES = [8, 16, 32]


class OneFile(EncodedPictures):
    """One picture, as trainings read it."""

    def __init__(self, data):
        self.data, self.rows, self.shards = data, np.zeros(1, np.int64), np.zeros(1, np.int64)

    def encoded(self, position):
        return self.data

    def unreadable(self, position, error, *, there):
        return DataError(repr(error))


def near(pixels, colour, tolerance):
    """True when every pixel has that colour (red, green, blue, alpha)."""
    expected = torch.tensor(colour, dtype=torch.int16)[:, None, None]
    return bool(((pixels.to(torch.int16) - expected).abs() <= tolerance).all())


PICTURES = {
    "RGB png": (encode(RED), (200, 30, 60, 255), 0),
    "RGB webp": (encode(RED, "WEBP", lossless=True), (200, 30, 60, 255), 0),
    "RGB jpeg": (encode(RED, "JPEG"), (200, 30, 60, 255), 6),
    "RGBA": (encode(Image.new("RGBA", (24, 16), (10, 200, 30, 128))), (10, 200, 30, 128), 1),
    "palette": (encode(RED.convert("P", palette=Image.Palette.ADAPTIVE)), (200, 30, 60, 255), 0),
    "grey": (encode(Image.new("L", (24, 16), 77)), (77, 77, 77, 255), 0),
    "grey with alpha": (encode(Image.new("LA", (24, 16), (77, 200))), (77, 77, 77, 200), 1),
    "black and white": (encode(Image.new("1", (24, 16), 1)), (255, 255, 255, 255), 0),
    "16 bit": (encode(Image.fromarray(np.full((16, 24), 77 * 257, np.uint16))), (77, 77, 77, 255), 1),
    "CMYK jpeg": (encode(RED.convert("CMYK"), "JPEG"), (200, 30, 60, 255), 12),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_of_any_mode_becomes_a_square_of_its_colour(kind, side):
    data, colour, tolerance = PICTURES[kind]
    pixels = decode(data, side)
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (4, side, side)
    assert near(pixels, colour, tolerance)


def test_a_16_bit_ramp_stays_a_ramp():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    pixels = decode(encode(Image.fromarray(ramp.astype(np.uint16))), 64)[:3].float()
    expected = torch.from_numpy(ramp / 257).float()
    assert (pixels - expected).abs().max() <= 1.5


def test_transparent_palette_colours_stay_transparent():
    picture = Image.new("P", (16, 16), 0)
    picture.putpalette([9, 9, 9, 200, 30, 60])
    picture.paste(1, (8, 0, 16, 16))
    pixels = decode(encode(picture, transparency=0), 16)
    assert pixels[3, :, :8].eq(0).all()
    assert near(pixels[:, :, 8:], (200, 30, 60, 255), 0)


@pytest.mark.parametrize("size", [(60, 20), (20, 60)])
def test_the_centre_of_a_long_picture_is_taken(size):
    picture = Image.new("RGB", size, (255, 0, 0))
    left, top = (size[0] - 20) // 2, (size[1] - 20) // 2
    picture.paste((0, 255, 0), (left, top, left + 20, top + 20))
    assert near(decode(encode(picture), 20), (0, 255, 0, 255), 0)
    middle = decode(encode(picture), 10)[:, 2:8, 2:8]
    assert near(middle, (0, 255, 0, 255), 0)


def test_a_square_of_the_right_side_is_not_resampled():
    values = np.random.default_rng(0).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    pixels = decode(encode(Image.fromarray(values)), 16)
    assert np.array_equal(pixels.permute(1, 2, 0).numpy(), values)


def test_red_is_first_and_rows_go_down():
    picture = Image.new("RGB", (16, 16), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 16, 8))
    pixels = decode(encode(picture), 16)
    assert pixels[:, 0, 0].tolist() == [255, 0, 0, 255]
    assert pixels[:, 15, 0].tolist() == [0, 0, 255, 255]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Rows 0, 3 and 4 are usable, 1 and 2 are not."""
    return pack_table([PNG, None, b"no picture", WEBP, JPEG], tmp_path_factory.mktemp("images"))[0].path


def test_the_usable_rows_are_those_that_decode(images):
    rows = usable_rows(images)
    assert rows.dtype == np.int64
    assert rows.tolist() == [0, 3, 4]


def test_rows_are_read_in_the_order_asked_and_as_often(images):
    pixels = read_pictures(images, [3, 0, 3], 8)
    assert pixels.shape == (3, 4, 8, 8)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[0], decode(WEBP, 8))
    assert torch.equal(pixels[1], decode(PNG, 8))
    assert torch.equal(pixels[2], pixels[0])


def test_rows_may_come_as_an_array(images):
    assert torch.equal(read_pictures(images, usable_rows(images), 8), read_pictures(images, [0, 3, 4], 8))


def test_no_rows_are_no_pictures(images):
    assert read_pictures(images, [], 8).shape == (0, 4, 8, 8)


@pytest.mark.parametrize("row", [1, 2])
def test_a_row_without_a_picture_is_named(row, images):
    with pytest.raises(DataError, match=f"row {row} has no picture"):
        read_pictures(images, [0, row], 8)


def turned(orientation, kind="JPEG"):
    """A picture, red above blue, stored as a camera held in another way stores it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.new("RGB", (32, 32), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 32, 16))
    stored = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    method = stored[orientation]
    return encode(picture.transpose(method) if method is not None else picture, kind, exif=exif)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_picture_stands_as_its_camera_was_held(orientation, kind):
    pixels = decode(turned(orientation, kind), 32)
    assert near(pixels[:, :12], (255, 0, 0, 255), 12)
    assert near(pixels[:, 20:], (0, 0, 255, 255), 12)


@pytest.mark.filterwarnings("ignore::UserWarning")  # what Pillow finds odd in it
def test_exif_that_cannot_be_read_turns_nothing():
    whole = turned(6)
    at = whole.index(b"Exif\0\0") + 6
    for offset in range(26):  # header, one entry, end
        broken = whole[: at + offset] + b"\xff" + whole[at + offset + 1 :]
        assert decode(broken, 32).shape == (4, 32, 32)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", odd_exif())
@pytest.mark.parametrize("edge", [None, 16])
def test_a_picture_whose_exif_is_none_is_what_every_reader_reads(name, edge, tmp_path):
    data = odd_exif()[name]
    judged = judge(data, edge)
    assert judged.columns["status"] == "ok"
    stored = judged.stored or data
    files = OneFile(stored)
    size, decoded, _ = files.picture(0, 0.5)
    assert decoded(1.0).shape == (*size[::-1], 3)
    assert decode(stored, 16).shape == (4, 16, 16)
    assert prepare(stored, Preparation(8, 8, (0.5,) * 3, (0.5,) * 3, "bilinear")).shape == (3, 8, 8)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_colour_jpeg_has_the_pixels_that_pillow_decodes(subsampling, progressive):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8))
    data = encode(noise.resize((150, 111)), "JPEG", quality=80, subsampling=subsampling, progressive=progressive)
    decoded = OneFile(data).picture(0, 0.5).decode
    assert np.array_equal(decoded(1.0).numpy(), np.asarray(opened(data)))


@pytest.mark.parametrize(
    ("data", "plain"),
    [
        (JPEG, True),
        (encode(RED, "JPEG", progressive=True), True),
        (turned(6), False),
        (encode(RED.convert("CMYK"), "JPEG"), False),
        (encode(RED.convert("L"), "JPEG"), False),
        (encode(RED, "JPEG", keep_rgb=True), False),
        (PNG, False),
    ],
    ids=["plain", "progressive", "turned", "CMYK", "grey", "RGB without YCbCr", "PNG"],
)
def test_other_decoders_are_given_what_they_decode_alike(data, plain):
    assert OneFile(data).picture(0, 0.5).jpeg == (data if plain else None)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP"]), places=st.lists(st.floats(0, 1), min_size=1, max_size=6),
       values=st.binary(min_size=6, max_size=6), edge=st.sampled_from([None, 16]))  # fmt: skip
def test_what_is_called_ok_every_reader_reads(kind, places, values, edge):
    broken = bytearray(turned(6, kind))
    for place, value in zip(places, values, strict=False):
        broken[int(place * (len(broken) - 1))] = value
    judged = judge(bytes(broken), edge)
    if judged.columns["status"] == "ok":
        stored = judged.stored or bytes(broken)
        decoded = OneFile(stored).picture(0, 0.5).decode
        assert decoded(1.0).dtype == torch.uint8
        assert decode(stored, 8).shape == (4, 8, 8)
        prepare(stored, Preparation(8, 8, (0.5,) * 3, (0.5,) * 3, "bilinear"))


@pytest.mark.parametrize(
    ("width", "height", "status"),
    [(8, 400, "ok"), (400, 8, "ok"), (8, 401, "too_large"), (401, 8, "too_large"), (7, 7000, "too_small")],
)
def test_extreme_shapes_are_told(width, height, status):
    assert judge(encode(Image.new("RGB", (width, height)))).columns["status"] == status


@pytest.mark.parametrize("edge", [None, 16])
def test_too_many_pixels_are_told_before_they_are_decoded(edge):
    """The header of a bomb; its body would be a fault."""
    found = judge(claiming(PNG, 13_000, 13_000), edge).columns
    assert (found["status"], found["error"]) == ("too_large", "13000 x 13000: more than 50,000,000 pixels")
    assert judge(claiming(PNG, 7_000, 7_000), edge).columns["status"] == "decode", "few enough, and looked at"


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_are_those_of_pillow(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    rng = np.random.default_rng(orientation)
    data = encode(Image.fromarray(rng.integers(0, 255, (10, 14, 3), dtype=np.uint8)), kind, exif=exif)
    expected = ImageOps.exif_transpose(opened(data))
    assert np.array_equal(np.asarray(upright(opened(data))), np.asarray(expected))
    assert size_of(opened(data)) == expected.size
    stored = judge(data, 9).stored
    assert opened(stored).size == (9, 13) if expected.size[0] < expected.size[1] else (13, 9)


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_the_first_frame_of_an_animation_counts(kind):
    blue = Image.new("RGB", RED.size, (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(encode(RED, kind, save_all=True, append_images=[blue, blue], **options), 8)
    assert near(pixels, (200, 30, 60, 255), 0)


def test_pictures_of_more_shards_than_files_may_be_open_are_read(tmp_path):
    """One picture a shard, each of its own grey; the order asked goes back and forth between shards."""
    shades = list(range(120))
    table = write_table([encode(Image.new("L", (8, 8), shade)) for shade in shades], tmp_path)
    images, produced = pack(DataConfig(source="table", path=table, shard=1), tmp_path)
    assert len(produced.files) == 122
    order = np.random.default_rng(0).permutation(len(shades))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path(os.devnull).open() as first_free:
        resource.setrlimit(resource.RLIMIT_NOFILE, (first_free.fileno() + 40, hard))
    try:
        pixels = read_pictures(images.path, order, 8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert pixels[:, 0, 0, 0].tolist() == [shades[row] for row in order]
