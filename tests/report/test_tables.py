"""The tables of scores and of distances: one source of cells, rendered for the terminal and as Markdown."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from flows.cli.app import app
from infra.home.scores import find_runs, read_scores
from tests.kit.scores import (
    BOTH,
    GAP,
    IMAGENET,
    RIGHT,
    SCORES,
    finished_run,
    record,
    score,
    table,
)
from xclr import schema
from xclr.artifact import Digest
from xclr.errors import StoreError
from xclr.evaluation.significance import distances_of, mcnemar
from xclr.report.page import GLOSSARY
from xclr.report.tables import (
    GROUPS,
    OWN,
    TableCell,
    answers_of,
    base_of,
    distance_grids,
    grids_of,
    markdown_of,
    methods_of,
    tables_of,
    view_of,
)
from xclr.store import Store


def distances_to(scores, against):
    return distance_grids(scores, distances_of(scores, base_of(scores, against), {}), against)


def test_cells_are_percent_with_intervals_and_the_best_mean_is_marked():
    (grid,) = grids_of(SCORES)
    assert grid.headings == ("pictures top-1", "keywords mAP")
    assert [line.method for line in grid.lines] == ["random", "clip", "xclr"]
    random, clip, xclr = (line.cells for line in grid.lines)
    assert random == (TableCell("10.0 ± 2.0"), TableCell("-"))
    assert clip == (TableCell("40.0 ± 2.0"), TableCell("20.0 ± 2.0"))
    assert xclr == (TableCell("50.0 ± 2.0", best=True), TableCell("30.0 ± 2.0", best=True))


def test_the_papers_suites_and_the_others_are_tables_of_their_own():
    papers, more = grids_of(BOTH)
    assert (papers.title, more.title) == ("the paper's suites", "own pictures")
    assert (papers.units, more.units) == (("%", "points"), ("%", "%"))
    assert (papers.headings, more.headings) == (("ImageNet", "bg gap"), ("pictures top-1", "keywords mAP"))
    assert [line.method for line in papers.lines] == ["clip", "xclr"], "random has no score of these"
    assert papers.lines[0].cells == (TableCell("60.0 ± 2.0"), TableCell("5.0 ± 2.0", best=True)), (
        "a smaller gap is better"
    )
    assert papers.lines[1].cells == (TableCell("70.0 ± 2.0", best=True), TableCell("8.0 ± 2.0"))
    assert "a smaller gap is better" in papers.caption
    assert "gap" not in more.caption
    assert more.lines == grids_of(SCORES)[0].lines
    assert grids_of(SCORES)[0].title == "", "a table that stands alone needs no name"


def test_every_suite_of_the_paper_has_a_column_and_every_column_is_explained():
    columns = [each for group in GROUPS.values() for each in group]
    assert len({each.heading for each in columns}) == len({each.key for each in columns}) == len(columns)
    assert list(GLOSSARY) == [each.heading for each in columns]
    assert all(GLOSSARY.values())
    everything = table(*(score("clip", "pairs", 0.5, where=each.key) for each in columns))
    assert [each for grid in grids_of(everything) for each in grid.headings] == list(GLOSSARY)
    assert grids_of(everything)[0].headings == (
        "ImageNet", "ReaL", "IN9 same", "IN9 mixed", "bg gap", "ObjectNet", "MIT objects", "MIT attributes",
    )  # fmt: skip


def test_a_column_says_what_methods_use_and_a_line_below_what_is_otherwise():
    how = {"uses": "pixels, captions", "trained": "train.optimizer=adamw, train.batch_size=4096"}
    scores = table(score("clip", "pairs", 0.5) | how, score("simclr", "augmentation", 0.4) | {"uses": "pixels"})
    (grid,) = grids_of(scores)
    assert grid.lead == ("method", "targets from", "uses")
    assert [grid.named(line) for line in grid.lines] == [
        ("simclr", "augmentation", "pixels"), ("clip", "pairs", "pixels, captions"),
    ]  # fmt: skip
    rates = [{"rate": "lars 2.4 (0.075, sqrt)"}, {"rate": "adamw 0.003"}]
    both = [score(*each, 0.5) for each in (("simclr", "augmentation"), ("clip", "pairs"))]
    (same,), (two,) = (
        grids_of(table(*(row | rate for row, rate in zip(both, each, strict=True)))) for each in (rates[:1] * 2, rates)
    )
    assert "; highest learning rate: lars 2.4 (0.075, sqrt);" in f"{same.caption};"
    assert "highest learning rate: lars 2.4 (0.075, sqrt) (simclr); adamw 0.003 (clip)" in two.caption
    assert f"clip: trained with {how['trained']}" in grid.caption
    assert "| clip | pairs | pixels, captions | " in markdown_of(scores)
    assert grids_of(table(score("clip", "pairs", 0.5)))[0].lead == ("method", "targets from")  # scores of before


def test_a_narrow_terminal_has_what_methods_use_in_a_table_of_its_own():
    columns = ("pictures", "concepts", "vendor")
    uses = {"uses": "pixels, captions, pretrained text model"}
    scores = table(*(score("xclr", "captions", 0.5, where=("linear", each, "top1")) | uses for each in columns))
    (grid,) = grids_of(scores)
    headings = [[column.header for column in each.columns] for each in tables_of(grid, 76)]
    assert headings == [["method", "targets from", *grid.headings], ["method", "targets from", "uses"]]
    assert len(tables_of(grid, 140)) == 1


def test_what_a_suite_was_judged_over_stands_below_its_table():
    said = "judged over 100 of 1,000 classes: 5,000 of 50,000 pictures"
    real, knn = (
        score("clip", "pairs", 0.5, where=where) for where in (("real", "val", "top1"), ("knn", "val", "top1"))
    )
    scores = table(real | {"remark": said}, knn)
    assert f"; real: {said}" in grids_of(scores, "real")[0].caption
    assert said not in grids_of(scores, "knn")[0].caption


def test_suites_without_a_column_are_shown_whole():
    (grid,) = grids_of(table(score("clip", "pairs", 0.5, where=("mine", "night", "f1"))))
    assert (grid.headings, grid.lines[0].cells) == (("night f1",), (TableCell("50.0 ± 2.0"),))


def test_one_suite_with_all_its_splits_and_metrics_in_an_order_for_people():
    splits = ("100-percent", "2-percent", "1-percent")
    rows = [score("clip", "pairs", 0.5, where=("few-shot", split, "top1")) for split in splits]
    knn = [score("clip", "pairs", 0.5, where=("knn", "val", metric)) for metric in ("per_class", "top1", "top5")]
    scores = table(*rows, *knn, score("clip", "pairs", 0.1, where=GAP))
    (grid,) = grids_of(scores, "few-shot")
    assert grid.headings == ("1-percent top1", "2-percent top1", "100-percent top1")
    assert grids_of(scores, "knn")[0].headings == ("val top1", "val top5", "val per_class")
    assert grids_of(scores, "imagenet9")[0].headings == ("gap",)
    assert view_of(scores, {}, suite="knn").rows == tuple(
        each | dict.fromkeys(("rate", "uses", "trained", "remark")) for each in knn
    )
    with pytest.raises(StoreError, match="no scores of suite 'few'") as error:
        view_of(scores, {}, suite="few")
    assert error.value.remedy == "there are: few-shot, imagenet9, knn"


def test_emoji_that_may_stand_in_for_a_data_set_are_told():
    papers, more = grids_of(BOTH)
    assert papers.heads == ("ImageNet†", "bg gap†") and papers.headings == ("ImageNet", "bg gap")
    assert "† judged on emoji in the place of this data set" in papers.caption
    assert more.heads == more.headings and "†" not in more.caption, "linear and keywords have pictures of their own"
    real = table(*(row | {"dataset": "cc12m"} for row in BOTH.to_pylist()))
    assert not any(grid.marked or "†" in grid.caption for grid in grids_of(real))
    far = distances_to(BOTH, "clip")[0]
    assert "†" in far.caption and far.heads == papers.heads and far.units == ("points", "points")


def test_a_method_alone_is_not_the_best():
    ((line,),) = (grid.lines for grid in grids_of(table(score("clip", "pairs", 0.4))))
    assert line.cells == (TableCell("40.0 ± 2.0"),)


def test_distances_carry_signs_and_mark_nothing():
    (grid,) = distances_to(SCORES, "clip")
    assert [(line.method, *line.cells) for line in grid.lines] == [
        ("random", TableCell("-30.0"), TableCell("-")),
        ("xclr", TableCell("+10.0"), TableCell("+10.0")),
    ]
    assert "distance to clip of the same seed, mean of 1 seed no interval" in grid.caption
    assert "no interval where the answers of xclr are not in the store" in grid.caption
    assert "McNemar" not in grid.caption


def test_distances_have_the_columns_that_they_can_have():
    papers, more = distances_to(BOTH, "clip")
    assert (papers.headings, more.headings) == (("ImageNet", "bg gap"), ("pictures top-1", "keywords mAP"))
    random = table(score("random", "none", 0.1), score("random", "none", 0.1, where=IMAGENET), *BOTH.to_pylist()[3:5])
    (only,) = distances_to(table(*random.to_pylist(), score("clip", "pairs", 0.2)), "random")
    assert only.headings == ("pictures top-1",), "clip has keywords, random has none"
    with pytest.raises(StoreError, match="no other method has a score that clip has too") as error:
        view_of(table(score("clip", "pairs", 0.4), score("xclr", "captions", 0.4, seed=1)), {}, "clip")
    assert "xclr compare RUN RUN" in error.value.remedy


def test_a_distance_that_rounds_to_zero_has_no_minus():
    (grid,) = distances_to(table(score("clip", "pairs", 0.4), score("xclr", "captions", 0.3999)), "clip")
    assert grid.lines[0].cells == (TableCell("+0.0"),)


def test_the_terminal_and_markdown_show_the_same_cells():
    markdown = markdown_of(SCORES).splitlines()
    assert markdown[:2] == ["| method | targets from | pictures top-1 | keywords mAP |", "| --- | --- | --- | --- |"]
    assert markdown[4] == "| xclr | captions | **50.0 ± 2.0** | **30.0 ± 2.0** |"
    (grid,) = grids_of(SCORES)
    assert markdown[-1] == grid.caption
    (shown,) = tables_of(grid, 100)
    terminal = [list(column.cells) for column in shown.columns]
    assert terminal[2] == ["10.0 ± 2.0", "40.0 ± 2.0", "50.0 ± 2.0"]


@pytest.mark.parametrize("width", [40, 50, 80, 120, 200])
def test_a_narrow_terminal_has_its_columns_below_one_another_and_cuts_nothing_off(width):
    columns = [each for group in GROUPS.values() for each in group]
    both = (("xclr", "augmentation"), ("clip", "pairs"))
    scores = table(*(score(*method, 0.5, where=each.key) for each in columns for method in both))
    for grid in grids_of(scores):
        printed = Console(width=width, file=io.StringIO(), record=True)
        printed.print(grid)
        text = printed.export_text()
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        assert words(grid.caption) in words(text)
        assert text.count("│ xclr   │ augmentation") == len(tables_of(grid, width))
        assert text.count("50.0 ± 2.0 ") == 2 * len(grid.headings)
        assert [column.header for each in tables_of(grid, width) for column in each.columns[2:]] == list(grid.heads)
    (own,) = (grid for grid in grids_of(scores) if grid.title == OWN)
    assert len(tables_of(own, width)) == {40: 11, 50: 11, 80: 4, 120: 3, 200: 2}[width]


def test_markdown_has_both_tables_under_their_names():
    markdown = markdown_of(BOTH)
    assert (
        markdown.index("**the paper's suites**") < markdown.index("| ImageNet† |") < markdown.index("**own pictures**")
    )
    assert markdown.endswith(markdown_of(SCORES))


def test_markdown_acts_on_nothing_in_a_name():
    text = markdown_of(table(score("a|b*c", "random_class", 0.1)))
    assert "| a\\|b\\*c | random\\_class |" in text


def test_without_scores_a_sentence_stands_for_the_table():
    none = schema.SCORES.empty_table()
    assert markdown_of(none).startswith("No suite judged this run")
    assert methods_of(none) == []
    assert view_of(none, {}, "clip").rows == ()


def test_a_method_that_is_not_there():
    with pytest.raises(StoreError, match="no method 'simclr'") as error:
        view_of(SCORES, {}, "simclr")
    assert error.value.remedy == "there are: random, clip, xclr"


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


ONE = {
    (method, graph, 0, "imagenet", "val"): RIGHT[method] for method, graph in (("clip", "pairs"), ("xclr", "captions"))
}


def xclr(*arguments):
    done = CliRunner().invoke(app, ["compare", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done


def words(text):
    """Without the breaks of a narrow table's caption."""
    return " ".join(text.split())


def test_a_distance_that_the_answers_tell_from_zero_has_an_interval_and_a_star(tmp_path):
    finished_run(tmp_path, "one-1", ONE)
    text = xclr("--home", tmp_path, "--against", "clip").stdout
    assert "+12.0 ± 6." in text
    assert " * │" in text
    assert "(paired-bootstrap); * McNemar p < 0.05, not corrected for the number of columns" in words(text)
    (row,) = json.loads(xclr("--home", tmp_path, "--against", "clip", "--json").stdout)
    assert list(row) == [
        "method", "graph", "suite", "split", "metric", "difference", "ci95", "ci_kind", "p", "n", "seeds",
    ]  # fmt: skip
    assert row["p"] == mcnemar(np.array(RIGHT["xclr"]), np.array(RIGHT["clip"])) == 2 / 2**12
    assert (row["difference"], row["n"], row["seeds"]) == (pytest.approx(0.12), 100, 1)
    (back,) = json.loads(xclr("--home", tmp_path, "--against", "xclr", "--json").stdout)
    assert back["difference"] == pytest.approx(-0.12)


def test_two_runs_are_compared_answer_by_answer(tmp_path):
    finished_run(tmp_path, "one-1", ONE)
    finished_run(tmp_path, "two-1", {("simclr", "augmentation", 0, "imagenet", "val"): RIGHT["simclr"]}, hour=2)
    rows = json.loads(xclr("one", "two", "--home", tmp_path, "--against", "clip", "--json").stdout)
    assert {each["method"]: each["p"] < 0.05 for each in rows} == {"simclr": False, "xclr": True}
    assert {each["ci_kind"] for each in rows} == {"paired-bootstrap"}


def test_three_seeds_have_student_t_and_no_star(tmp_path):
    three = {(name, graph, seed, *where): right for (name, graph, _, *where), right in ONE.items() for seed in range(3)}
    finished_run(tmp_path, "one-1", three)
    text = xclr("--home", tmp_path, "--against", "clip").stdout
    assert "+12.0 ± 0.0 │" in text
    assert "mean of 3 seeds ± 95% half width (t-seeds)" in words(text)
    assert "McNemar" not in text


def test_answers_that_are_gone_are_told_beside_the_json(tmp_path):
    suites = finished_run(tmp_path, "one-1", ONE)
    Store(tmp_path).discard(suites[1])
    done = xclr("--home", tmp_path, "--against", "clip", "--json")
    (row,) = json.loads(done.stdout)
    assert (row["ci_kind"], row["p"], row["ci95"]) == ("none", None, None)
    assert done.stderr == "no interval where the answers of xclr are not in the store\n"
    answers = answers_of(find_runs(tmp_path, []), Store(tmp_path))
    assert list(answers) == [("clip pairs 0", "imagenet")]


def test_one_suite_on_the_command_line(tmp_path):
    finished_run(tmp_path, "one-1", ONE | {("clip", "pairs", 0, "knn", "val"): RIGHT["clip"]})
    rows = json.loads(xclr("--home", tmp_path, "--suite", "knn", "--json").stdout)
    assert [row["suite"] for row in rows] == ["knn"]
    text = xclr("--home", tmp_path, "--suite", "imagenet", "--against", "clip").stdout
    assert "val top1" in text
    assert "k-NN" not in text
    assert "k-NN" in xclr("--home", tmp_path).stdout


def test_the_scores_of_a_run_are_gone(tmp_path):
    finished_run(tmp_path, "one-1", ONE)
    store = Store(tmp_path)
    store.discard(store.reference(Digest("comparison", find_runs(tmp_path, [])[0].scores)))
    with pytest.raises(StoreError, match="are gone"):
        read_scores(tmp_path, [])
    with pytest.raises(StoreError, match="are gone"):
        answers_of(find_runs(tmp_path, []), store)


def test_a_name_is_one_cell_of_one_line_whatever_it_holds():
    name = "a\n# b | c\n---\n<b>*d*</b> [e](f)"
    (line, *_) = lines = [each for each in markdown_of(table(score(name, "captions", 0.5))).splitlines() if each]
    assert not any(each.startswith(("#", "---", "<")) for each in lines)
    assert any("\\<b>\\*d\\*\\</b> \\[e](f)" in each for each in lines), line
