"""Sweeps as a person types them: what would run, what is refused, where the table is."""

from __future__ import annotations

import json

import pytest

from tests.kit.command import call_xclr, fails, succeeds
from tests.kit.finished import finish_sweep
from tests.kit.recipes import TINY
from tests.kit.sweeps import small
from xclr.recipe import Recipe
from xclr.store import Store
from xclr.sweep.layout import layout


def test_a_named_sweep_is_planned_level_by_level_and_nothing_is_touched(tmp_path):
    done = call_xclr("sweep", "temperature", "--plan", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "sweep temperature: 18 cells" in done.stdout
    for part in ("pretrain", "suite imagenet", "xclr target_temperature=0.02 seed 0", "simclr seed 2"):
        assert part in done.stdout
    assert "GPU-hours" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_planned_sweep_has_a_row_for_each_level_as_json(tmp_path):
    arguments = ("emoji", "--grid", "train.epochs=1,2", "--seeds", "2", "--set", "objectives=[xclr]", "--parallel", "3")
    done = succeeds(call_xclr("sweep", *arguments, "--plan", "--json", cwd=tmp_path))
    levels = {each["level"]: each for each in json.loads(done.stdout)}
    assert set(levels["pretrain"]) == {
        "level", "stages", "hit", "running", "miss", "arrays", "at_once", "gpu_hours",
    }  # fmt: skip
    assert (levels["pretrain"]["miss"], levels["pretrain"]["at_once"], levels["captions"]["miss"]) == (4, 3, 1)


@pytest.mark.parametrize("hours", ["1", "0"])
@pytest.mark.slow
def test_a_sweep_that_costs_too_much_is_refused_before_anything_is_made(hours, tmp_path):
    arguments = ("sweep", "temperature", "--cluster", "slurm", "--max-gpu-hours", hours)
    planned = call_xclr(*arguments, "--plan", cwd=tmp_path)
    fails(planned, "sweep temperature may take", f"more than the {hours} allowed", "GPU-hours", "18 x pretrain")
    assert "GPU-hours, at most" in planned.stdout
    fails(call_xclr(*arguments, cwd=tmp_path), "more than the", "GPU-hours")
    assert not list(tmp_path.glob(".xclr/artifacts/*/*"))


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["emoji", "--grid", "train.epochs"], ["--grid train.epochs: no values", "--grid objective."]),
        (["emoji", "--grid", "train.epochs="], ["--grid train.epochs=: no values"]),
        (["emoji", "--random", "train.epochs=9..1"], ["no range", "--random"]),
        (["emoji"], ["sweep emoji: nothing varies", "docs/sweeps.md"]),
        (["emoji", "--grid", "train.epoch=1,2"], ["epoch=1", "unknown key 'train.epoch'", "did you mean epochs"]),
        (["emoji", "--grid", "seeds=1,2"], ["seeds is not swept: use --seeds"]),
        (["temprature"], ["no recipe or sweep 'temprature'"]),
        (["temperature", "--by", "few"], ["few is not among the suites"]),
        (["temperature", "--home", "/dev/null/home"], ["cannot write to /dev/null/home", "XCLR_HOME"]),
    ],
)
def test_a_fault_in_what_was_typed(arguments, parts, tmp_path):
    fails(call_xclr("sweep", *arguments, cwd=tmp_path), *parts)
    assert not list(tmp_path.glob(".xclr/artifacts/*/*"))


@pytest.mark.parametrize("beside", [True, False], ids=["after a run of a recipe", "alone"])
def test_compare_of_a_sweep_says_how_to_show_its_cells(beside, tmp_path):
    home = tmp_path / "home"
    sweep = small(name="warm")
    record = finish_sweep(home, sweep, {stage.digest for stage in layout(sweep, Store(home)).stages})
    if beside:
        recipe = Recipe.model_validate(TINY)
        ended = {"run": "tiny-1", "recipe": recipe, "sweep": None, "cells": (), "scores": "f" * 32}
        (home / "runs" / "tiny-1.json").write_text(record.model_copy(update=ended).model_dump_json())
    fails(
        call_xclr("compare", "warm", "--home", str(home), cwd=tmp_path), "warm is a sweep", "xclr compare --sweep warm"
    )
    fails(
        call_xclr("compare", "--sweep", "wram", "--home", str(home), cwd=tmp_path), "no sweep 'wram'", "there are: warm"
    )
