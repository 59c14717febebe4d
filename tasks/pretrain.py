"""The pretraining task."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.stage import Run, ensure
from xclr import stages
from xclr.artifact import Artifact
from xclr.recipe import ObjectiveConfig


@task(task_run_name="pretrain {title}", cache_policy=NO_CACHE)
def pretrain(run: Run, title: str, objective: ObjectiveConfig, seed: int, inputs: Mapping[str, Artifact]) -> Artifact:
    """Pretrain one backbone as a job."""
    return ensure(run, stages.pretrain(run.recipe, objective, seed, inputs))
