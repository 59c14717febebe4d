"""Our scores beside what the paper says, [S], and beside what is reported of it, unverified, [R]."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import ValidationError, model_validator

from xclr.errors import RecipeError, StoreError
from xclr.evaluation.score import Summary, summarise
from xclr.evaluation.significance import Answers, Distance, Key, Method, distances_of
from xclr.recipe import Config
from xclr.report.tables import (
    GROUPS,
    PAPERS,
    STAND_IN,
    STAR,
    Grid,
    Line,
    ScoreTables,
    TableCell,
    distance_text,
    methods_of,
    notes_of,
    percent,
)

PAPER = Path(__file__).with_name("paper.yaml")
KEYS: Mapping[str, Key] = {each.heading: each.key for each in GROUPS[PAPERS]}


class Reported(Config):
    """[R]: a line of the paper's table as it is recalled, in percent, a value a column."""

    mark: Literal["R"]
    data: str
    method: str
    values: tuple[float | None, ...]


class Claim(Config):
    """[S]: how far a method is above another on a benchmark, in percent points, which one or more columns show."""

    mark: Literal["S"]
    method: str
    against: str
    columns: tuple[str, ...]
    benchmark: str | None = None  # its name, where it is not that of a column
    data: str | None = None  # what was trained on, where it is told
    low: float = 0.0
    high: float | None = None  # None: above `low`
    edition: str | None = None

    @property
    def says(self) -> str:
        """The difference as the paper states it."""
        if self.high is None:
            return f"above {self.low:g}"
        return f"{self.low:+.1f}" + ("" if self.high == self.low else f" to {self.high:+.1f}")


class Paper(Config):
    """What is known of the paper's results; `methods` maps its names to ours, `data` ours to its."""

    methods: Mapping[str, Method]
    also: Mapping[str, tuple[Method, ...]] = {}  # of a name, others of ours, which come first where they are there
    sources: Mapping[str, str] = {}  # of a name, what ours follows where the paper says nothing, and what is otherwise
    data: Mapping[str, str]
    columns: tuple[str, ...]
    unlike: Mapping[str, str] = {}  # columns that are counted in another way than ours, and why it is thought
    reported: tuple[Reported, ...]
    claims: tuple[Claim, ...]

    @model_validator(mode="after")
    def _names_are_known(self) -> Paper:
        both: list[Reported | Claim] = [*self.reported, *self.claims]
        unknown = {
            "column": {*self.columns, *self.unlike, *(name for each in self.claims for name in each.columns)}
            - set(KEYS),
            "data": {each.data for each in both if each.data is not None} - set(self.data),
            "method": {
                *(each.method for each in both),
                *(each.against for each in self.claims),
                *self.also,
                *self.sources,
            }
            - set(self.methods),
        }
        for what, names in unknown.items():
            if names:
                raise ValueError(f"no {what} {min(names)!r}")
        for each in self.reported:
            if len(each.values) != len(self.columns):
                raise ValueError(f"{each.method} on {each.data} has {len(each.values)} values, not {len(self.columns)}")
        return self

    def among(self, known: Collection[Method]) -> Paper:
        """The same where each name of a method stands for the first of ours that is known."""
        found = {
            name: next((each for each in self.also.get(name, ()) if each in known), usual)
            for name, usual in self.methods.items()
        }
        return self.model_copy(update={"methods": found})


class Block(NamedTuple):
    """Our scores of one data set, and the lines of the paper's table that they stand beside."""

    dataset: str  # ours
    data: str  # theirs
    lines: tuple[Reported, ...]
    columns: tuple[tuple[int, str], ...]  # place among a line's values, heading
    ours: Mapping[tuple[Method, Key], Summary]


@dataclass(frozen=True)
class Number:
    """One cell: our mean and what is reported, as fractions; either may be absent."""

    line: Reported
    heading: str
    ours: Summary | None
    reported: float | None
    alike: bool = True  # counted in the same way

    @property
    def difference(self) -> float | None:
        """Ours minus the reported, where they are alike."""
        if self.ours is None or self.reported is None or not self.alike:
            return None
        return self.ours.mean - self.reported

    @property
    def text(self) -> str:
        """As it stands in the table."""
        if self.ours is None and self.reported is None:
            return "-"
        ours = "-" if self.ours is None else percent(self.ours.mean)
        reported = "-" if self.reported is None else percent(self.reported)
        return f"{ours} / {reported} / " + ("-" if self.difference is None else percent(self.difference, sign="+"))


@dataclass(frozen=True)
class Measured:
    """A claim, one of its columns, and our own difference there; None without a score."""

    claim: Claim
    heading: str
    ours: Distance | None


def load_paper(path: Path = PAPER) -> Paper:
    """Read what is known of the paper's results; raises RecipeError naming what is wrong."""
    try:
        return Paper.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"]))
        where = f"{path}: {key}" if key else str(path)
        raise RecipeError(f"{where}: {fault['msg']}", "mend what it names, or install xclr again") from error
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read: {error}", "install xclr again") from error


def check_alone(paper: bool, against: str | None, suite: str | None) -> None:
    """Raise RecipeError where the paper is asked for together with what has columns of its own."""
    if paper and (against or suite):
        raise RecipeError("--paper has columns and differences of its own", "leave --against and --suite out")


def same_order(ours: Sequence[float], theirs: Sequence[float]) -> tuple[int, int]:
    """How many pairs of items both sequences put in the same order, and how many pairs there are; ties must be shared.

    Without ties this is (1 + Kendall's tau) / 2 of all pairs.
    """
    pairs = list(combinations(zip(ours, theirs, strict=True), 2))
    same = sum(bool(np.sign(a - b) == np.sign(c - d)) for (a, c), (b, d) in pairs)
    return same, len(pairs)


def paper_view(scores: pa.Table, answers: Answers, paper: Paper) -> ScoreTables:
    """Our scores beside the paper's: a table for each data set that we trained on, and below it what the paper says.

    The rows, in fractions: what "reported" (mark R) for each method and column, "order" for each column, "claim" (mark
    S) for each claim and column. `answers` serve the claims. Raises StoreError when no method and column of the paper
    has a score, DataError as score.summarise does.
    """
    if not scores.num_rows:
        return ScoreTables((), ())
    views = []
    for dataset in sorted(set(scores["dataset"].to_pylist())):
        own = scores.filter(pc.equal(scores["dataset"], dataset))
        ours = paper.among(methods_of(own))
        block = _block(dataset, own, ours)
        if block.columns:
            views.append(_beside(block, _measured(block, own, answers, ours), ours))
    if not views:
        raise StoreError(
            "no score of these runs stands in the paper's table",
            f"it has {', '.join(paper.methods)} on {', '.join(paper.columns)}: see evaluate.suites",
        )
    grids = tuple(grid for view in views for grid in view.grids)
    notes = dict.fromkeys(note for view in views for note in view.notes)
    return ScoreTables(grids, tuple(row for view in views for row in view.rows), tuple(notes))


def _block(dataset: str, scores: pa.Table, paper: Paper) -> Block:
    """The lines of the data set of our name, else those with most methods in common; the columns that we have."""
    ours = {((each.method, each.graph), (each.suite, each.split, each.metric)): each for each in summarise(scores)}
    known = set(methods_of(scores))
    parts = {data: tuple(each for each in paper.reported if each.data == data) for data in paper.data}
    common = {data: sum(paper.methods[each.method] in known for each in lines) for data, lines in parts.items()}
    data = dataset if dataset in parts else max(parts, key=lambda each: common[each])
    columns = tuple(
        (place, heading)
        for place, heading in enumerate(paper.columns)
        if any((paper.methods[each.method], KEYS[heading]) in ours for each in parts[data])
    )
    return Block(dataset, data, parts[data], columns, ours)


def _measured(block: Block, scores: pa.Table, answers: Answers, paper: Paper) -> list[Measured]:
    """The paper's claims with our own differences; of those on named data only ours, if ours are among them."""
    claims = [each for each in paper.claims if block.dataset != block.data or each.data in {None, block.data}]
    there = set(methods_of(scores))
    ours = {
        (against, (each.method, each.graph), each.key): each
        for against in {each.against for each in claims}
        if paper.methods[against] in there
        for each in distances_of(scores, paper.methods[against], answers)
    }
    return [
        Measured(claim, heading, ours.get((claim.against, paper.methods[claim.method], KEYS[heading])))
        for claim in claims
        for heading in claim.columns
    ]


def _beside(block: Block, measured: Sequence[Measured], paper: Paper) -> ScoreTables:
    """The table of one data set, the lines below it, and the same as rows."""
    numbers = [[_number(line, column, block, paper) for column in block.columns] for line in block.lines]
    orders = {heading: _order(heading, numbers) for _, heading in block.columns}
    notes = notes_of(each.ours for each in measured if each.ours is not None)
    seeds = max(each.seeds for each in block.ours.values())
    grid = Grid(
        headings=tuple(orders),
        lines=tuple(
            Line(line.method, " ".join(paper.methods[line.method]), tuple(TableCell(each.text) for each in row))
            for line, row in zip(block.lines, numbers, strict=True)
        ),
        caption="ours / reported, unverified [R] / difference, in percent; judge order and sign, not digits; "
        f"ours is the mean of {seeds} seed{'s' * (seeds != 1)}",
        title=f"{block.dataset} beside the paper's {paper.data[block.data]}",
        units=("%",) * len(orders),
        marked=frozenset(orders if block.dataset == "emoji" else ()),
        lead=("the paper's name", "ours"),
        below=(
            *_warning(block, paper),
            _agreement(orders),
            *_unlike(block, paper),
            *_followed(block, paper),
            *_told(block, measured, paper),
            *notes,
        ),
    )
    rows = [_reported_row(each, paper) for row in numbers for each in row]
    rows += [{"what": "order", **_where(name), "same": same, "pairs": n} for name, (same, n) in orders.items()]
    rows += [_claim_row(each, paper) for each in measured]
    place = {"dataset": block.dataset, "data": block.data}
    return ScoreTables((grid,), tuple(place | row for row in rows), notes)


def _number(line: Reported, column: tuple[int, str], block: Block, paper: Paper) -> Number:
    place, heading = column
    value = line.values[place]
    ours = block.ours.get((paper.methods[line.method], KEYS[heading]))
    return Number(line, heading, ours, None if value is None else round(value / 100, 6), heading not in paper.unlike)


def _order(heading: str, numbers: Iterable[Sequence[Number]]) -> tuple[int, int]:
    column = [each for row in numbers for each in row if each.heading == heading and each.alike]
    both = [(each.ours.mean, each.reported) for each in column if each.ours is not None and each.reported is not None]
    return same_order([ours for ours, _ in both], [theirs for _, theirs in both])


def _warning(block: Block, paper: Paper) -> Iterator[str]:
    if block.dataset != block.data:
        yield (
            f"Ours were trained on {block.dataset}, other pictures than {paper.data[block.data]}: only the order of "
            "methods can be compared."
        )
    if block.dataset == "emoji":
        yield f"{STAND_IN}."


def _followed(block: Block, paper: Paper) -> Iterator[str]:
    """What our methods follow where the paper says nothing."""
    there = {method for method, _ in block.ours}
    for line in block.lines:
        if line.method in paper.sources and paper.methods[line.method] in there:
            yield f"{line.method}: {paper.sources[line.method]}."


def _unlike(block: Block, paper: Paper) -> Iterator[str]:
    """Of which columns no difference is taken, and why."""
    shown = {heading for _, heading in block.columns}
    for why in dict.fromkeys(why for heading, why in paper.unlike.items() if heading in shown):
        headings = " and ".join(each for each in paper.unlike if each in shown and paper.unlike[each] == why)
        yield f"{headings}: not like with like, so no difference: {why}."


def _agreement(orders: Mapping[str, tuple[int, int]]) -> str:
    same, pairs = (sum(each) for each in zip(*orders.values(), strict=True))
    if not pairs:
        return "Order of methods: no two of them have a score and a reported one in the same column."
    parts = ", ".join(f"{heading} {a} of {b}" for heading, (a, b) in orders.items() if b)
    return f"Order of methods: {same} of {pairs} pairs are as reported, unverified [R] ({parts})."


def _told(block: Block, measured: Sequence[Measured], paper: Paper) -> Iterator[str]:
    """A line for each claim, and what a star is."""
    here = "here" if block.dataset == block.data else f"here, on {block.dataset},"
    for claim in dict.fromkeys(each.claim for each in measured):
        ours = [_ours(each) for each in measured if each.claim == claim]
        at = "" if claim.data is None else f" at {paper.data[claim.data]}"
        mark = "[S]" if claim.edition is None else f"[S] ({claim.edition} version)"
        on = claim.benchmark or " and ".join(claim.columns)
        yield (
            f"{claim.method} - {claim.against} on {on}{at}: the paper says {claim.says} {mark}; {here} "
            + ", ".join(ours)
        )
    if any(each.ours is not None and each.ours.p is not None for each in measured):
        yield STAR


def _ours(measured: Measured) -> str:
    name = f"{measured.heading} " if len(measured.claim.columns) > 1 else ""
    if measured.ours is None:
        return f"{name}no score"
    kind = "" if measured.ours.ci95 is None else f" ({measured.ours.ci_kind})"
    return name + distance_text(measured.ours) + kind


def _where(heading: str) -> dict[str, str]:
    return dict(zip(("suite", "split", "metric"), KEYS[heading], strict=True))


def _reported_row(number: Number, paper: Paper) -> dict[str, Any]:
    ours = number.ours
    method, graph = paper.methods[number.line.method]
    return {
        "what": "reported", "mark": number.line.mark, "name": number.line.method, "method": method, "graph": graph,
        **_where(number.heading), "ours": ours and ours.mean, "ci95": ours and ours.ci95,
        "ci_kind": ours.ci_kind if ours else "none", "reported": number.reported, "difference": number.difference,
    }  # fmt: skip


def _claim_row(measured: Measured, paper: Paper) -> dict[str, Any]:
    claim, ours = measured.claim, measured.ours
    method, graph = paper.methods[claim.method]
    return {
        "what": "claim", "mark": claim.mark, "data": claim.data, "method": method, "graph": graph,
        "against": paper.methods[claim.against][0], **_where(measured.heading), "edition": claim.edition,
        "low": round(claim.low / 100, 6), "high": None if claim.high is None else round(claim.high / 100, 6),
        "difference": ours and ours.difference, "ci95": ours and ours.ci95,
        "ci_kind": ours.ci_kind if ours else "none", "p": ours and ours.p,
    }  # fmt: skip
