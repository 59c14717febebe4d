"""The table of the family: means, intervals, and what stands after all differences are counted."""

import pytest

from docs.family import COLUMNS, interval, scores_of, shortened, stand, told


def cells(method, points):
    """Cells of a method by seed, whose scores are all the same number, but those of the gap."""
    return [
        {"method": method, "seed": seed, "scores": {f"factors/{key}": each for key in COLUMNS.values()}}
        for seed, each in enumerate(points)
    ]


def test_a_table_has_means_intervals_and_in_bold_what_stands():
    made = (
        cells("xclr", (0.4, 0.5, 0.45)) + cells("far queue=9", (0.701, 0.8, 0.7505)) + cells("near", (0.41, 0.48, 0.46))
    )
    scores = scores_of([*made, {"method": "failed", "seed": 0, "scores": {}}])
    marks = stand(scores)
    assert marks == {("far", column) for column in COLUMNS}
    assert told("far", "kind", scores["far"], marks) == "**75.0 ± 12.3**"
    assert told("near", "kind", scores["near"], marks) == "45.0 ± 9.0"


def test_an_interval_is_students():
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.303 / 3**0.5, rel=1e-3)


def test_settings_of_scale_are_no_names():
    assert shortened("mochi momentum=0.99 queue=4096 hardest=256 mixed=256 mixed_with_query=32") == "mochi"
    assert shortened("xclr mix=0.5") == "xclr mix=0.5" and shortened("clip local=1.0") == "clip local=1"
