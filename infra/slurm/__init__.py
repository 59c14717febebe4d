"""Slurm: what is submitted and how, what the queue says, and a private cluster to try it on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infra.stagejob import StageJob

__all__ = ["StageJob"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - plans and status need no submitit, which takes half a second
    if name == "StageJob":
        from infra.stagejob import StageJob

        return StageJob
    raise AttributeError(name)
