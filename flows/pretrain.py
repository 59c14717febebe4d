"""Pretraining: one backbone for every objective and seed."""

from __future__ import annotations

import tasks
from flows.data import Futures
from infra.stage import Run
from xclr import stages


def submit_pretraining(run: Run, made: Futures) -> Futures:
    """Submit every pretraining of the recipe; their futures by title."""
    return {
        title: tasks.pretrain.submit(run, title, objective, seed, made)
        for title, objective, seed in stages.trainings(run.recipe)
    }
