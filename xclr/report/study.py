"""What a study says: its tables, its plot, and a reading in plain words that claims no more than was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xclr.recipe import SUITES
from xclr.report.tables import Grid, Line, TableCell
from xclr.study.numbers import Interval, components, equivalence, holm, over_both_of, over_seeds, seeds_needed
from xclr.study.outcome import Outcome, Right
from xclr.study.spec import Contrast, Study

LIKENESS = "likeness: rank correlation of pictures' cosines with captions', between pictures of other concepts"
ASKED = (0.01, 0.015, 0.03)  # differences whose seeds are told


@dataclass(frozen=True)
class Compared:
    """One contrast: the difference, its p corrected for all, and the p of equivalence."""

    arms: Contrast
    found: Interval
    corrected: float
    alike: float

    def row(self, study: Study) -> dict[str, Any]:
        """For other programs."""
        told = {"corrected": self.corrected, "alike": self.alike, "verdict": self.verdict(study)}
        return {"arm": self.arms[0], "against": self.arms[1]} | self.found._asdict() | told

    def verdict(self, study: Study) -> str:
        """above, below, alike or open."""
        if self.corrected < study.alpha:
            return "above" if self.found.mean > 0 else "below"
        return "alike" if self.alike < study.alpha else "open"


@dataclass(frozen=True)
class Findings:
    """All that a study found: levels and likeness by arm, contrasts, mechanism, and seeds needed by difference.

    `also` are levels by what else is told, and arm; `also_compared` its contrasts, corrected for being so many.
    """

    study: Study
    pictures: int
    levels: Mapping[str, Interval]
    likeness: Mapping[str, Interval]
    compared: tuple[Compared, ...]
    mechanism: Interval | None
    needed: Mapping[float, int | None]
    also: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    also_compared: Mapping[str, tuple[Compared, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The same for other programs: fractions."""
        about = {"study": self.study.name, "seeds": self.study.seeds, "pictures": self.pictures}
        rows = [about | {"what": "level", "arm": arm} | each._asdict() for arm, each in self.levels.items()]
        rows += [about | {"what": "likeness", "arm": arm} | each._asdict() for arm, each in self.likeness.items()]
        rows += [about | {"what": "contrast"} | each.row(self.study) for each in self.compared]
        for name, levels in self.also.items():
            rows += [about | {"what": f"{name}: level", "arm": arm} | each._asdict() for arm, each in levels.items()]
            rows += [about | {"what": f"{name}: contrast"} | each.row(self.study) for each in self.also_compared[name]]
        if self.mechanism is not None and self.study.mechanism is not None:
            arm, against = self.study.mechanism
            rows.append(about | {"what": "mechanism", "arm": arm, "against": against} | self.mechanism._asdict())
        return rows + [
            about | {"what": "power", "difference": each, "needed": seeds} for each, seeds in self.needed.items()
        ]


def findings(study: Study, outcomes: Mapping[str, Outcome]) -> Findings:
    """Compute what was fixed beforehand from the outcomes of all arms."""
    right = {arm: each.right for arm, each in outcomes.items()}
    differences = _differences(study, right)
    parts = [components(each) for each in differences]
    pictures = differences[0].shape[1]
    usual = type(parts[0])(*(float(np.median(each)) for each in zip(*parts, strict=True)))
    mechanism = None
    if study.mechanism is not None:
        a, b = (outcomes[arm].likeness for arm in study.mechanism)
        mechanism = over_seeds(a - b)
    also = {name: {arm: each.also[name] for arm, each in outcomes.items()} for name in study.also}
    compared = compare(study, [each for numbers in also.values() for each in _differences(study, numbers)])
    return Findings(
        study=study,
        pictures=pictures,
        levels=_levels(study, right),
        likeness={arm: over_seeds(each.likeness) for arm, each in outcomes.items() if len(each.likeness)},
        compared=compare(study, differences),
        mechanism=mechanism,
        needed={each: seeds_needed(usual, pictures, each, study.alpha / len(study.contrasts)) for each in ASKED},
        also={name: _levels(study, numbers) for name, numbers in also.items()},
        also_compared={
            name: compared[place * len(study.contrasts) : (place + 1) * len(study.contrasts)]
            for place, name in enumerate(also)
        },
    )


def compare(study: Study, differences: Sequence[Right]) -> tuple[Compared, ...]:
    """Differences [S, n] of the study's contrasts, in turn, all of them corrected for being so many."""
    contrasts = [*study.contrasts] * (len(differences) // len(study.contrasts))
    found = _intervals(study, differences, [study.contrasts.index(each) for each in contrasts])
    return tuple(
        Compared(arms, each, p, equivalence(each, study.equivalence, study.seeds))
        for arms, each, p in zip(contrasts, found, holm([each.p for each in found]), strict=True)
    )


def _intervals(study: Study, tables: Sequence[Right], seeds: Sequence[int]) -> list[Interval]:
    """Of each table by the draws of its seed; those of one seed and shape share them."""
    alike: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    for place, (table, seed) in enumerate(zip(tables, seeds, strict=True)):
        alike.setdefault((seed, table.shape), []).append(place)
    found: dict[int, Interval] = {}
    for (seed, _), places in alike.items():
        own = over_both_of([tables[place] for place in places], resamples=study.resamples, seed=seed)
        found |= dict(zip(places, own, strict=True))
    return [found[place] for place in range(len(tables))]


def _differences(study: Study, numbers: Mapping[str, Right]) -> list[Right]:
    return [numbers[a] - numbers[b] for a, b in study.contrasts]


def _levels(study: Study, numbers: Mapping[str, Right]) -> dict[str, Interval]:
    return dict(zip(numbers, _intervals(study, [*numbers.values()], [0] * len(numbers)), strict=True))


def asked(study: Study) -> str:
    """What tables call the number that answers the question."""
    columns = SUITES[study.primary.suite].columns
    named = (each.heading for each in columns if (each.split, each.metric) == (study.primary.split, "top1"))
    return next(named, f"{study.primary.suite} {study.primary.split} top-1")


def grids_of_study(found: Findings) -> list[Grid]:
    """The arms, and the contrasts."""
    study, over = found.study, f"{found.study.seeds} seeds and {found.pictures:,} pictures"
    best = max(each.mean for each in found.levels.values())
    lines = []
    for arm, objective in study.arms.items():
        cells = [TableCell(_points(found.levels[arm]), found.levels[arm].mean == best)]
        cells += [TableCell(_span(found.likeness[arm], 1, 3))] if found.likeness else []
        lines.append(Line(arm, ", ".join(objective.uses), tuple(cells)))
    arms = Grid(
        headings=(asked(study), *(["likeness"] if found.likeness else [])),
        lines=tuple(lines),
        caption=f"percent, mean and 95% interval over {over}" + (f"; {LIKENESS}" if found.likeness else ""),
        title="Arms",
        lead=("arm", "uses"),
        units=("%", "rank correlation")[: 1 + bool(found.likeness)],
    )
    contrasts = Grid(
        headings=("difference", "p (Holm)", f"p alike within {100 * study.equivalence:g}", "verdict"),
        lines=tuple(
            Line(
                *each.arms,
                tuple(map(TableCell, (_points(each.found), _p(each.corrected), _p(each.alike), each.verdict(study)))),
            )
            for each in found.compared
        ),
        caption=f"percent points, 95% interval over {over}; p corrected for {len(study.contrasts)} contrasts; alike: "
        "two one-sided tests",
        title="Contrasts",
        lead=("arm", "against"),
        units=("points", "", "", ""),
    )
    return [arms, contrasts, *(_also_grids(found, over) if found.also else ())]


def _also_grids(found: Findings, over: str) -> list[Grid]:
    """What else the arms are like, and by how much they differ in it."""
    names = tuple(found.also)
    levels = Grid(
        headings=names,
        lines=tuple(
            Line(arm, ", ".join(objective.uses), tuple(TableCell(_points(found.also[name][arm])) for name in names))
            for arm, objective in found.study.arms.items()
        ),
        caption=f"percent, mean and 95% interval over {over}",
        title="What else",
        lead=("arm", "uses"),
        units=("%",) * len(names),
    )
    lines = []
    for place, (arm, against) in enumerate(found.study.contrasts):
        cells = [found.also_compared[name][place] for name in names]
        told_apart = [TableCell(_points(each.found), each.corrected < found.study.alpha) for each in cells]
        lines.append(Line(arm, against, tuple(told_apart)))
    contrasts = Grid(
        headings=names,
        lines=tuple(lines),
        caption=f"percent points, 95% interval over {over}; bold: told from 0 at {found.study.alpha:g}, corrected "
        f"(Holm) for all {len(lines) * len(names)} of this table",
        title="What else, contrasts",
        lead=("arm", "against"),
        units=("points",) * len(names),
    )
    return [levels, contrasts]


def reading(found: Findings) -> list[str]:
    """What was found, a sentence for each contrast, the mechanism and the power."""
    lines = [_told(each, found.study) for each in found.compared]
    if found.mechanism is not None and found.study.mechanism is not None:
        lines.append(_mechanism(found.mechanism, *found.study.mechanism, found.study.alpha))
    lines += [_told_also(name, compared, found.study) for name, compared in found.also_compared.items()]
    asked = "; ".join(
        f"{100 * difference:g} point{'s' * (difference != 0.01)}: "
        + (f"{seeds:,} seeds" if seeds else "more pictures, whatever the seeds")
        for difference, seeds in found.needed.items()
    )
    level = f"{found.study.alpha:g} / {len(found.study.contrasts)}"
    lines.append(
        f"To be told from nothing four times in five, at a level of {level}, differences need, by size: {asked}. There "
        f"were {found.study.seeds} seeds and {found.pictures:,} pictures."
    )
    return lines


def _told(compared: Compared, study: Study) -> str:
    a, b = compared.arms
    seen = f"{_points(compared.found)} points, Holm's p {_p(compared.corrected)}"
    within = f"within {100 * study.equivalence:g} points"
    match compared.verdict(study):
        case "above" | "below" as side:
            return f"{a} is {side} {b}: {seen}."
        case "alike":
            return f"{a} and {b} are alike {within} (p {_p(compared.alike)}): {seen}."
        case _:
            return f"{a} and {b} are not told apart, and not shown to be alike {within} either: {seen}."


def _told_also(name: str, compared: Sequence[Compared], study: Study) -> str:
    """What is told apart in something else, an arm after the other."""
    words = {"above": "above", "below": "below", "alike": "alike with", "open": "not told from"}
    told = [f"{each.arms[0]} is {words[each.verdict(study)]} {each.arms[1]}" for each in compared]
    return f"{name}: {'; '.join(told)}."


def _mechanism(found: Interval, a: str, b: str, alpha: float) -> str:
    seen = f"{_span(found, 1, 3)} in rank correlation, p {_p(found.p)} over seeds"
    if found.p < alpha:
        how = "more" if found.mean > 0 else "less"
        return (
            f"After {a} the likeness of pictures of unseen things follows that of their captions {how} than after {b}: "
            f"{seen}."
        )
    return (
        f"No difference between {a} and {b} is seen in how the likeness of pictures of unseen things follows that of "
        f"their captions: {seen}."
    )


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.2g}"


def _points(found: Interval) -> str:
    return _span(found, 100, 1)


def _span(found: Interval, scale: float, digits: int) -> str:
    """A mean and its interval: 1.2 (0.3 to 2.1)."""
    mean, low, high = (
        f"{round(scale * each, digits) + 0.0:.{digits}f}" for each in (found.mean, found.low, found.high)
    )
    return f"{mean} ({low} to {high})"
