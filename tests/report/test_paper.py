"""Our scores beside the paper's: what is known of it, which part of it ours stand beside, and how it is worded."""

from __future__ import annotations

import io
import json
import re

import pyarrow.compute as pc
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy.stats import kendalltau
from typer.testing import CliRunner

from flows.cli.app import app
from infra.home.scores import find_runs
from tests.kit.scores import BOTH, RIGHT, SCORES, finished_run, score, table
from xclr import schema
from xclr.errors import RecipeError, StoreError
from xclr.recipe import CLIPConfig, SimCLRConfig, SupConConfig, XCLRConfig, graph_name, method_name
from xclr.report.page import write_page
from xclr.report.paper import PAPER, load_paper, paper_view, same_order
from xclr.report.tables import GROUPS, PAPERS

KEYS = {each.heading: each.key for each in GROUPS[PAPERS]}


def values_of(data, shift=0.0, paper=None):
    """Scores of our methods that are the reported ones, shifted."""
    paper = paper or load_paper()
    return [
        score(*paper.methods[line.method], value / 100 + shift, where=KEYS[heading]) | {"dataset": data}
        for line in paper.reported
        if line.data == data
        for heading, value in zip(paper.columns, line.values, strict=True)
        if value is not None
    ]


def view(rows, answers=None):
    return paper_view(table(*rows), answers or {}, load_paper())


def test_clip_is_the_one_with_a_tower_as_clips_where_there_is_one_and_its_source_is_told():
    rows = values_of("cc3m")
    shown = view(rows).grids[0]
    assert "ours" in shown.lead and ("CLIP", "clip pairs") in {(line.method, line.graph) for line in shown.lines}
    ours = [row | {"method": "clip-bpe"} if row["method"] == "clip" else row for row in rows]
    shown = view([*ours, *(row | {"checkpoint": "x"} for row in rows if row["method"] == "clip")]).grids[0]
    assert ("CLIP", "clip-bpe pairs") in {(line.method, line.graph) for line in shown.lines}
    assert any(line.startswith("CLIP: the text tower, optimiser") for line in shown.below)
    assert not any(line.startswith("CLIP: ") for line in view(values_of("imagenet")).grids[0].below)


def test_what_is_known_of_the_paper_is_marked_line_by_line():
    paper = load_paper()
    assert {each.mark for each in paper.reported} == {"R"}
    assert {each.mark for each in paper.claims} == {"S"}
    assert len(paper.reported) == 11
    (line,) = (each for each in paper.reported if (each.data, each.method) == ("cc12m", "X-CLR"))
    assert line.values == (59.4, 66.7, 26.1, 20.4, 13.4, 42.1, 30.1)
    assert {(each.data, each.columns, each.low, each.high) for each in paper.claims if each.against == "CLIP"} == {
        ("cc12m", ("ImageNet",), 0.6, 0.6), ("cc12m", ("ReaL",), 0.6, 0.6),
        ("cc3m", ("ImageNet",), 16.8, 16.8), ("cc3m", ("ReaL",), 18.1, 18.1),
        ("cc3m", ("ImageNet",), 17.2, 17.2), ("cc3m", ("ReaL",), 18.0, 18.0),
        (None, ("IN9 same", "IN9 mixed"), 3.3, 5.6),
    }  # fmt: skip


def test_the_methods_of_the_paper_have_the_names_that_our_tables_give_them():
    paper = load_paper()
    for name, objective in (
        ("SimCLR", SimCLRConfig()),
        ("SupCon", SupConConfig()),
        ("CLIP", CLIPConfig()),
        ("X-CLR", XCLRConfig()),
        ("WordNet graph", XCLRConfig(graph={"source": "wordnet"})),
        ("random per class", XCLRConfig(graph={"source": "random_class"})),
    ):
        assert paper.methods[name] == (method_name(objective), graph_name(objective, "imagenet"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw["reported"][0].update(mark="S"), "reported.0.mark: Input should be 'R'"),
        (lambda raw: raw["reported"][0].update(method="SimCRL"), "no method 'SimCRL'"),
        (lambda raw: raw["reported"][0].update(values=[1.0]), "SimCLR on imagenet has 1 values, not 7"),
        (lambda raw: raw["claims"][0].update(columns=["ImageNet-C"]), "no column 'ImageNet-C'"),
        (lambda raw: raw["claims"][0].update(data="laion"), "no data 'laion'"),
        (lambda raw: raw.pop("claims"), "claims: Field required"),
    ],
)
def test_a_fault_in_the_file_is_named(tmp_path, change, message):
    raw = yaml.safe_load(PAPER.read_text())
    change(raw)
    (tmp_path / "paper.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(RecipeError) as error:
        load_paper(tmp_path / "paper.yaml")
    assert message in error.value.message
    assert "install xclr again" in error.value.remedy


@pytest.mark.parametrize("text", [None, "a: [", "2026-13-41"])
def test_a_file_that_cannot_be_read(tmp_path, text):
    if text is not None:
        (tmp_path / "paper.yaml").write_text(text)
    with pytest.raises(RecipeError, match=r"paper\.yaml"):
        load_paper(tmp_path / "paper.yaml")


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), unique_by=(lambda x: x[0], lambda x: x[1])))
def test_the_order_of_methods_is_kendalls(values):
    ours, theirs = [a for a, _ in values], [b for _, b in values]
    same, pairs = same_order(ours, theirs)
    assert pairs == len(values) * (len(values) - 1) // 2
    assert same_order(theirs, ours) == (same, pairs)
    assert same_order(ours, [-each for each in theirs]) == (pairs - same, pairs)
    if pairs:
        assert (2 * same - pairs) / pairs == pytest.approx(kendalltau(ours, theirs).statistic)


def test_a_tie_is_the_same_order_only_where_both_have_it():
    assert same_order([1, 1, 2], [3, 3, 4]) == (3, 3)
    assert same_order([1, 1, 2], [3, 5, 6]) == (2, 3)


def test_our_data_choose_the_part_of_the_table_that_has_their_name():
    (grid,) = view(values_of("cc12m", shift=0.01)).grids
    assert grid.title == "cc12m beside the paper's CC12M"
    assert grid.headings == load_paper().columns
    assert [(line.method, line.graph) for line in grid.lines] == [
        ("SimCLR", "simclr augmentation"), ("CLIP", "clip pairs"), ("X-CLR", "xclr captions"),
    ]  # fmt: skip
    assert grid.lines[1].cells[0].text == "59.8 / 58.8 / +1.0"
    assert grid.lines[0].cells[-1].text == "-", "nothing is reported and nothing measured"
    assert "ours / reported, unverified [R] / difference" in grid.caption
    assert not any("other pictures" in line for line in grid.below)
    assert grid.below[0].startswith(
        "Order of methods: 11 of 11 pairs are as reported, unverified [R] (ImageNet 3 of 3,"
    )


def test_imagenet_9_is_not_set_beside_the_papers_as_a_like_thing():
    (grid,) = view(values_of("cc12m", shift=0.01)).grids
    places = [place for place, heading in enumerate(grid.headings) if heading.startswith("IN9")]
    assert [grid.lines[1].cells[place].text for place in places] == ["21.5 / 20.5 / -", "18.1 / 17.1 / -"]
    assert "IN9" not in grid.below[0], "nor do they count in the order"
    (why,) = [line for line in grid.below if line.startswith("IN9 same and IN9 mixed: not like with like")]
    assert "86.2" in why and "[R]" in why


def test_claims_are_the_papers_own_words_and_ours_stand_beside():
    (grid,) = view(values_of("cc12m", shift=0.01)).grids
    told = [line for line in grid.below if "the paper says" in line]
    assert told == [
        "X-CLR - CLIP on ImageNet at CC12M: the paper says +0.6 [S]; here +0.6",
        "X-CLR - CLIP on ReaL at CC12M: the paper says +0.6 [S]; here +0.6",
        "X-CLR - CLIP on ImageNet-9: the paper says +3.3 to +5.6 [S]; here IN9 same +5.6, IN9 mixed +3.3",
        "X-CLR - SimCLR on ImageNet: the paper says above 0 [S]; here +0.5",
        "X-CLR - SupCon on ImageNet: the paper says above 0 [S]; here no score",
    ]


def test_only_what_is_stated_is_called_what_the_paper_says():
    grids = [grid for data in ("imagenet", "cc3m", "cc12m") for grid in view(values_of(data)).grids]
    texts = [grid.caption for grid in grids] + [line for grid in grids for line in grid.below]
    for text in texts:
        assert ("the paper says" in text) == ("[S]" in text)
        assert ("reported" in text) == ("[R]" in text)
        assert "reported" not in text or "unverified" in text
    stated = {claim.says for claim in load_paper().claims}
    assert {re.search(r"says (.*?) \[S\]", text)[1] for text in texts if "the paper says" in text} == stated


def test_both_versions_of_a_claim_are_told_apart():
    below = view(values_of("cc3m")).grids[0].below
    assert "X-CLR - CLIP on ImageNet at CC3M: the paper says +16.8 [S] (first version); here +17.2" in below
    assert "X-CLR - CLIP on ImageNet at CC3M: the paper says +17.2 [S] (ICLR version); here +17.2" in below
    assert not any("CC12M" in line for line in below)


def test_other_data_stand_beside_the_part_with_most_of_their_methods_and_are_told_to_be_other_pictures():
    paper = load_paper()
    rows = [each | {"dataset": "emoji"} for each in values_of("imagenet")]
    rows.append(score("clip", "pairs", 0.3, where=KEYS["ImageNet"]))
    (grid,) = view(rows).grids
    assert grid.title == "emoji beside the paper's ImageNet"
    assert [line.method for line in grid.lines] == [each.method for each in paper.reported if each.data == "imagenet"]
    assert grid.below[0] == (
        "Ours were trained on emoji, other pictures than ImageNet: only the order of methods can be compared."
    )
    assert "X-CLR - CLIP on ImageNet at CC12M: the paper says +0.6 [S]; here, on emoji, +45.6" in grid.below
    (grid,) = view([score("clip", "pairs", 0.3, where=KEYS["ImageNet"])]).grids
    assert grid.title == "emoji beside the paper's CC3M"


def test_an_order_that_does_not_agree_is_counted():
    rows = [
        score("simclr", "augmentation", 0.5, where=KEYS["ImageNet"]),
        score("supcon", "class", 0.4, where=KEYS["ImageNet"]),
        score("xclr", "captions", 0.6, where=KEYS["ImageNet"]),
        score("xclr", "captions", 0.6, where=KEYS["ReaL"]),
    ]
    found = view(rows)
    assert "Order of methods: 2 of 3 pairs are as reported, unverified [R] (ImageNet 2 of 3)." in found.grids[0].below
    orders = [row for row in found.rows if row["what"] == "order"]
    assert [(row["suite"], row["same"], row["pairs"]) for row in orders] == [("imagenet", 2, 3), ("real", 0, 0)]
    lone = view(rows[3:]).grids[0].below
    assert any(line.startswith("Order of methods: no two of them") for line in lone)


def test_two_data_sets_have_a_table_each():
    found = view([*values_of("cc3m"), *values_of("cc12m")])
    assert [grid.title[:5] for grid in found.grids] == ["cc12m", "cc3m "]
    assert {(row["dataset"], row["data"]) for row in found.rows if row["what"] == "reported"} == {
        ("cc3m", "cc3m"), ("cc12m", "cc12m"),
    }  # fmt: skip


def test_rows_are_fractions_with_marks():
    rows = view(values_of("cc12m", shift=0.01)).rows
    (line,) = (
        each for each in rows if each["what"] == "reported" and each["method"] == "clip" and each["suite"] == "real"
    )
    assert line == {
        "dataset": "cc12m", "data": "cc12m", "what": "reported", "mark": "R", "name": "CLIP", "method": "clip",
        "graph": "pairs", "suite": "real", "split": "val", "metric": "top1", "ours": pytest.approx(0.671), "ci95": 0.02,
        "ci_kind": "bootstrap", "reported": 0.661, "difference": pytest.approx(0.01),
    }  # fmt: skip
    claims = [each for each in rows if each["what"] == "claim"]
    assert claims[0] | {"difference": None} == {
        "dataset": "cc12m", "data": "cc12m", "what": "claim", "mark": "S", "method": "xclr", "graph": "captions",
        "against": "clip", "suite": "imagenet", "split": "val", "metric": "top1", "edition": None, "low": 0.006,
        "high": 0.006, "difference": None, "ci95": None, "ci_kind": "none", "p": None,
    }  # fmt: skip
    assert claims[0]["difference"] == pytest.approx(0.006)
    assert {each["against"]: (each["low"], each["high"]) for each in claims if each["high"] is None} == {
        "simclr": (0.0, None), "supcon": (0.0, None),
    }  # fmt: skip
    json.dumps(rows)


@pytest.mark.parametrize("scores", [SCORES, BOTH.filter(pc.equal(BOTH["method"], "random"))])
def test_scores_that_the_paper_has_none_of(scores):
    with pytest.raises(StoreError, match="no score of these runs stands in the paper's table") as error:
        paper_view(scores, {}, load_paper())
    assert "evaluate.suites" in error.value.remedy


def test_no_scores_make_no_table():
    assert paper_view(schema.SCORES.empty_table(), {}, load_paper()).grids == ()


@pytest.fixture
def home(tmp_path):
    answers = {
        ("clip", "pairs", 0, "imagenet", "val"): RIGHT["clip"],
        ("xclr", "captions", 0, "imagenet", "val"): RIGHT["xclr"],
    }
    finished_run(tmp_path, "one-1", answers, dataset="cc12m")
    return tmp_path


def compare(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_command_prints_the_table_and_what_the_paper_says(home):
    done = compare("--home", home, "--paper")
    assert done.exit_code == 0, done.exception
    text = " ".join(done.stdout.split())
    assert "cc12m beside the paper's CC12M" in text
    assert "62.0 / 59.4 / +2.6" in text
    assert "Order of methods: 1 of 1 pairs are as reported, unverified [R] (ImageNet 1 of 1)." in text
    assert re.search(
        r"X-CLR - CLIP on ImageNet at CC12M: the paper says \+0\.6 \[S\]; here \+12\.0 ± 6\.\d \* \(paired-bootstrap\)",
        text,
    )
    assert "* McNemar p < 0.05" in text
    rows = json.loads(compare("--home", home, "--paper", "--json").stdout)
    assert {row["what"] for row in rows} == {"reported", "order", "claim"}
    assert {row["p"] for row in rows if row["what"] == "claim"} == {2 / 2**12, None}


def test_the_page_has_the_same_below_its_own_tables(home):
    html = (home / "pages" / "compare-one.html") if compare("--home", home).exit_code == 0 else None
    html = html.read_text().replace("\u00a0", " ")
    for words in ("Beside the paper", "62.0 / 59.4 / +2.6", "the paper says +0.6 [S]; here +12.0", "Distance to clip"):
        assert words in html
    assert html.index("Distance to clip") < html.index("Beside the paper")


def test_scores_without_any_of_the_papers_suites_leave_the_page_without_it(tmp_path):
    finished_run(tmp_path, "one-1", {("clip", "pairs", 0, "linear", "pictures"): RIGHT["clip"]})
    path = write_page(tmp_path, find_runs(tmp_path, []), [], table(score("clip", "pairs", 0.5)), None, None)
    assert "Beside the paper" not in path.read_text()


@pytest.mark.parametrize("other", [["--against", "clip"], ["--suite", "imagenet"]])
def test_the_paper_is_shown_alone(home, other):
    error = compare("--home", home, "--paper", *other).exception
    assert isinstance(error, RecipeError)
    assert error.remedy == "leave --against and --suite out"


def test_a_terminal_shows_marks_as_they_are():
    (grid,) = view(values_of("cc12m")).grids
    printed = Console(width=100, file=io.StringIO(), record=True)
    printed.print(grid)
    text = " ".join(printed.export_text().split())
    assert "reported, unverified [R] / difference" in text
    assert "the paper says +0.6 [S]; here" in text
