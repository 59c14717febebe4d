"""How far stages are: of one process, and of the elements of an array together."""

import json
import os
import time

import pytest

from infra.progress import SILENT_S, Advance, Board, ago, read_progress
from xclr.job import PROGRESS, ProgressFile
from xclr.shards import SHARDS


def test_a_stage_tells_how_far_it_is_what_came_of_it_and_how_fast(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("xclr.job.time.monotonic", lambda: clock[0])
    told = ProgressFile(tmp_path / PROGRESS)
    told(40, 200, 30)  # a run that goes on with what was there
    clock[0] += 10
    told(100, 200, 75)
    seen = read_progress(tmp_path)
    assert seen == Advance(100, 200, 75, 6.0)
    assert seen.eta_s == pytest.approx(100 / 6, abs=0.1)
    assert str(seen) == "100 of 200, 75% ok, 6/s, 17 s left"


def test_elements_of_an_array_are_added_up(tmp_path):
    folder = tmp_path / SHARDS
    folder.mkdir()
    assert read_progress(tmp_path) is None
    for shard, (done, ok, per_s) in enumerate([(20, 15, 9.0), (5, 4, 2.0), (7, 7, 3.0)]):
        seen = {"done": done, "total": 20, "ok": ok, "per_s": per_s, "whole": 100}
        (folder / f"{shard:05d}.{PROGRESS}").write_text(json.dumps(seen))
    silent = time.time() - SILENT_S - 1
    os.utime(folder / f"00002.{PROGRESS}", (silent, silent))
    assert read_progress(tmp_path) == Advance(32, 100, 26, 2.0), "what ended or is silent adds nothing to the rate"


def test_what_was_there_is_told_in_one_line_and_logged_stage_by_stage(capsys):
    logged: list[str] = []
    with Board(3, log=logged.append) as board:
        board.found("captions")
        board.finished("images", "1.0 s")
        board.found("graph")
    assert capsys.readouterr().err.splitlines() == ["  2/3 images 1.0 s", "2 of 3 stages found"]
    assert logged == ["  1/3 captions hit", "  2/3 images 1.0 s", "  3/3 graph hit", "2 of 3 stages found"]


def test_a_stage_that_says_little_is_shown_as_it_says():
    assert str(Advance(3, 8)) == "3 of 8"
    assert Advance(3, 8).eta_s is None
    assert str(Advance(8, 8, 8, 2.0)) == "8 of 8, 100% ok"
    assert [ago(each) for each in (42, 200, 4800, 200_000)] == ["42 s", "3 min", "1 h 20 min", "2 d"]


def test_a_line_may_quote_anything(capsys):
    logged: list[str] = []
    with Board(1, log=logged.append) as board:
        board.say("first t.tar: [/x] [red]\x1b[2J")
        board.finished("reference timm [/x]", "1.0 s")
        with board.counting("[/x]", 1):
            pass
    assert logged == ["first t.tar: [/x] [red]\\x1b[2J", "  1/1 reference timm [/x] 1.0 s"]
    assert "\x1b" not in capsys.readouterr().err
