"""Tasks of the evaluation: features once per checkpoint, then one task a suite."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.stage import Run
from tasks.stage import make
from xclr import stages
from xclr.artifact import Artifact


@task(task_run_name="features {title}", cache_policy=NO_CACHE)
def features(run: Run, title: str, checkpoint: Artifact, inputs: Mapping[str, Artifact]) -> Artifact:
    """Pass every picture once through the frozen backbone."""
    return make(run, stages.features(run.recipe, title, checkpoint, inputs))


@task(task_run_name="features of {dataset} {title}", cache_policy=NO_CACHE)
def folder_features(run: Run, title: str, checkpoint: Artifact, dataset: str) -> Artifact:
    """Pass every picture of a benchmark once through the frozen backbone."""
    return make(run, stages.folder_features(run.recipe, title, checkpoint, dataset))


@task(task_run_name="{name} {title}", cache_policy=NO_CACHE)
def suite(run: Run, name: str, title: str, inputs: Mapping[str, Artifact]) -> Artifact:
    """Judge one checkpoint's features by one suite."""
    return make(run, stages.suite(run.recipe, name, title, inputs))
