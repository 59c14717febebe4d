"""Slurm: what is submitted and how, what the queue says, and a private cluster to try it on."""

from infra.slurm.job import StageJob

__all__ = ["StageJob"]
