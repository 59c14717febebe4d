"""A training that does not learn is noticed while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from xclr.errors import JobError
from xclr.store import write_atomically

NOTICES = "notices.txt"  # beside the spool, a line each, for whoever looks at a running training
FOR_STEPS = 500  # in a row, after the warm-up
UNLEARNED = 0.99  # of the way from its targets to constant features: the loss says nothing of the pictures
SAME = -1e-6  # uniformity of features that are all one
LOWEST = 1 - 1e-6  # temperature of a learned scale at its lower limit of 1


class Sign(NamedTuple):
    """Something that is seen in a training's metrics, what it means, and what to do about it."""

    shows: Callable[[Mapping[str, float]], bool]
    words: str
    remedy: str
    dead: bool = False  # nothing can come of it any more


SLOWER = "lower train.learning_rate or lengthen train.warmup_fraction"


def signs(most: float | None) -> tuple[Sign, ...]:
    """What is looked for; `most` is the largest value of a learned scale, None where none is learned."""
    general = (
        Sign(
            lambda seen: seen.get("train/unlearned", 0.0) > UNLEARNED,
            "the loss is that of constant features: nothing is learned",
            f"{SLOWER}; a control with meaningless targets learns nothing either",
        ),
        Sign(
            lambda seen: seen.get("train/uniformity", -1.0) > SAME,
            "all pictures have the same features",
            SLOWER,
            dead=True,
        ),
    )
    if most is None:
        return general
    return (
        *general,
        Sign(
            lambda seen: seen["train/temperature"] >= LOWEST,
            "the learned scale is at its lower limit of 1",
            "lower scale_learning_rate of the objective, or train.learning_rate",
            dead=True,
        ),
        Sign(
            lambda seen: 1 / seen["train/temperature"] >= most * LOWEST,
            f"the learned scale is at its upper limit of {most:g}",
            "raise max_scale of the objective, or leave it: many a CLIP ends there",
        ),
    )


@dataclass
class Watch:
    """Sees the logged metrics of a training in their order and says, once, what holds FOR_STEPS in a row after `after`.

    All ranks see the same metrics, so that all say the same.
    """

    signs: tuple[Sign, ...]
    after: int  # steps of the warm-up
    stop_dead: bool = False
    since: dict[str, int] = field(default_factory=dict)
    told: dict[str, str] = field(default_factory=dict)

    def __call__(self, step: int, metrics: Mapping[str, float]) -> list[str]:
        """New notices; raises JobError where nothing can come of the training, and `stop_dead` is on."""
        news = []
        for sign in self.signs if step > self.after else ():
            if not sign.shows(metrics):
                self.since.pop(sign.words, None)
                continue
            first = self.since.setdefault(sign.words, step)
            if step - first < FOR_STEPS:
                continue
            if sign.dead and self.stop_dead:
                raise JobError(
                    f"{sign.words}, from step {first} to {step}", f"{sign.remedy}; --set train.stop_dead=false goes on"
                )
            if sign.words not in self.told:
                self.told[sign.words] = f"{sign.words}, from step {first} to {step}; {sign.remedy}"
                news.append(self.told[sign.words])
        return news


def write_notices(out: Path, told: Mapping[str, str]) -> None:
    """Leave what was told beside a training, or nothing."""
    if told:
        write_atomically(out / NOTICES, "\n".join(told.values()))
    else:
        (out / NOTICES).unlink(missing_ok=True)


def read_notices(out: Path) -> str:
    """What was told of the training in a folder; empty where there was no cause."""
    try:
        return (out / NOTICES).read_text()
    except FileNotFoundError:
        return ""
