"""Few scenes, and their captions and pictures as the stages make them."""

from __future__ import annotations

from pathlib import Path

from tests.kit.stages import commit
from xclr.artifact import Artifact
from xclr.captions import run as run_captions
from xclr.captions.stages import captions as captions_stage
from xclr.images import run as run_images
from xclr.images.stages import images as images_stage
from xclr.recipe import Recipe
from xclr.store import Store


def scenes_recipe(**data: object) -> Recipe:
    """A recipe of few small scenes."""
    given = {"source": "scenes", "pictures": 300, "tests": 60, "size": 24} | data
    return Recipe.model_validate({"name": "scenes", "data": given})


def made_captions(home: Path, **data: object) -> Artifact:
    """The captions of such a recipe."""
    store = Store(home)
    return commit(store, captions_stage(scenes_recipe(**data), store), run_captions)


def made_pictures(home: Path, **data: object) -> Artifact:
    """Its pictures."""
    store = Store(home)
    captions = made_captions(home, **data)
    (stage,) = images_stage(scenes_recipe(**data), store, captions)
    return commit(store, stage, run_images)
