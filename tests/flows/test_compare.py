"""The table of scores: one source of cells, rendered for the terminal and as Markdown."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from flows.compare import Cell, find_runs, grid_of, markdown_of, methods_of, table_of
from infra.runs import new_record
from xclr import schema
from xclr.errors import StoreError
from xclr.recipe import Recipe
from xclr.store import write_atomically

ORIGIN = {"run": "r", "dataset": "emoji", "step": 1, "n": 50, "ci95": 0.02, "ci_kind": "bootstrap"}


def score(method, graph, value, seed=0, where=("linear", "pictures", "top1")):
    suite, split, metric = where
    checkpoint = f"{method} {graph} {seed}"
    row = {"method": method, "graph": graph, "seed": seed, "checkpoint": checkpoint, "value": value}
    return ORIGIN | row | {"suite": suite, "split": split, "metric": metric}


def table(*rows):
    return pa.Table.from_pylist(list(rows), schema.SCORES)


SCORES = table(
    score("xclr", "captions", 0.5),
    score("clip", "pairs", 0.4),
    score("random", "none", 0.1),
    score("xclr", "captions", 0.30, where=("background", "gap", "gap")),
    score("clip", "pairs", 0.20, where=("background", "gap", "gap")),
)


def test_cells_are_percent_with_intervals_and_the_best_mean_is_marked():
    grid = grid_of(SCORES)
    assert grid.headings == ("pictures top-1", "bg gap")
    assert [line.method for line in grid.lines] == ["random", "clip", "xclr"]
    random, clip, xclr = (line.cells for line in grid.lines)
    assert random == (Cell("10.0 ± 2.0"), Cell("-"))
    assert clip == (Cell("40.0 ± 2.0"), Cell("20.0 ± 2.0", best=True))  # a smaller gap is better
    assert xclr == (Cell("50.0 ± 2.0", best=True), Cell("30.0 ± 2.0"))


def test_a_method_alone_is_not_the_best():
    (line,) = grid_of(table(score("clip", "pairs", 0.4))).lines
    assert line.cells == (Cell("40.0 ± 2.0"),)


def test_distances_carry_signs_and_mark_nothing():
    grid = grid_of(SCORES, "clip")
    assert [(line.method, *line.cells) for line in grid.lines] == [
        ("random", Cell("-30.0"), Cell("-")),
        ("xclr", Cell("+10.0"), Cell("+10.0")),
    ]
    assert "distance to clip of the same seed" in grid.caption


def test_a_distance_that_rounds_to_zero_has_no_minus():
    grid = grid_of(table(score("clip", "pairs", 0.4), score("xclr", "captions", 0.3999)), "clip")
    assert grid.lines[0].cells == (Cell("+0.0"),)


def test_the_terminal_and_markdown_show_the_same_cells():
    markdown = markdown_of(SCORES).splitlines()
    assert markdown[:2] == ["| method | targets from | pictures top-1 | bg gap |", "| --- | --- | --- | --- |"]
    assert markdown[4] == "| xclr | captions | **50.0 ± 2.0** | 30.0 ± 2.0 |"
    assert markdown[-1] == table_of(SCORES).caption
    terminal = [list(column.cells) for column in table_of(SCORES).columns]
    assert terminal[2] == ["10.0 ± 2.0", "40.0 ± 2.0", "50.0 ± 2.0"]


def test_markdown_acts_on_nothing_in_a_name():
    text = markdown_of(table(score("a|b*c", "random_class", 0.1)))
    assert "| a\\|b\\*c | random\\_class |" in text


def test_without_scores_a_sentence_stands_for_the_table():
    assert markdown_of(schema.SCORES.empty_table()).startswith("No suite judged this run")
    assert methods_of(schema.SCORES.empty_table()) == []


def test_a_method_that_is_not_there():
    with pytest.raises(StoreError, match="no method 'simclr'") as error:
        table_of(SCORES, "simclr")
    assert error.value.remedy == "there are: random, clip, xclr"


def record(home, run, recipe, hour, scores="0" * 32):
    known = {"run": run, "state": "failed", "started": datetime(2026, 1, 1, hour, tzinfo=UTC), "scores": scores}
    made = new_record(Recipe(name=recipe), []).model_copy(update=known)
    write_atomically(home / "runs" / f"{run}.json", made.model_dump_json())


def test_runs_are_found_by_name_or_recipe_and_the_last_one_without(tmp_path):
    record(tmp_path, "one-1", "one", 1)
    record(tmp_path, "one-2", "one", 2)
    record(tmp_path, "two-1", "two", 3)

    def names(*wanted):
        return [each.run for each in find_runs(tmp_path, wanted)]

    assert names() == ["two-1"]
    assert names("one", "two-1") == ["one-2", "two-1"]
    assert names("one-1", "one", "one-2") == ["one-1", "one-2"]
    with pytest.raises(StoreError, match="no finished run 'tow'") as error:
        names("tow")
    assert "two" in error.value.remedy


def test_a_run_that_did_not_come_to_its_scores_is_named(tmp_path):
    record(tmp_path, "one-1", "one", 1, scores=None)
    with pytest.raises(StoreError, match="the last one, one-1, is failed") as error:
        find_runs(tmp_path, [])
    assert error.value.remedy == "xclr run one"
