"""Whether the jobs of a cluster file would be taken, as its executors have it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from infra.cluster import Cluster
from infra.executors.executor import executor_named
from infra.finding import Finding
from infra.resources import Resources
from xclr.pipeline import KINDS


def examine_cluster(cluster: Cluster, home: Path) -> Iterator[Finding]:
    """Whether the executors away from this machine would take the jobs of the stage kinds that they get."""
    away: dict[str, dict[str, Resources]] = {}
    for kind in KINDS:
        resources = cluster.resources(kind)
        if not executor_named(resources.executor).is_here:
            away.setdefault(resources.executor, {})[kind] = resources
    if not away:
        yield Finding(check="Slurm", state="ok", found=f"{cluster.name} uses none")
    for name, kinds in away.items():
        yield from executor_named(name).examine(kinds, home)
