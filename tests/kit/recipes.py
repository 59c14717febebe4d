"""A recipe of few emoji and few steps, and a place for it."""

from __future__ import annotations

from infra.cluster import Cluster, Tracking
from infra.resources import Resources
from xclr.recipe import Recipe

TINY = {
    "name": "tiny",
    "data": {"source": "emoji", "limit": 400},
    "objectives": ["simclr"],
    "graph": {"k": 4},
    "train": {
        "epochs": 2,
        "width": 4,
        "image_size": 16,
        "batch_size": 32,
        "projector_hidden": 16,
        "projector_out": 8,
        "checkpoint_every": 2,
        "log_every": 1,
    },
    "evaluate": {"suites": ["linear"], "bootstrap": 100},
}
STEPS = 8  # of one of its epochs
NO_MODELS = Tracking(models=False)  # the first of a process takes it six seconds
CLUSTER = Cluster(
    name="test",
    tracking=NO_MODELS,
    default=Resources(executor="inline"),
    stages={"pretrain": Resources(executor="local", ranks=2, threads=1)},
)
ALONE = CLUSTER.model_copy(update={"stages": {"pretrain": Resources(executor="local", threads=1)}})  # one rank


def tiny(**training: object) -> Recipe:
    """The tiny recipe with changes to its training; a job that is lost is missed soon."""
    return Recipe.model_validate(TINY | {"train": TINY["train"] | training, "retries": {"lost_after_s": 5}})
