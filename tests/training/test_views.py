"""Views: what each part of an augmentation does to a picture, and that the key alone decides it."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2
from PIL import Image

from tests.kit.home import TRAIN, one_thread
from xclr.recipe import TrainConfig
from xclr.training.keyed import keyed_uniform
from xclr.training.views import (
    GREY_CHANCE,
    GROUPS,
    JITTER_CHANCE,
    LUMA,
    PLAIN,
    TEXTURE_SIDE,
    TEXTURES,
    as_groups,
    backdrop,
    composite,
    evaluation_backdrop,
    premultiplied,
    random_crop,
    recolour,
    shuffled_groups,
    still,
    texture_bank,
    training_view,
    view_numbers,
)

MEAN, STD = 0.5, 0.25
LOWEST, HIGHEST = (0 - MEAN) / STD, (1 - MEAN) / STD


@pytest.fixture(scope="module")
def bank():
    return texture_bank()


def noise(b, side, *, alpha=None, seed=0):
    """Random pictures uint8 [b, 4, side, side]."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.randint(256, (b, 4, side, side), generator=generator, dtype=torch.uint8)
    if alpha is not None:
        pictures[:, 3] = alpha
    return pictures


def numbers(b, count, seed=0):
    return torch.rand(b, count, generator=torch.Generator().manual_seed(seed))


def crop_numbers(*, area=1.0, ratio=0.5, x=0.5, y=0.5, mirrored=False):
    return torch.tensor([[area, ratio, x, y, 0.0 if mirrored else 0.9]])


def ramps(side):
    """Opaque; red grows from left to right, green from top to bottom, in steps of one pixel."""
    picture = torch.full((1, 4, side, side), 255, dtype=torch.uint8)
    picture[0, 0], picture[0, 1] = torch.arange(side)[None, :], torch.arange(side)[:, None]
    return picture


class TestTrainingView:
    def test_is_a_normalised_picture_of_the_configured_side(self, bank):
        views = training_view(noise(40, 24), torch.arange(40) % GROUPS, bank, numbers(40, 20), TRAIN)
        assert views.shape == (40, 3, 16, 16) and views.dtype == torch.float32
        assert LOWEST <= views.min() < -1 and 1 < views.max() <= HIGHEST

    @pytest.mark.parametrize("side", [16, 48, TEXTURE_SIDE])
    def test_is_bitwise_the_same_whatever_stands_beside_it_in_the_batch(self, bank, side):
        config = TRAIN.model_copy(update={"image_size": side})
        rows, pictures = torch.arange(100, 124), noise(24, 3 * side // 2)
        groups = rows % GROUPS

        def views(chosen):
            u = view_numbers(5, 2, 1, rows[chosen])
            return training_view(pictures[chosen], groups[chosen], bank, u, config)

        whole = views(torch.arange(24))
        order = torch.randperm(24, generator=torch.Generator().manual_seed(1))
        assert torch.equal(views(order), whole[order])
        for share in (1, 3, 8, 12):
            parts = torch.cat([views(part) for part in torch.arange(24).split(share)])
            assert torch.equal(parts, whole), f"in parts of {share}"

    def test_never_waits_for_its_device(self, bank):
        """The meta device has no values, so that it refuses whatever would bring one to the host."""
        pictures, rows, bank = (each.to("meta") for each in (noise(6, 24), torch.arange(6), bank))
        views = training_view(pictures, rows % GROUPS, bank, view_numbers(0, 0, 0, rows), TRAIN)
        assert views.shape == (6, 3, 16, 16) and views.device.type == "meta"

    def test_does_not_depend_on_the_number_of_threads(self, bank):
        arguments = noise(8, 96), torch.arange(8), bank, numbers(8, 20), TRAIN.model_copy(update={"image_size": 64})
        with one_thread():
            expected = training_view(*arguments)
            torch.set_num_threads(2)
            assert torch.equal(training_view(*arguments), expected)

    def test_the_two_views_of_a_picture_differ(self, bank):
        rows, pictures = torch.arange(6), noise(6, 24)
        first, second = (
            training_view(pictures, rows, bank, view_numbers(0, 0, view, rows), TRAIN) for view in range(2)
        )
        assert (first - second).abs().amax(dim=(1, 2, 3)).min() > 0.1

    @pytest.mark.parametrize("side", [TEXTURE_SIDE + 1, 96, 224])
    def test_can_be_larger_than_a_texture(self, bank, side):
        config = TRAIN.model_copy(update={"image_size": side})
        views = training_view(noise(2, 32), torch.arange(2), bank, numbers(2, 20), config)
        assert views.shape == (2, 3, side, side) and views.isfinite().all()

    @pytest.mark.parametrize(("share", "from_group"), [(0.0, False), (1.0, True)])
    def test_a_transparent_pictures_background_is_its_groups_as_often_as_configured(self, share, from_group):
        """In a bank where every group has one colour, a group's background shows by that colour."""
        bank = torch.linspace(0.1, 0.9, GROUPS).repeat_interleave(TEXTURES)[:, None, None, None]
        bank = bank.expand(-1, 3, TEXTURE_SIDE, TEXTURE_SIDE)
        groups, u = torch.arange(64) % GROUPS, numbers(64, 20)
        u[:, 16], u[:, 17] = 0.99, 0.99  # neither jitter nor grey
        config = TRAIN.model_copy(update={"background": share})
        views = training_view(noise(64, 24, alpha=0), groups, bank, u, config)
        assert (views - views[:, :, :1, :1]).abs().max() < 1e-5
        flat = bank[groups * TEXTURES, :, 0, 0] if from_group else u[:, 8:11]
        expected = (flat - MEAN) / STD
        torch.testing.assert_close(views[:, :, 0, 0], expected, rtol=0, atol=1e-5)


class TestCrop:
    def test_the_whole_picture_at_its_own_side_is_the_picture(self):
        pictures = noise(3, 12, alpha=255)
        cropped = random_crop(pictures, crop_numbers().expand(3, 5), 12, 1.0)
        torch.testing.assert_close(cropped, pictures / 255, rtol=0, atol=1e-5)

    def test_half_of_the_pictures_are_mirrored_left_to_right(self):
        pictures = noise(1, 12, alpha=255)
        cropped = random_crop(pictures, crop_numbers(mirrored=True), 12, 1.0)
        torch.testing.assert_close(cropped, pictures.flip(3) / 255, rtol=0, atol=1e-5)
        u = keyed_uniform((0, 0, 0), torch.arange(2_000), 5)
        many = random_crop(ramps(4).expand(2_000, -1, -1, -1), u, 4, 0.3)
        assert (many[:, 0, 0, 0] > many[:, 0, 0, -1]).float().mean().item() == pytest.approx(0.5, abs=0.05)

    def test_without_zoom_every_view_is_the_picture_or_its_mirror_image(self):
        """min_crop 1 leaves no smaller crop than the whole picture, whatever shape is drawn."""
        picture = noise(1, 12, alpha=255)
        whole = picture[0] / 255
        for cropped in random_crop(picture.expand(50, -1, -1, -1), numbers(50, 5), 12, 1.0):
            distance = min((cropped - each).abs().max().item() for each in (whole, whole.flip(2)))
            assert distance < 1e-4

    @pytest.mark.parametrize(("x", "y"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
    @pytest.mark.parametrize("mirrored", [False, True], ids=["as it is", "mirrored"])
    def test_a_quarter_of_the_area_is_cut_at_the_drawn_place(self, x, y, mirrored):
        picture = noise(1, 16, alpha=255)
        left, top = int(8 * x), int(8 * y)
        expected = picture[:, :, top : top + 8, left : left + 8] / 255
        cropped = random_crop(picture, crop_numbers(area=0.0, x=x, y=y, mirrored=mirrored), 8, 0.25)
        torch.testing.assert_close(cropped, expected.flip(3) if mirrored else expected, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("min_area", [0.08, 0.3, 0.6])
    def test_area_and_shape_stay_within_their_limits_and_the_crop_within_the_picture(self, min_area):
        """The ramps tell where a crop's first and last pixel lie in the picture."""
        side = 120
        u = keyed_uniform((1, 0, 0), torch.arange(200), 5)
        cropped = random_crop(ramps(side).expand(200, -1, -1, -1), u, 16, min_area) * 255
        ends = torch.stack((cropped[:, 0, 0, [0, -1]], cropped[:, 1, [0, -1], 0]))
        sides = (ends[..., 1] - ends[..., 0]).abs() / (15 / 16) / side  # the outer pixels' centres are 15/16 apart
        area, ratio = sides[0] * sides[1], sides[0] / sides[1]
        assert area.min() > min_area - 0.01 and area.max() < 1.01
        assert area.min() < min_area + 0.03 and area.max() > 0.9
        assert ratio.min() > 3 / 4 - 0.01 and ratio.max() < 4 / 3 + 0.01
        margins = torch.stack((ends.amin(dim=2), side - 1 - ends.amax(dim=2)))
        assert margins.min() > -0.01  # a crop that left the picture would repeat its border and look narrower


class TestTransparency:
    @pytest.fixture
    def picture(self):
        """Red where it can be seen; below the transparent right half lies green."""
        picture = torch.zeros(1, 4, 12, 12, dtype=torch.uint8)
        picture[:, 0, :, :6], picture[:, 3, :, :6], picture[:, 1, :, 6:] = 255, 255, 255
        return picture

    def test_premultiplying_hides_the_colour_of_transparent_pixels(self, picture):
        assert premultiplied(picture)[:, 1].max() == 0
        half = noise(2, 5, alpha=51)
        torch.testing.assert_close(premultiplied(half)[:, :3], half[:, :3] / 255 * 0.2, rtol=0, atol=1e-6)

    def test_no_hidden_colour_bleeds_into_a_crop(self, picture):
        cropped = random_crop(picture.expand(50, -1, -1, -1), numbers(50, 5), 7, 0.3)
        blue = torch.tensor([0.0, 0.0, 1.0])[:, None, None]
        shown = composite(cropped, blue)
        assert shown[:, 1].max() == 0
        torch.testing.assert_close(shown[:, 0] + shown[:, 2], torch.ones(50, 7, 7))

    def test_no_hidden_colour_bleeds_into_a_still(self, picture):
        assert still(picture, 0.0, sized(8))[:, 1].max() == LOWEST

    def test_an_opaque_picture_ignores_the_background(self):
        opaque = premultiplied(noise(3, 8, alpha=255))
        assert torch.equal(composite(opaque, 0.3), composite(opaque, numbers(3, 192).view(3, 3, 8, 8)))
        assert torch.equal(composite(opaque, 0.3), opaque[:, :3])

    def test_a_transparent_picture_is_its_background(self):
        background = numbers(3, 192).view(3, 3, 8, 8)
        assert torch.equal(composite(premultiplied(noise(3, 8, alpha=0)), background), background)


class TestRecolour:
    NEUTRAL = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.0, 1.0, 0.3, 0.3]])  # no change drawn, jitter on, no grey

    @pytest.fixture
    def pictures(self):
        """Colours far enough from black and white that nothing is cut off."""
        return 0.35 + 0.3 * numbers(5, 3 * 64, seed=3).view(5, 3, 8, 8)

    def drawn(self, b=5, **columns):
        u = self.NEUTRAL.repeat(b, 1)
        for place, value in columns.items():
            u[:, ["brightness", "contrast", "saturation", "hue", "jitter", "grey"].index(place)] = value
        return u

    def luma(self, pictures):
        return torch.einsum("c,bchw->bhw", torch.tensor(LUMA), pictures)

    def test_neutral_numbers_change_nothing(self, pictures):
        torch.testing.assert_close(recolour(pictures, self.drawn()), pictures, rtol=0, atol=1e-5)

    def test_some_pictures_are_spared_jitter_whatever_was_drawn(self, pictures):
        u = torch.cat((numbers(5, 4), self.drawn()[:, 4:]), dim=1)
        u[:, 4] = JITTER_CHANCE
        torch.testing.assert_close(recolour(pictures, u), pictures, rtol=0, atol=1e-5)
        u[:, 4] = JITTER_CHANCE - 0.01
        assert (recolour(pictures, u) - pictures).abs().amax(dim=(1, 2, 3)).min() > 0.01

    def test_grey_makes_the_channels_equal_and_keeps_luma(self, pictures):
        grey = recolour(pictures, self.drawn(grey=GREY_CHANCE - 0.01, hue=0.9))
        assert (grey - grey[:, :1]).abs().max() < 1e-5
        torch.testing.assert_close(grey[:, 0], self.luma(pictures), rtol=0, atol=1e-5)

    @pytest.mark.parametrize("hue", [0.0, 0.2, 0.99])
    @pytest.mark.parametrize("saturation", [0.0, 0.5, 0.99])
    def test_hue_and_saturation_keep_luma(self, pictures, hue, saturation):
        turned = recolour(pictures, self.drawn(hue=hue, saturation=saturation))
        assert (turned - pictures).abs().max() > 0.01
        torch.testing.assert_close(self.luma(turned), self.luma(pictures), rtol=0, atol=1e-5)

    def test_grey_pictures_have_no_hue_to_turn(self, pictures):
        grey = pictures[:, :1].expand(-1, 3, -1, -1)
        turned = recolour(grey, self.drawn(hue=0.95, saturation=0.9))
        torch.testing.assert_close(turned, grey, rtol=0, atol=2e-3)  # the YIQ rows are given to three digits

    def test_brightness_scales_by_up_to_two_fifths(self, pictures):
        for drawn, factor in ((0.0, 0.6), (0.75, 1.2), (1.0, 1.4)):
            got = recolour(pictures, self.drawn(brightness=drawn))
            torch.testing.assert_close(got, pictures * factor, rtol=0, atol=1e-5)

    def test_contrast_stretches_around_the_mean_luma(self, pictures):
        mean = self.luma(pictures).mean(dim=(1, 2))[:, None, None, None]
        for drawn, factor in ((0.0, 0.6), (0.75, 1.2)):
            got = recolour(pictures, self.drawn(contrast=drawn))
            torch.testing.assert_close(got, mean + factor * (pictures - mean), rtol=0, atol=1e-5)

    def test_results_stay_in_range(self):
        pictures = numbers(200, 3 * 16).view(200, 3, 4, 4)
        out = recolour(pictures, numbers(200, 8, seed=1))
        assert out.min() >= 0 and out.max() <= 1


class TestStill:
    def test_is_a_resize_of_the_picture_over_grey(self):
        """Pillow's resize of the composited picture, in floating point, is the reference."""
        pictures = noise(3, 24)
        alpha = pictures[:, 3:] / 255
        over_grey = pictures[:, :3] / 255 * alpha + PLAIN * (1 - alpha)
        small = [
            [
                np.asarray(Image.fromarray(channel.numpy()).resize((16, 16), Image.Resampling.BILINEAR))
                for channel in each
            ]
            for each in over_grey
        ]
        expected = (torch.tensor(np.array(small)) - MEAN) / STD
        torch.testing.assert_close(still(pictures, PLAIN, sized(16)), expected, rtol=0, atol=1e-4)

    def test_at_its_own_side_an_opaque_picture_is_itself(self):
        pictures = noise(2, 10, alpha=255)
        expected = (pictures[:, :3] / 255 - MEAN) / STD
        torch.testing.assert_close(still(pictures, PLAIN, sized(10)), expected, rtol=0, atol=1e-5)

    def test_a_transparent_picture_is_grey(self):
        assert torch.equal(still(noise(2, 24, alpha=0), PLAIN, sized(16)), torch.zeros(2, 3, 16, 16))

    @pytest.mark.parametrize("name", ["imagenet", "none"])
    def test_pixels_are_in_the_range_that_the_config_says(self, name):
        """ImageNet's is that of torchvision's Normalize with the published numbers."""
        pictures = noise(2, 10, alpha=255)
        mean, deviation = {
            "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "none": ((0, 0, 0), (1, 1, 1)),
        }[name]  # fmt: skip
        expected = torchvision.transforms.v2.functional.normalize(pictures[:, :3] / 255, mean, deviation)
        shown = still(pictures, PLAIN, sized(10).model_copy(update={"normalisation": name}))
        torch.testing.assert_close(shown, expected, rtol=0, atol=1e-5)


def sized(side):
    return TrainConfig(image_size=side)


class TestBackdrop:
    def test_is_a_window_of_a_texture_of_the_own_group(self):
        """In a bank that holds its own coordinates, a window says where it was cut."""
        bank = torch.empty(GROUPS * TEXTURES, 3, TEXTURE_SIDE, TEXTURE_SIDE)
        bank[:, 0] = torch.arange(len(bank))[:, None, None]
        bank[:, 1], bank[:, 2] = torch.arange(TEXTURE_SIDE)[:, None], torch.arange(TEXTURE_SIDE)[None, :]
        groups = torch.arange(800) % GROUPS
        texture, line, column = backdrop(bank, groups, numbers(800, 3), 20).unbind(1)
        assert (texture == texture[:, :1, :1]).all() and torch.equal(texture[:, 0, 0].long() // TEXTURES, groups)
        assert torch.equal(line, (line[:, :1, :1] + torch.arange(20)[:, None]).expand_as(line))
        assert torch.equal(column, (column[:, :1, :1] + torch.arange(20)[None, :]).expand_as(column))
        assert len(texture[:, 0, 0].unique()) == len(bank)
        for corner in (line[:, 0, 0], column[:, 0, 0]):
            assert corner.min() == 0 and corner.max() == TEXTURE_SIDE - 20

    def test_may_be_as_large_as_a_texture(self, bank):
        cut = backdrop(bank, torch.tensor([2]), torch.full((1, 3), 0.999), TEXTURE_SIDE)
        assert torch.equal(cut[0], bank[3 * TEXTURES - 1])

    def test_the_bank_is_fixed_in_range_and_coloured_by_group(self, bank):
        assert torch.equal(bank, texture_bank())
        assert bank.shape == (GROUPS * TEXTURES, 3, TEXTURE_SIDE, TEXTURE_SIDE)
        assert bank.min() >= 0 and bank.max() <= 1
        colours = bank.view(GROUPS, TEXTURES, 3, -1).mean(dim=(1, 3))
        assert torch.pdist(colours).min() > 0.1

    def test_an_evaluations_background_is_fixed_by_the_row(self, bank):
        rows, groups = torch.arange(30), torch.arange(30) % GROUPS
        whole = evaluation_backdrop(bank, groups, rows, 16)
        assert torch.equal(evaluation_backdrop(bank, groups[7:9], rows[7:9], 16), whole[7:9])


class TestGroups:
    def test_a_shuffled_group_is_never_the_own_and_covers_all_others(self):
        rows = torch.arange(4_000)
        groups = rows % GROUPS
        other = shuffled_groups(groups, rows)
        pairs = torch.zeros(GROUPS, GROUPS).index_put_((groups, other), torch.ones(len(rows)), accumulate=True)
        assert pairs.diagonal().max() == 0
        expected = len(rows) / GROUPS / (GROUPS - 1)
        assert pairs[~torch.eye(GROUPS, dtype=torch.bool)].sub(expected).abs().max() < 0.5 * expected

    def test_a_shuffled_group_is_fixed_by_the_row(self):
        rows = torch.arange(100)
        whole = shuffled_groups(rows % GROUPS, rows)
        assert torch.equal(shuffled_groups(rows[40:60] % GROUPS, rows[40:60]), whole[40:60])

    def test_data_without_groups_get_one_by_row(self):
        assert as_groups(None, 10).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
        assert as_groups(np.array([3, 1, 2]), 3).tolist() == [3, 1, 2]
