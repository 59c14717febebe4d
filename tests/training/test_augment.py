"""Views have torchvision's distributions, and each operation on the batch is torchvision's on the picture."""

import itertools

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvf
from PIL import Image
from scipy.stats import ks_2samp
from torchvision.transforms import AutoAugment, RandomResizedCrop, v2

from xclr.training import augment
from xclr.training.augment import COLOUR_NUMBERS, CROP_NUMBERS, NUMBERS, POLICY_NUMBERS
from xclr.training.device_cut import cut_all
from xclr.training.keyed import keyed_uniform

N = 2500
SIZE = (50, 37)


def uniform(count, n=N, key=(7, 0, 0)):
    return keyed_uniform(key, torch.arange(n), count)


def alike(ours, theirs):
    """The p-value of the hypothesis that both come from one distribution."""
    return ks_2samp(np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)).pvalue


def pictures(n, side=16, seed=0):
    """Smooth random pictures [n, 3, side, side], as photographs are."""
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, side, mode="bicubic").clamp(0, 1)


def crops(min_area):
    return [augment.crop(SIZE, u, min_area) for u in uniform(CROP_NUMBERS)]


def peer_crops(min_area):
    torch.manual_seed(0)
    picture = Image.new("RGB", SIZE)
    found = [RandomResizedCrop.get_params(picture, [min_area, 1.0], [3 / 4, 4 / 3]) for _ in range(N)]
    return [augment.Crop(left, top, width, height) for top, left, height, width in found]


def test_a_part_of_a_picture_that_was_scaled_is_cut_between_its_pixels():
    """Of a ramp at half its size, whose value is where a pixel's middle lies in the whole picture."""
    ramp = (np.arange(128) * 2 + 1.0)[None].repeat(96, 0)
    picture = torch.from_numpy(np.stack([ramp] * 3, -1).round().astype(np.uint8))
    u = torch.full((80,), 0.9)
    for left, width in ((101, 51), (33, 150), (7, 31)):
        view = np.asarray(augment.cut(picture, augment.Crop(left, 11, width, 90), (0.5, 0.5), u, 24)).astype(float)
        middles = left + (np.arange(24) + 0.5) * width / 24
        assert np.abs(view[12, 2:-2, 0] - middles[2:-2]).max() < 0.8  # whole pixels were off by up to 1.5


@pytest.mark.parametrize("min_area", [0.08, 0.9])
def test_crops_are_random_resized_crops(min_area):
    """At 0.9 most attempts do not fit, so that the fallback in the middle is compared too."""
    ours, theirs = crops(min_area), peer_crops(min_area)
    for field in augment.Crop._fields:
        assert alike([getattr(each, field) for each in ours], [getattr(each, field) for each in theirs]) > 1e-3, field
    areas = [[each.width * each.height for each in some] for some in (ours, theirs)]
    ratios = [[each.width / each.height for each in some] for some in (ours, theirs)]
    assert alike(*areas) > 1e-3 and alike(*ratios) > 1e-3


def test_the_comparison_of_distributions_notices_another_setting():
    areas = [[each.width * each.height for each in some] for some in (crops(0.12), peer_crops(0.08))]
    assert alike(*areas) < 1e-3


def test_every_crop_lies_in_the_picture():
    for part in crops(0.08) + crops(0.99):
        assert 0 <= part.left <= part.left + part.width <= SIZE[0]
        assert 0 <= part.top <= part.top + part.height <= SIZE[1] and part.width and part.height


def test_a_cut_is_torchvisions_resized_crop_mirrored_in_half_of_cases():
    picture = Image.fromarray((pictures(1, 48)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    mirrored = 0
    for u in uniform(CROP_NUMBERS, 60):
        part = augment.crop(picture.size, u, 0.08)
        ours = augment.cut(torch.from_numpy(np.array(picture)), part, (1.0, 1.0), u, 24).numpy().astype(int)
        theirs = tvf.resized_crop(picture, part.top, part.left, part.height, part.width, [24, 24])
        if u[4 * augment.ATTEMPTS] < 0.5:
            theirs, mirrored = tvf.hflip(theirs), mirrored + 1
        assert abs(ours - np.asarray(theirs).astype(int)).max() <= 1
    assert 15 < mirrored < 45


@pytest.mark.parametrize("side", [24, 61])
def test_views_that_are_cut_at_once_are_those_that_are_cut_one_by_one(side):
    """Of pictures larger and smaller than the view, tall and wide, whole and one pixel wide."""
    sizes = [(50, 30), (31, 200), (24, 24), (9, 7), (500, 375)]
    generator = torch.Generator().manual_seed(0)
    made = [torch.randint(256, (3, h, w), dtype=torch.uint8, generator=generator) for w, h in sizes]
    numbers = [torch.full((CROP_NUMBERS,), u) for u in (0.2, 0.8)]
    parts = [
        [augment.Crop(0, 0, w, h), augment.Crop(w // 2, h // 3, 1, 2), augment.Crop(w // 5, h // 4, w // 2, h // 2)]
        for w, h in sizes
    ]
    for u in numbers:
        table = torch.tensor([[(*part, augment.mirrors(u)) for part in some] for some in parts])
        views = cut_all(made, table, side)
        for index, view in itertools.product(range(len(made)), range(3)):
            one = augment.cut(made[index].permute(1, 2, 0), parts[index][view], (1.0, 1.0), u, side)
            assert (views[view, index].int() - one.int()).abs().max() <= 1


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_a_change_of_the_batch_is_torchvisions_of_each_picture(name):
    batch = pictures(12)
    batch[0] = 0.5  # grey, of no hue
    batch[1, 0] = batch[1, 1]  # two channels alike
    factors = torch.linspace(-0.2, 0.2, 12) if name == "hue" else torch.linspace(0.2, 1.8, 12)
    ours = getattr(augment, name)(batch.clone(), factors)
    for picture, factor, found in zip(batch, factors, ours, strict=True):
        torch.testing.assert_close(found, getattr(tvf, f"adjust_{name}")(picture, factor.item()), rtol=0, atol=2e-4)


@pytest.mark.parametrize("u", [0.0, 0.25, 1.0])
def test_a_blur_spans_the_range_of_its_width(u):
    """No other change: neither strong nor grey."""
    batch, numbers = pictures(2, 32), torch.full((2, 9), 0.999)
    numbers[:, 7], numbers[:, 8] = 0.0, u
    sigma = torch.full((2,), 0.1 + 1.9 * u)
    torch.testing.assert_close(augment.recolour(batch.clone(), numbers), augment.blur(batch.clone(), sigma))


@pytest.mark.parametrize(("side", "kernel"), [(16, 3), (32, 3), (64, 7), (224, 23)])
def test_a_blur_of_the_batch_is_torchvisions_of_each_picture(side, kernel):
    batch, sigmas = pictures(3, side), torch.tensor([0.1, 0.9, 2.0])
    ours = augment.blur(batch.clone(), sigmas)
    for picture, sigma, found in zip(batch, sigmas, ours, strict=True):
        torch.testing.assert_close(
            found, tvf.gaussian_blur(picture, [kernel] * 2, [sigma.item()] * 2), atol=1e-5, rtol=0
        )


def test_grey_is_torchvisions():
    batch = pictures(4)
    theirs = tvf.rgb_to_grayscale(batch, num_output_channels=1)
    torch.testing.assert_close(augment.grey(batch), theirs, rtol=0, atol=1e-3)


@pytest.fixture(scope="module")
def peers():
    """Statistics of torchvision's SimCLR colours on one picture N times, picture by picture."""
    jitter = v2.RandomApply([v2.ColorJitter(*augment.JITTER)], p=augment.JITTER_CHANCE)
    blur = v2.RandomApply([v2.GaussianBlur(3, augment.SIGMA)], p=augment.BLUR_CHANCE)
    torch.manual_seed(0)
    batch = pictures(1).repeat(N, 1, 1, 1)
    return statistics(torch.stack([blur(v2.RandomGrayscale(augment.GREY_CHANCE)(jitter(each))) for each in batch]))


def statistics(batch):
    """Numbers of each picture that colours and blur change: means, spread, colourfulness, sharpness."""
    spread = batch.std(dim=(1, 2, 3))
    colour = (batch.amax(1) - batch.amin(1)).mean(dim=(1, 2))
    sharp = batch.diff(dim=3).abs().mean(dim=(1, 2, 3))
    return {
        "red": batch[:, 0].mean(dim=(1, 2)),
        "blue": batch[:, 2].mean(dim=(1, 2)),
        "spread": spread,
        "colour": colour,
        "sharp": sharp,
        "pixel": batch[:, 0, 3, 12] - batch[:, 1, 3, 12],
    }


def test_recoloured_pictures_have_the_distribution_of_torchvisions(peers):
    ours = statistics(augment.recolour(pictures(1).repeat(N, 1, 1, 1), uniform(COLOUR_NUMBERS)))
    for name, values in ours.items():
        assert alike(values.round(decimals=4), peers[name].round(decimals=4)) > 1e-3, name


@pytest.mark.parametrize("number", [0, 2, 3, 7], ids=["brightness", "saturation", "hue", "blur"])
def test_without_one_of_the_changes_the_distribution_is_another(number, peers):
    """So that the test above would notice: a factor that changes nothing, or a blur that is never chosen."""
    batch, numbers = pictures(1).repeat(N, 1, 1, 1), uniform(COLOUR_NUMBERS)
    numbers[:, number] = 1.0 if number == 7 else 0.5
    ours = statistics(augment.recolour(batch, numbers))
    assert min(alike(ours[name], peers[name]) for name in ours) < 1e-3


def test_the_colours_of_a_picture_do_not_depend_on_its_batch():
    batch, numbers = pictures(8), uniform(COLOUR_NUMBERS, 8)
    whole = augment.recolour(batch.clone(), numbers)
    torch.testing.assert_close(augment.recolour(batch[3:5].clone(), numbers[3:5]), whole[3:5], rtol=0, atol=1e-6)


def test_what_a_gpu_compiles_is_the_same():
    """Whole batches in place of parts of them."""
    batch, drawn = pictures(40), augment.colours(uniform(COLOUR_NUMBERS, 40))
    whole, parts = (
        augment._jitter(batch.clone(), drawn, change) for change in (augment._change_all, augment._change_some)
    )
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-6)


def test_colours_never_wait_for_their_device():
    """The meta device has no values, so that it refuses whatever would bring one to the host."""
    views = augment.recolour(pictures(8).to("meta"), uniform(COLOUR_NUMBERS, 8))
    assert views.device.type == "meta"


def test_auto_augment_is_torchvisions_with_keyed_numbers():
    picture = Image.fromarray((pictures(1, 32)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8))

    class Told(AutoAugment):
        def get_params(self, transform_num):
            return int(self.u[0] * transform_num), self.u[1:3], (self.u[3:5] < 0.5).long()

    told, seen = Told(), set()
    for u in uniform(POLICY_NUMBERS, 200):
        told.u = u
        ours = augment.auto_augment(torch.from_numpy(np.array(picture)), u).numpy()
        assert np.array_equal(ours, np.asarray(told(picture)))
        seen.add(ours.tobytes())
    assert len(seen) > 30


def test_auto_augments_choices_have_torchvisions_distribution():
    torch.manual_seed(0)
    theirs = [AutoAugment.get_params(25) for _ in range(N)]
    numbers = uniform(POLICY_NUMBERS)
    assert alike((numbers[:, 0] * 25).long(), [policy for policy, _, _ in theirs]) > 1e-3
    assert alike(numbers[:, 1], [float(chances[0]) for _, chances, _ in theirs]) > 1e-3
    assert alike(numbers[:, 3] < 0.5, [int(signs[0]) for _, _, signs in theirs]) > 1e-3


def test_the_numbers_of_crop_colour_and_policy_are_apart():
    assert NUMBERS == CROP_NUMBERS + COLOUR_NUMBERS + POLICY_NUMBERS == 55
