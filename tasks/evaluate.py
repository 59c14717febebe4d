"""Tasks of the evaluation: data sets once, features once per checkpoint, then one task a suite."""

from __future__ import annotations

from collections.abc import Mapping

from prefect import task
from prefect.cache_policies import NO_CACHE

from infra.stage import Run
from tasks.stage import make
from xclr import stages
from xclr.artifact import Artifact
from xclr.recipe import Dataset, Reference, SuiteName


@task(task_run_name="export", cache_policy=NO_CACHE)
def export(run: Run, captions: Artifact, images: Artifact) -> Artifact:
    """Write the emoji's evaluation pictures in the layouts of the published data sets."""
    return make(run, stages.export(run.recipe, captions, images))


@task(task_run_name="benchmark {dataset}", cache_policy=NO_CACHE)
def benchmark(run: Run, dataset: Dataset, export: Artifact | None) -> Artifact:
    """Read a data set's pictures and labels."""
    return make(run, stages.benchmark(run.recipe, dataset, export))


@task(task_run_name="reference {reference.label}", cache_policy=NO_CACHE)
def reference(run: Run, reference: Reference) -> Artifact:
    """Fetch a network from elsewhere."""
    return make(run, stages.reference(reference, run.store))


@task(cache_policy=NO_CACHE)
def made_of(run: Run, what: str, title: str, inputs: Mapping[str, Artifact]) -> Artifact:
    """Make features, the probe or the fine-tuned network of a checkpoint; each picture passes its backbone once."""
    return make(run, stages.made_of(run.recipe, what, title, inputs))


@task(task_run_name="{name} {title}", cache_policy=NO_CACHE)
def suite(run: Run, name: SuiteName, title: str, inputs: Mapping[str, Artifact]) -> Artifact:
    """Judge one checkpoint by one suite."""
    return make(run, stages.suite(run.recipe, name, title, inputs, run.store))
