"""Pictures as networks are shown them: pixel for pixel torchvision's, decoded by our own decoder."""

import io
import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision import transforms
from torchvision.transforms import InterpolationMode, v2

from tests.kit.pictures import SERVED, encode, photo, see_through, turned
from xclr.errors import DataError
from xclr.evaluation.networks.pictures import Shown, batches, framed_as, normalised, prepare
from xclr.images.preparation import Preparation
from xclr.recipe import TrainConfig
from xclr.training.views import preparation_of

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
MODES = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}
edges, methods = st.integers(9, 260), st.sampled_from(sorted(MODES))


def how(size, resize=None, interpolation="bilinear", **more):
    return Preparation(size, resize or size, interpolation=interpolation, **IMAGENET, **more)


def pixels(data, *steps):
    """What torchvision makes of a file, as its folder datasets read it."""
    return transforms.Compose([*steps, transforms.PILToTensor()])(Image.open(io.BytesIO(data)).convert("RGB"))


@settings(max_examples=80, deadline=None)
@given(width=edges, height=edges, size=st.integers(1, 80), margin=st.integers(0, 40), method=methods)
def test_the_pixels_are_those_of_torchvision(width, height, size, margin, method):
    data, mode = photo(width, height), MODES[method]
    ours = prepare(data, how(size, size + margin, method))
    assert ours.dtype == torch.uint8 and ours.shape == (3, size, size)
    for module in (transforms, v2):
        theirs = pixels(data, module.Resize(size + margin, interpolation=mode), module.CenterCrop(size))
        assert torch.equal(ours, theirs)


@settings(max_examples=20, deadline=None)
@given(width=edges, height=edges, size=st.integers(1, 60), margin=st.integers(0, 20), method=methods)
def test_a_squashed_picture_is_that_of_torchvision(width, height, size, margin, method):
    edge, data = size + margin, photo(width, height)
    theirs = pixels(data, transforms.Resize((edge, edge), interpolation=MODES[method]), transforms.CenterCrop(size))
    assert torch.equal(prepare(data, how(size, edge, method, crop=False)), theirs)


def test_whole_pictures_lose_nothing_and_a_template_leaves_no_margin():
    """ImageNet-9's own tool is ToTensor alone; ObjectNet's cuts two pixels and resizes to what it crops."""
    shown = how(224, 256)
    assert framed_as(shown, "standard") == shown
    whole, template = framed_as(shown, "whole"), replace(framed_as(shown, "template"), border=2)
    data = photo(224, 224)
    assert torch.equal(prepare(data, whole), pixels(data))
    data = photo(300, 200)
    assert torch.equal(prepare(data, whole), pixels(data, transforms.Resize((224, 224))))
    within = transforms.Lambda(lambda picture: ImageOps.crop(picture, 2))
    theirs = pixels(data, within, transforms.Resize(224), transforms.CenterCrop(224))
    assert torch.equal(prepare(data, template), theirs)
    squashing = replace(shown, crop=False)
    assert not framed_as(squashing, "template").crop, (
        "a network that is shown all of a picture is shown all of this too"
    )


def test_normalised_pixels_are_those_of_torchvision():
    data, shown = photo(300, 200), how(48, 56)
    steps = [transforms.Resize(56), transforms.CenterCrop(48), transforms.ToTensor(), transforms.Normalize(**IMAGENET)]
    theirs = transforms.Compose(steps)(Image.open(io.BytesIO(data)))
    batch = prepare(data, shown)[None]
    before = batch.clone()
    assert torch.equal(normalised(batch, shown)[0], theirs) and torch.equal(batch, before)


def test_the_border_is_cut_before_anything_is_resized():
    inside = Image.open(io.BytesIO(photo(90, 60)))
    framed = Image.new("RGB", (94, 64), (255, 0, 0))
    framed.paste(inside, (2, 2))
    assert torch.equal(prepare(encode(framed), how(32, 40, border=2)), prepare(encode(inside), how(32, 40)))
    assert not torch.equal(prepare(encode(framed), how(32, 40)), prepare(encode(inside), how(32, 40)))


@pytest.mark.parametrize("name", [name for name, (_, status) in SERVED.items() if status == "ok"])
def test_every_kind_of_picture_is_decoded(name):
    found = prepare(SERVED[name][0], how(12, 14))
    assert found.shape == (3, 12, 12) and found.dtype == torch.uint8


@pytest.mark.parametrize("name", ["plain.jpg", "webp", "gif", "palette.png", "cmyk.jpg"])
def test_other_colours_and_formats_show_the_same_red(name):
    red, green, blue = prepare(SERVED[name][0], how(8)).float().mean(dim=(1, 2))
    assert abs(red - 200) < 12 and abs(green - 30) < 12 and abs(blue - 60) < 12


def test_grey_pictures_have_three_equal_channels():
    found = prepare(encode(Image.open(io.BytesIO(photo(50, 40))).convert("L"), "JPEG"), how(16))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2]) and found.float().std() > 1


def test_a_picture_that_a_camera_turned_is_upright():
    found = prepare(turned(), how(40))  # 40 x 60, red above blue
    assert found[0, :8].min() > 200 and found[2, -8:].min() > 200


def test_transparent_parts_show_grey_and_not_the_colour_below():
    assert prepare(see_through(), how(8)).unique().tolist() == [128]


def test_a_crop_larger_than_what_it_is_cut_from_is_refused():
    with pytest.raises(ValueError, match="224 pixels cannot be cut from an edge of 200"):
        how(224, 200)


@pytest.mark.parametrize(
    ("views", "side", "edge"),
    [("simclr", 224, 256), ("autoaugment", 224, 256), ("stickers", 32, 32), ("simclr", 32, 37)],
)
def test_our_own_backbones_see_what_they_were_trained_on(views, side, edge):
    found = preparation_of(TrainConfig(views=views, image_size=side))
    assert (found.size, found.resize, found.border, found.crop) == (side, edge, 0, True)
    black_and_white = normalised(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1), found)
    assert black_and_white.unique().tolist() == [-2, 2]


PHOTOS = [photo(40 + index, 30, seed=index) for index in range(23)]


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize(("count", "sizes"), [(0, []), (3, [3]), (5, [5]), (23, [5, 5, 5, 5, 3])])
def test_batches_hold_every_picture_in_order(threads, count, sizes):
    found = list(batches(Shown(count, PHOTOS.__getitem__, str), how(16, 20), size=5, threads=threads))
    assert [len(batch) for batch in found] == sizes
    for picture, data in zip(torch.cat(found) if found else [], PHOTOS, strict=False):
        assert torch.equal(picture, prepare(data, how(16, 20)))


def test_no_more_than_two_batches_are_read_ahead():
    read, before = [], threading.active_count()

    def reading(index):
        read.append(index)
        return PHOTOS[0]

    stream = batches(Shown(1000, reading, str), how(8), size=5, threads=2)
    for turn in range(1, 4):
        next(stream)
        assert len(read) <= 5 * turn + 10
    stream.close()
    assert len(read) <= 25 and threading.active_count() == before


@pytest.mark.parametrize("fault", [b"no picture", PHOTOS[3][:200], photo(4, 30)])
def test_a_picture_that_cannot_be_read_is_named(fault):
    data = [*PHOTOS[:3], fault, *PHOTOS[4:]]
    stream = batches(Shown(23, data.__getitem__, "val/{}.jpg".format), how(8, border=2), size=3, threads=2)
    assert len(next(stream)) == 3
    with pytest.raises(DataError, match=r"val/3\.jpg cannot be read: ") as caught:
        next(stream)
    assert "published" in caught.value.remedy


def test_a_file_that_cannot_be_opened_is_named_too(tmp_path):
    def read(index):
        return (tmp_path / "gone.jpg").read_bytes()

    with pytest.raises(DataError, match=r"picture 0 cannot be read: FileNotFoundError"):
        next(batches(Shown(1, read, "picture {}".format), how(8), size=1, threads=1))
