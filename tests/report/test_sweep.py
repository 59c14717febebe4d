"""What is read of a sweep: settings, tables, the best and its rivals, failures, rows; by hand and over a real one."""

from __future__ import annotations

import io
import json
import shutil

import pytest
from rich.console import Console

from infra.home.costs import costs_of
from infra.home.sweeps import find_sweep
from infra.home.swept import read_swept
from infra.ledger import Book
from tests.kit.cells import GAP, IMAGENET, KNN, RECIPE, SWEEP, TAU, by_tau, cell, line, swept_of
from tests.kit.finished import fail, finish_sweep, own_recipe
from tests.kit.recipes import TINY
from xclr.artifact import Usage
from xclr.errors import StoreError
from xclr.evaluation.score import t_half_width
from xclr.report.sweep import (
    best_of,
    failures_of,
    grids_of_sweep,
    judged_by,
    markdown_of_sweep,
    rows_of,
    settings_of,
    summary_of,
    total_core_hours,
    total_gpu_hours,
)
from xclr.report.tables import TableCell
from xclr.report.trainings import trainings_of
from xclr.store import Store
from xclr.sweep.layout import layout
from xclr.sweep.spec import Sweep

ONLY_XCLR = {"simclr": (), 0.1: (0.6, 0.62, 0.61), 0.2: (0.5, 0.5, 0.5), 0.5: (0.4, 0.5, 0.6)}


def test_the_best_is_told_with_what_cannot_be_told_from_it():
    values = {"simclr": (0.3, 0.3, 0.3), 0.1: (0.60, 0.62, 0.61), 0.2: (0.59, 0.62, 0.60), 0.5: (0.50, 0.52, 0.51)}
    best = best_of(by_tau(values))
    assert best is not None
    assert best.setting.title == "xclr target_temperature=0.1"
    assert (best.summary.mean, best.summary.seeds, best.summary.ci_kind, best.summary.n) == (
        pytest.approx(0.61), 3, "t-seeds", 500,
    )  # fmt: skip
    assert best.summary.ci95 == pytest.approx(t_half_width([0.60, 0.62, 0.61]))
    assert [each.title for each in best.by("paired")] == ["xclr target_temperature=0.2"]
    assert len(best.rivals) == 1, "0.5 is 0.1 below with every seed, simclr further still"
    assert str(best) == (
        "best by ImageNet: xclr target_temperature=0.1: 61.0 ± 2.5 (95%, t over 3 seeds); "
        "not to be told apart from it: xclr target_temperature=0.2; "
        "picked after looking at 4 settings, so it is optimistic"
    )


def test_pairs_tell_apart_what_intervals_would_not():
    spread = (0.40, 0.50, 0.60)
    best = best_of(by_tau({0.1: [each + 0.01 for each in spread], 0.2: spread}))
    assert best is not None
    assert best.summary.ci95 is not None and best.summary.ci95 > 0.2
    assert not best.rivals, "0.01 better with every seed"


def test_one_seed_has_rivals_whose_intervals_overlap():
    best = best_of(by_tau({0.1: [0.60], 0.2: [0.57], 0.5: [0.55]}))
    assert best is not None
    assert [each.setting.values[TAU] for each in best.rivals] == [0.2]
    assert "60.0 ± 2.0 (95%, bootstrap over 500 items)" in str(best)
    assert "with intervals that overlap its own: xclr target_temperature=0.2;" in str(best)


def test_two_seeds_have_no_interval_and_tell_nothing_apart():
    best = best_of(by_tau({0.1: [0.60, 0.61], 0.2: [0.1, 0.1]}))
    assert "60.5 (no interval over 2 seeds); without intervals that could tell them from it" in str(best)


def test_seeds_that_are_not_there_yet_are_told():
    lines = [line(cell(seed=seed, tau=0.1), "done" if seed else "failed") for seed in range(2)]
    best = best_of(swept_of(lines, lambda each: {IMAGENET: 0.5} if each.seed else {}))
    assert (
        str(best)
        == "best by ImageNet: xclr target_temperature=0.1: 50.0 ± 2.0 (95%, bootstrap over 500 items, 1 of 2 seeds)"
    )


def test_a_long_row_of_rivals_is_cut():
    best = best_of(by_tau({tau / 10: [0.5] for tau in range(1, 12)}))
    assert "target_temperature=0.7, and 4 more; picked after looking at 11 settings" in str(best)


def test_the_sweeps_judge_decides():
    swept = by_tau({0.1: [0.5], 0.2: [0.4]})
    assert judged_by(swept).heading == "ImageNet"
    other = swept_of(
        swept.lines, lambda each: {KNN: each.values[TAU], IMAGENET: 0.1}, SWEEP.model_copy(update={"by": "knn"})
    )
    assert best_of(other).setting.values == {TAU: 0.2}
    assert grids_of_sweep(other)[0].headings == ("k-NN", "cells")
    assert judged_by(swept_of(swept.lines, lambda each: {KNN: 0.1})) is None, "imagenet judges, and has no score"


def test_a_suite_without_a_column_judges_by_its_first_score():
    where = ("imagenet", "night", "f1")
    found = judged_by(swept_of([line(cell(tau=0.1))], lambda each: {where: 0.5, ("imagenet", "a", "b"): 0.1}))
    assert (found.key, found.heading) == (("imagenet", "a", "b"), "imagenet a b")


def test_every_setting_stands_in_the_table_judged_or_not():
    lines = [
        *(line(cell("simclr", "augmentation", seed)) for seed in range(3)),
        *(line(cell(seed=seed, tau=0.1)) for seed in range(3)),
        *(line(cell(seed=seed, tau=0.2), "failed" if seed == 2 else "done") for seed in range(3)),
        *(line(cell(seed=seed, tau=0.5), "to come" if seed else "running") for seed in range(3)),
    ]
    scores = {None: 0.3, 0.1: 0.6, 0.2: 0.5}
    swept = swept_of(
        lines, lambda each: {IMAGENET: scores[each.values.get(TAU)], KNN: 0.2} if each.values.get(TAU) != 0.5 else {}
    )
    first, second = grids_of_sweep(swept)
    assert first.lead == ("method", "target_temperature")
    assert first.headings == ("ImageNet", "cells")
    assert [(each.method, each.graph) for each in first.lines] == [
        ("simclr", "-"), ("xclr", "0.1"), ("xclr", "0.2"), ("xclr", "0.5"),
    ]  # fmt: skip
    assert [each.cells for each in first.lines] == [
        (TableCell("30.0 ± 0.0"), TableCell("3 of 3")),
        (TableCell("60.0 ± 0.0", best=True), TableCell("3 of 3")),
        (TableCell("50.0 ± 0.0"), TableCell("2 of 3, 1 failed")),
        (TableCell("-"), TableCell("0 of 3, 2 to come, 1 running")),
    ]
    assert "percent, mean of 3 seeds ± 95% half width (t-seeds)" in first.caption
    assert second.headings == ("k-NN",)
    assert [len(grid.lines) for grid in (first, second)] == [4, 4]
    (only,) = grids_of_sweep(swept, "knn")
    assert only.headings == ("val top1", "cells")
    with pytest.raises(StoreError, match="no scores of suite 'real'"):
        grids_of_sweep(swept, "real")


def test_a_sweep_that_nobody_judged_yet_is_a_table_of_states():
    swept = swept_of([line(cell(tau=0.1), "running"), line(cell(tau=0.2), "to come")], lambda each: {})
    (grid,) = grids_of_sweep(swept)
    assert grid.headings == ("cells",)
    assert [each.cells[0].text for each in grid.lines] == ["0 of 1, 1 running", "0 of 1, 1 to come"]
    assert "no suite has judged a cell" in grid.caption
    assert best_of(swept) is None
    assert "0 of 1, 1 running" in markdown_of_sweep(swept)


def test_settings_of_several_axes_spell_their_values_and_the_graph_stays_where_no_axis_tells_it():
    sweep = Sweep(name="s", recipe=RECIPE, grid={TAU: (0.1, 0.2), "train.epochs": (1, 2)})
    lines = [line(cell(graph=graph, tau=0.1, epochs=1)) for graph in ("captions", "wordnet")]
    (grid,) = grids_of_sweep(swept_of(lines, lambda each: {IMAGENET: 0.5}, sweep))
    assert grid.lead == ("method", "setting")
    assert [(each.method, each.graph) for each in grid.lines] == [
        ("xclr", "target_temperature=0.1 epochs=1"), ("xclr (wordnet)", "target_temperature=0.1 epochs=1"),
    ]  # fmt: skip
    graphs = Sweep(name="s", recipe=RECIPE, grid={"graph.source": ("captions", "class")})
    lines = [line(cell(graph=graph, source=graph)) for graph in ("captions", "class")] + [line(cell(graph="wordnet"))]
    (grid,) = grids_of_sweep(swept_of(lines, lambda each: {IMAGENET: 0.5}, graphs))
    assert [(each.method, each.graph) for each in grid.lines] == [
        ("xclr", "captions"), ("xclr", "class"), ("xclr (wordnet)", "-"),
    ]  # fmt: skip


def test_cells_that_share_a_checkpoint_keep_their_own_scores():
    sweep = Sweep(name="s", recipe=RECIPE, grid={"evaluate.probe.epochs": (5, 50)})
    field = "evaluate.probe.epochs"
    shared = [cell().model_copy(update={"values": {field: epochs}}) for epochs in (5, 50)]
    swept = swept_of([line(each) for each in shared], lambda each: {IMAGENET: each.values[field] / 100}, sweep)
    assert [each.summaries[IMAGENET].mean for each in settings_of(swept)] == [0.05, 0.5]


def test_a_smaller_gap_is_better():
    swept = swept_of([line(cell(tau=tau)) for tau in (0.1, 0.2)], lambda each: {IMAGENET: 0.5, GAP: each.values[TAU]})
    (grid,) = grids_of_sweep(swept)
    assert grid.headings == ("ImageNet", "bg gap", "cells")
    assert [each.cells[1].best for each in grid.lines] == [True, False]


def test_hours_are_counted_once_however_many_cells_share_a_stage():
    used = Usage(gpu_hours=3.0, cpu_hours=8.0, cpu_efficiency=None, jobs=1)
    shared = [cell().model_copy(update={"values": {TAU: tau}}) for tau in (0.1, 0.2)]
    digest = shared[0].training.digest
    swept = swept_of(
        [line(each) for each in shared], lambda each: {IMAGENET: 0.5}, usages={digest: used, "captions": used}
    )
    assert (total_gpu_hours(swept), total_core_hours(swept)) == (6.0, 16.0)
    (grid,) = grids_of_sweep(swept)
    assert grid.headings == ("ImageNet", "cells", "GPU-hours")
    assert grid.lines[0].cells[-1].text == "3.00"
    assert total_gpu_hours(by_tau({0.1: [0.5]})) is None


def test_failures_name_cell_level_reason_and_job():
    failed = line(cell(tau=0.1, seed=2), "failed", "pretrain", "the loss is not finite\nTraceback", "4711_3")
    weak = line(cell(tau=0.3), "stopped", "pretrain", "stopped as weak")
    swept = swept_of([failed, line(cell(tau=0.2), "failed", "suite knn"), weak, line(cell(tau=0.5))], lambda each: {})
    assert failures_of(swept) == [
        "xclr target_temperature=0.1 seed 2: pretrain failed: the loss is not finite (job 4711_3)",
        "xclr target_temperature=0.2 seed 0: suite knn failed: no reason is known",
        "xclr target_temperature=0.3 seed 0: pretrain stopped: stopped as weak",
    ]
    text = markdown_of_sweep(swept)
    assert "4 cells: 1 done, 1 stopped, 2 failed." in text
    assert "- xclr target\\_temperature=0.1 seed 2: pretrain failed" in text
    assert "`xclr retry warm`" in text


def test_rows_are_stable_and_plain_json():
    failed = line(cell(tau=0.2), "failed", "pretrain", "it burst", "4711_3")
    swept = swept_of(
        [line(cell(tau=0.1)), failed], lambda each: {IMAGENET: 0.5, KNN: 0.25} if each.values[TAU] == 0.1 else {}
    )
    rows = rows_of(swept)
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0] == {
        "sweep": "warm", "method": "xclr", "graph": "captions", "seed": 0, "values": {TAU: 0.1}, "state": "done",
        "level": "", "reason": "", "job": "", "training": "pretrain xclr captions 0 {'tau': 0.1}", "gpu_hours": None,
        "scores": {"imagenet/val/top1": 0.5, "knn/val/top1": 0.25},
    }  # fmt: skip
    assert list(rows[1]) == list(rows[0])
    assert (rows[1]["state"], rows[1]["reason"], rows[1]["job"], rows[1]["scores"]) == (
        "failed",
        "it burst",
        "4711_3",
        {},
    )


def test_a_summary_is_numbers_alone():
    numbers = summary_of(by_tau({0.1: [0.5], 0.2: [0.4]}))
    states = dict.fromkeys(("cells/failed", "cells/stopped", "cells/running", "cells/waiting", "cells/to_come"), 0) | {
        "cells/done": 2
    }
    best = {"best/imagenet/val/top1": 0.5, "best/imagenet/val/top1/ci95": 0.02}
    assert numbers == {"cells": 2} | states | best


def test_the_terminal_and_markdown_show_the_same_cells():
    swept = by_tau({"simclr": [0.3], 0.1: [0.5], 0.2: [0.4]})
    console = Console(file=io.StringIO(), width=100)
    console.print(*grids_of_sweep(swept))
    for shown in (console.file.getvalue(), markdown_of_sweep(swept)):
        for text in ("simclr", "0.1", "50.0 ± 2.0", "1 of 1"):
            assert text in shown
    assert "**50.0 ± 2.0**" in markdown_of_sweep(swept)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A HOME with a small real sweep, one of whose trainings failed; its table lies beside it."""
    folder = tmp_path_factory.mktemp("swept")
    recipe = own_recipe(
        folder,
        "a drawing of",
        objectives=["simclr", "xclr"],
        seeds=[0, 1],
        train=TINY["train"] | {"epochs": 1, "batch_size": 16},
    )
    sweep = Sweep(name="own-warm", recipe=recipe, grid={TAU: (0.1, 0.5)})
    lost = layout(sweep, Store(folder / "home")).cells[-1]
    record = finish_sweep(folder / "home", sweep, {lost.training.digest})
    fail(folder / "home", record, lost.training, "the loss is not finite")
    Book(folder / "home").write_usage(
        record.cells[0].training.digest, Usage(gpu_hours=1.5, cpu_hours=4.0, cpu_efficiency=0.5, jobs=1)
    )
    return folder / "home"


@pytest.mark.slow
def test_a_real_sweep_is_read_from_its_home_alone(home):
    table = home.parent / "own.parquet"
    table.rename(home.parent / "moved.parquet")
    try:
        swept = read_swept(home, find_sweep(home, "own-warm"))
    finally:
        (home.parent / "moved.parquet").rename(table)
    assert len(swept.lines) == 6
    assert [each["state"] for each in rows_of(swept)] == ["done"] * 5 + ["failed"]
    for row in rows_of(swept)[:5]:
        assert 0 <= row["scores"]["linear/pictures/top1"] <= 1
    assert failures_of(swept) == [
        "xclr target_temperature=0.5 seed 1: pretrain failed: the loss is not finite (job 7_1)"
    ]
    (grid,) = grids_of_sweep(swept)
    assert grid.headings[0] == "pictures top-1"
    assert grid.headings[-2:] == ("cells", "GPU-hours")
    assert [each.cells[-2].text for each in grid.lines] == ["2 of 2", "2 of 2", "1 of 2, 1 failed"]
    assert best_of(swept).among == 3
    assert (total_gpu_hours(swept), total_core_hours(swept)) == (1.5, 4.0)


@pytest.mark.slow
def test_a_suite_that_is_gone_is_missing(home, tmp_path):
    copy = shutil.copytree(home, tmp_path / "home")
    record = find_sweep(copy, None)
    Store(copy).discard(Store(copy).reference(record.cells[0].suites[0].output))
    swept = read_swept(copy, record)
    assert [bool(each["scores"]) for each in rows_of(swept)] == [False, True, True, True, True, False]


@pytest.mark.slow
def test_trainings_and_costs_of_a_sweep_are_those_of_all_its_points(home):
    record = find_sweep(home, None)
    found = trainings_of(record.recipes, Store(home))
    made = {each.checkpoint.digest for each in found if each.method[0] != "random"}
    assert made == {each.training.digest for each in record.cells}
    assert [(each.stage, each.method, each.jobs, each.gpu_hours) for each in costs_of(home, record)] == [
        ("pretrain", "simclr", 1, 1.5)
    ], "of both points, once"
