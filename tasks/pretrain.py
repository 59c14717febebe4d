"""The pretraining task."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from infra.stage import Run
from tasks.stage import artifact_key, make
from xclr import stages
from xclr.artifact import Artifact
from xclr.recipe import ObjectiveConfig


@task(task_run_name="pretrain {title}", cache_policy=NO_CACHE)
def pretrain(run: Run, title: str, objective: ObjectiveConfig, seed: int, inputs: Mapping[str, Artifact]) -> Artifact:
    """Pretrain one backbone as a job; its task run links to its MLflow run."""
    checkpoint = make(run, stages.pretrain(run.recipe, objective, seed, inputs))
    if link := run.tracker.run_url(str(checkpoint.digest)):
        create_link_artifact(link, key=artifact_key(f"mlflow {title}"), link_text=f"{title} in MLflow")
    return checkpoint
