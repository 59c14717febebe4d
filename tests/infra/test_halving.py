"""Weak trainings of a sweep are stopped while they run, and trained to their end when they are tried again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from pydantic import ValidationError

from infra.halving import VALUE, stop_weak, stopping_weak
from infra.home.sweeps import cell_lines
from infra.resources import Resources
from infra.run import Cores
from tests.kit.holds import hold, holdable, release
from tests.kit.polling import until
from tests.kit.recipes import ALONE
from tests.kit.runs import begin_with_graph
from tests.kit.sweeps import make_levels, open_sweep, small
from xclr.sweep.cells import counts
from xclr.sweep.spec import Sweep
from xclr.training.pretrain import WEAK
from xclr.training.spool import SPOOL, read_spool
from xclr.training.stages import PRETRAIN

HERE = ALONE.model_copy(update={"default": Resources(executor="inline")})


def four() -> Sweep:
    """Networks of four widths, which are looked at after every step."""
    training = {"epochs": 1, "watch_every": 1, "checkpoint_every": 100}
    return small(training, grid={"train.width": [4, 6, 16, 32]}, stop_weak=True)


@pytest.mark.slow
def test_the_weaker_half_stops_and_goes_on_when_it_is_tried_again(tmp_path):
    home = tmp_path / "home"
    begin_with_graph(home)
    run, swept = open_sweep(home, four(), HERE)
    run.cores = Cores(4)
    trainings = [stage for stage in swept.stages if stage.kind is PRETRAIN]
    outs = [run.store.begin(stage.digest) for stage in trainings]
    for out in outs:
        hold(out, 1)
    with holdable(), ThreadPoolExecutor(1) as pool, stopping_weak(run, swept.stages):
        made = pool.submit(make_levels, run, swept)
        until(lambda: all(list(read_spool(out / SPOOL)) for out in outs))
        until(lambda: any((out / WEAK).exists() for out in outs))
        for out in outs:
            release(out)
        failures = made.result()
    values = [next(each.metrics[VALUE] for each in read_spool(out / SPOOL)) for out in outs]
    lines = dict(zip(outs, cell_lines(home, run.record), strict=True))
    stopped = [place for place, out in enumerate(outs) if lines[out].state == "stopped"]
    assert counts(lines.values()) == {"done": 4 - len(stopped), "stopped": len(stopped)} and 1 <= len(stopped) <= 2
    assert max(values[place] for place in stopped) < sorted(values)[2]
    assert all("weak after 12.5% of its steps" in lines[outs[place]].reason for place in stopped)
    assert set(failures) >= {trainings[place].digest for place in stopped}

    again, swept = open_sweep(home, four().model_copy(update={"stop_weak": False}), HERE, mode="retry")
    assert make_levels(again, swept) == {}
    assert counts(cell_lines(home, again.record)) == {"done": 4}
    steps = [[each.step for each in read_spool(out / SPOOL)] for out in outs]
    assert all(own == list(range(1, len(own) + 1)) for own in steps), "on from where it stopped, nothing twice"
    stop_weak(again, trainings)
    assert not any((out / WEAK).exists() for out in outs), "what has ended is told nothing"


def test_stopping_needs_classes_and_looks():
    with pytest.raises(ValidationError, match=r"k-NN top-1 of trainings, which needs train\.watch_every"):
        Sweep.model_validate(four().model_dump() | {"recipe": small({"watch_every": None}).recipe.model_dump()})
