"""What is plotted of a sweep: lines against an axis, levels of baselines, few-shot curves, parallel coordinates."""

from __future__ import annotations

import math

import pytest
from matplotlib.figure import Figure

from tests.kit.cells import GAP, IMAGENET, KNN, NAMES, RECIPE, SWEEP, TAU, by_tau, cell, line, swept_of
from xclr.report.sweep_plots import (
    LACKS,
    LINES,
    charts_of,
    draw_chart,
    draw_parallel,
    few_shot_charts,
    is_log,
    is_numeric,
    parallel_of,
    positions,
    spaced,
)
from xclr.sweep.spec import Draw, Sweep


def test_a_line_over_the_axis_and_a_level_for_what_does_not_depend_on_it():
    (chart,) = charts_of(by_tau({"simclr": (0.3, 0.3, 0.3), 0.2: (0.5, 0.5, 0.5), 0.1: (0.60, 0.62, 0.61)}), TAU)
    assert (chart.title, chart.across, chart.up, chart.joined) == (
        "ImageNet",
        "target temperature, no unit",
        "ImageNet, %",
        True,
    )
    (curve,) = chart.curves
    assert (curve.label, curve.values) == ("xclr", (0.1, 0.2)), "by size, whatever the order they were given in"
    assert curve.means == pytest.approx((61, 50))
    assert curve.halves == pytest.approx((2.484, 0), abs=1e-3)
    (level,) = chart.levels
    assert (level.label, level.mean, level.half) == ("simclr", pytest.approx(30), 0)
    assert level.colour != curve.colour
    assert chart.legend == [("xclr", curve.colour), ("simclr", level.colour)]


def test_the_neighbours_and_the_gap_stand_beside_the_judge():
    swept = swept_of([line(cell(tau=tau)) for tau in (0.1, 0.2)], lambda _: {IMAGENET: 0.5, KNN: 0.4, GAP: 0.1})
    assert [each.title for each in charts_of(swept, TAU)] == ["ImageNet", "k-NN", "bg gap"]


def grid_of(graphs, epochs, taus=(0.1, 0.2)):
    fields = {TAU: taus, "graph.source": graphs, "train.epochs": epochs}
    sweep = Sweep(name="s", recipe=RECIPE, grid=fields)
    cells = [cell(graph=g, tau=t, source=g, epochs=e) for g in graphs for e in epochs for t in taus]
    return swept_of([line(each) for each in cells], lambda each: {IMAGENET: each.values["train.epochs"] / 10}, sweep)


def test_other_axes_are_held_on_a_line_each_while_they_are_few():
    swept = grid_of(("captions", "class"), (1, 3))
    (chart,) = charts_of(swept, TAU)
    assert [each.label for each in chart.curves] == [
        f"xclr graph.source={graph} epochs={epochs}" for graph in ("captions", "class") for epochs in (1, 3)
    ]
    assert not chart.note
    (words,) = charts_of(swept, "graph.source")
    assert not words.joined, "words have no order"
    assert words.curves[0].values == ("captions", "class")


def test_many_lines_become_their_mean_and_the_note_says_so():
    (chart,) = charts_of(grid_of(("captions", "class", "random_class"), (1, 3, 5)), TAU)
    (curve,) = chart.curves
    assert curve.means == pytest.approx((30, 30))
    assert all(map(math.isnan, curve.halves)), "settings have no interval together"
    assert chart.note == "a point is the mean over graph.source, epochs, without an interval"


def test_random_search_is_points():
    sweep = Sweep(name="s", recipe=RECIPE, random={TAU: Draw(low=0.1, high=0.9), "train.epochs": (1, 2)}, samples=3)
    cells = [cell(tau=0.3, epochs=1), cell(tau=0.1, epochs=2), cell(tau=0.2, epochs=1)]
    swept = swept_of([line(each) for each in cells], lambda each: {IMAGENET: each.values[TAU]}, sweep)
    (chart,) = charts_of(swept, TAU)
    assert (chart.joined, chart.note, chart.curves[0].values) == (False, "epochs varies along", (0.1, 0.2, 0.3))
    (chart,) = charts_of(swept, "train.epochs")
    assert chart.curves[0].values == (1, 1, 2), "a point for each setting"


def test_lists_move_together():
    sweep = Sweep(name="s", recipe=RECIPE, lists={TAU: (0.1, 0.2), "train.epochs": (1, 2)})
    cells = [cell(tau=0.1, epochs=1), cell(tau=0.2, epochs=2)]
    (chart,) = charts_of(swept_of([line(each) for each in cells], lambda _: {IMAGENET: 0.5}, sweep), TAU)
    assert [each.values for each in chart.curves] == [(0.1, 0.2)]
    assert chart.note == "epochs varies along"


def few(cell):
    numbers = {("few-shot", f"{percent}-percent", "top1"): percent / 200 for percent in (1, 10, 2, 100)}
    return numbers | {IMAGENET: cell.values.get(TAU, 0) / 10}


def test_few_shot_curves_go_over_the_share_of_labels():
    swept = swept_of([line(cell("simclr", "augmentation")), line(cell(tau=0.1))], few)
    (chart,) = few_shot_charts(swept)
    assert [each.label for each in chart.curves] == ["simclr", "xclr target_temperature=0.1"]
    assert chart.curves[0].values == (1, 2, 10, 100)
    assert chart.curves[0].means == pytest.approx((0.5, 1, 5, 50))
    assert not few_shot_charts(by_tau({0.1: [0.5]}))


def test_of_many_settings_the_best_have_few_shot_curves():
    swept = swept_of([line(cell(tau=tau / 10)) for tau in range(1, 12)], few)
    (chart,) = few_shot_charts(swept)
    assert len(chart.curves) == LINES
    assert chart.curves[0].label == "xclr target_temperature=1.1"
    assert chart.note == f"the {LINES} best of 11 settings"


def test_shots_of_a_class_are_a_chart_of_their_own():
    swept = swept_of([line(cell(tau=0.1))], lambda _: {("few-shot", f"{n}-shot", "top1"): n / 10 for n in (5, 1)})
    (chart,) = few_shot_charts(swept)
    assert (chart.across, chart.curves[0].values) == ("training pictures of a class with a label", (1, 5))


def test_parallel_coordinates_are_method_axes_and_score():
    parallel = parallel_of(by_tau({"simclr": [0.3], 0.1: [0.7], 1.0: [0.5], 10.0: [0.4]}))
    method, tau, score = parallel.coordinates
    assert [each.heading for each in parallel.coordinates] == ["method", "target temperature, no unit", "ImageNet, %"]
    assert method.places == (0, 1, 1, 1)
    assert tau.places == pytest.approx((LACKS, 0, 0.5, 1)), "over the logarithm; simclr has none"
    assert tau.ticks[-1] == (LACKS, "–")
    assert score.places == parallel.shades == pytest.approx((0, 1, 0.5, 0.25))
    assert [text for _, text in score.ticks] == ["30.0", "40.0", "50.0", "60.0", "70.0"]
    assert parallel_of(by_tau({0.1: [0.5]})) is None
    assert parallel_of(swept_of([line(cell(tau=0.1))], lambda _: {})) is None


def test_a_smaller_gap_has_the_best_shade():
    sweep = SWEEP.model_copy(update={"by": "imagenet9"})
    swept = swept_of([line(cell(tau=tau)) for tau in (0.1, 0.2)], lambda each: {GAP: each.values[TAU]}, sweep)
    assert parallel_of(swept).shades == (1, 0)


def test_numbers_and_words_are_told_apart():
    assert is_numeric([1, 0.5]) and not is_numeric([1, True]) and not is_numeric([None, 1]) and not is_numeric([])
    assert is_log([0.1, 1.0]) and not is_log([0.2, 1.0]) and not is_log([0, 10])
    assert positions([1, 2, 4]) == pytest.approx((0, 1 / 3, 1))
    assert positions(["a", "b", "c"]) == (0, 0.5, 1)
    assert positions([7]) == (0.5,)
    assert spaced(["a", "b", "c", "d"], [0, 0.05, 0.5, 1], 0.1) == ["a", "c", "d"]
    assert spaced(["a", "b", "c"], [0, 0.95, 1], 0.1) == ["a", "c"]


@pytest.mark.parametrize("values", [(0.1, 0.2), (0.01, 0.1, 1.0), ("captions", "class"), (None, 0.6), (True, False)])
def test_every_sort_of_value_can_be_drawn(values):
    sweep = SWEEP.model_copy(update={"grid": {NAMES["source"]: values}})
    swept = swept_of([line(cell(source=value)) for value in values], lambda _: {IMAGENET: 0.5}, sweep)
    (chart,) = charts_of(swept, NAMES["source"])
    axes = Figure().subplots()
    draw_chart(chart)(axes)
    assert axes.get_xscale() == ("log" if values[0] == 0.01 else "linear")
    assert len(axes.get_xticklabels()) == len(values)
    draw_parallel(parallel_of(swept))(Figure().subplots())
