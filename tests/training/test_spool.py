"""The spool: whole lines only, and nothing twice."""

import json
import time

import pytest

from xclr.training.spool import SPOOL, Point, Spool, read_spool


def steps(path):
    return [point.step for point in read_spool(path)]


@pytest.fixture
def path(tmp_path):
    """Steps 1 to 5."""
    spool = Spool(tmp_path / SPOOL, after=0)
    for step in range(1, 6):
        spool(step, {"train/loss": step / 10})
    return spool.path


def test_metrics_come_back_as_they_were_said(path):
    points = list(read_spool(path))
    assert [point.metrics for point in points] == [{"train/loss": step / 10} for step in range(1, 6)]
    assert [point.step for point in points] == [1, 2, 3, 4, 5]


def test_times_are_milliseconds_since_the_epoch_and_never_fall(path):
    times = [point.time_ms for point in read_spool(path)]
    assert times == sorted(times)
    assert abs(times[-1] - time.time() * 1000) < 600_000


def test_there_is_one_json_object_a_line(path):
    lines = path.read_text().splitlines()
    assert [Point(**json.loads(line)) for line in lines] == list(read_spool(path))


def test_a_new_spool_exists_and_is_empty(tmp_path):
    Spool(tmp_path / "run" / SPOOL, after=0)
    assert (tmp_path / "run" / SPOOL).read_text() == ""


def test_no_file_is_no_entries(tmp_path):
    assert list(read_spool(tmp_path / SPOOL)) == []


@pytest.mark.parametrize("left", [1, 20, -2, -1], ids=["one character", "half", "without brace", "without line end"])
def test_a_cut_last_line_is_left_out(path, left):
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:4]) + lines[4][:left])
    assert steps(path) == [1, 2, 3, 4]


def test_a_cut_line_is_gone_after_resuming(path):
    path.write_text(path.read_text()[:-10])
    Spool(path, after=4)(5, {"train/loss": 0.7})
    points = list(read_spool(path))
    assert [point.step for point in points] == [1, 2, 3, 4, 5]
    assert points[-1].metrics == {"train/loss": 0.7}


@pytest.mark.parametrize("after", [0, 1, 3, 5, 9])
def test_resuming_keeps_what_was_said_up_to_the_checkpoint(path, after):
    before = list(read_spool(path))
    Spool(path, after=after)
    assert list(read_spool(path)) == before[:after]


def test_nothing_is_said_twice_over_many_resumptions(path):
    for after in (3, 2, 2, 4):
        spool = Spool(path, after=after)
        for step in range(after + 1, after + 4):
            spool(step, {"train/loss": 0.0})
    assert steps(path) == [1, 2, 3, 4, 5, 6, 7]


def test_only_the_spool_is_left_in_its_folder(path):
    Spool(path, after=2)
    assert [each.name for each in path.parent.iterdir()] == [SPOOL]
