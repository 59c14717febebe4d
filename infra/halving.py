"""A sweep that stops its weak trainings: a thread reads what they log and leaves them word."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager

from infra.home.sweeps import standing
from infra.progress import beside
from infra.run import Run
from xclr.artifact import Digest
from xclr.stage import Stage
from xclr.store import write_atomically
from xclr.sweep.halving import Look, Weakness, find_weak
from xclr.training.spool import SPOOL, read_spool
from xclr.training.stages import PRETRAIN, PretrainConfig
from xclr.training.stop import WEAK

EVERY_S = 2.0
VALUE, EPOCH = "train/knn_top1", "train/epoch"


def stopping_weak(run: Run, stages: Sequence[Stage]) -> AbstractContextManager[None]:
    """Within the block trainings among the stages are told to stop that are weak among those of their objective."""
    trainings = [stage for stage in stages if stage.kind is PRETRAIN]

    def look(over: threading.Event) -> None:
        while not over.wait(EVERY_S):
            stop_weak(run, trainings)

    return beside(look)


def stop_weak(run: Run, trainings: Sequence[Stage[PretrainConfig]]) -> None:
    """Look at all trainings once, and leave word to those that are weak and still train."""
    looks: dict[str, dict[Digest, list[Look]]] = {}
    for stage in trainings:
        points = read_spool(run.store.reference(stage.digest).path / SPOOL)
        epochs = stage.config.train.epochs
        own = [Look(each.metrics[EPOCH] / epochs, each.metrics[VALUE]) for each in points if VALUE in each.metrics]
        looks.setdefault(stage.config.objective.name, {})[stage.digest] = own
    weak = {digest: why for own in looks.values() for digest, why in find_weak(own).items()}
    for stage in trainings:
        note = run.store.reference(stage.digest).path / WEAK
        if stage.digest in weak and not note.exists() and _trains(run, stage):
            write_atomically(note, told(weak[stage.digest]))
            run.board.say(f"{stage.name}: {told(weak[stage.digest])}")


def told(why: Weakness) -> str:
    """Why a training is stopped."""
    return (
        f"weak after {100 * why.rung:g}% of its steps: k-NN top-1 {why.value:.1%}, the better half of "
        f"{why.come} has {why.lowest:.1%} or more"
    )


def _trains(run: Run, stage: Stage) -> bool:
    return standing(run.store, run.book, run.record, stage.kind.name, stage.digest).state == "running"
