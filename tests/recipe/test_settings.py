"""How own pictures are trained where nobody says how."""

import pytest

from xclr.recipe import Seen, TrainConfig, is_resolved, told, unsaid

PHOTOS = Seen(400, 1024, 768, 768)
ADDRESSES = Seen(12_345)
SMALL, LARGE = {"image_size": 64, "backbone": "resnet18"}, {"image_size": 128, "backbone": "resnet18"}


@pytest.mark.parametrize(
    ("seen", "chosen"),
    [
        (Seen(400, 64, 64, 64), {}),
        (Seen(1_000_000, 90, 32, 32), {}),
        (Seen(400, 512, 512, 512, cut_out=True), {}),
        (Seen(400, 65, 65, 65), SMALL),
        (Seen(1_000_000, 127, 127, 127), SMALL),
        (Seen(400, 128, 128, 128), LARGE),
        (PHOTOS, LARGE),
        (Seen(49_999, 1024, 768, 768), LARGE),
        (Seen(50_000, 255, 255, 255), {"image_size": 128, "backbone": "resnet50"}),
        (Seen(50_000, 1024, 768, 768), {"image_size": 224, "backbone": "resnet50"}),
        (ADDRESSES, LARGE),
        (Seen(2_000_000), {"image_size": 224, "backbone": "resnet50"}),
    ],
)
def test_photographs_are_trained_by_how_many_and_how_large_they_are(seen, chosen):
    assert unsaid(TrainConfig(), seen) == (chosen | {"views": "simclr"} if chosen else {})


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ({"epochs": 3}, {"image_size", "views", "backbone"}),
        ({"image_size": 96}, {"views", "backbone"}),
        ({"image_size": 32}, {"views"}),  # for which resnet-mini is made
        ({"width": 4}, {"image_size", "views"}),
        ({"backbone": "vit-small"}, {"image_size", "views"}),
        ({"backbone": "resnet-mini"}, {"image_size", "views"}),
        ({"views": "autoaugment"}, {"image_size", "backbone"}),
        ({"views": "stickers"}, set()),
        ({"image_size": 32, "views": "simclr", "backbone": "resnet-mini"}, set()),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_a_recipe_says_stands(said, chosen):
    found = unsaid(TrainConfig(**said), PHOTOS)
    assert set(found) == chosen
    TrainConfig(**said | found)


@pytest.mark.parametrize("seen", [PHOTOS, ADDRESSES, Seen(70_000, 300, 300, 300)])
def test_a_resolved_recipe_leaves_nothing_open(seen):
    train = TrainConfig()
    resolved = train.model_copy(update=unsaid(train, seen))
    assert is_resolved(resolved) and not is_resolved(train) and unsaid(resolved, Seen(9, 200, 200, 200)) == {}


@pytest.mark.parametrize(
    ("seen", "said", "line"),
    [
        (
            Seen(412, 1024, 768, 768),
            {},
            "about 410 pictures, median 1024 x 768: train.image_size 128, train.views simclr, train.backbone resnet18; "
            "change with --set train.image_size=...",
        ),
        (
            PHOTOS._replace(number=7),
            {"image_size": 96},
            "7 pictures, median 1024 x 768: train.views simclr, train.backbone resnet18; "
            "change with --set train.views=...",
        ),
        (
            ADDRESSES,
            {"backbone": "resnet34", "views": "simclr"},
            "about 12,000 pictures at addresses, of sizes not known yet: train.image_size 128; "
            "change with --set train.image_size=...",
        ),
        (
            Seen(400, 512, 512, 512, cut_out=True),
            {},
            "about 400 pictures, cut out, median 512 x 512: train.image_size 32, train.views stickers, "
            "train.backbone resnet-mini; "
            "change with --set train.image_size=...",
        ),
        (Seen(400, 48, 48, 48), {}, None),
        (PHOTOS, {"image_size": 32, "views": "simclr", "backbone": "resnet-mini"}, None),
        (PHOTOS, {"views": "stickers"}, None),
    ],
)
def test_a_line_says_what_was_chosen_and_how_to_change_it(seen, said, line):
    train = TrainConfig(**said)
    chosen = unsaid(train, seen)
    assert told(seen, chosen, train) == line
