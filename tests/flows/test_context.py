"""Where a run is: HOME, STATE, and a home for who has none."""

from __future__ import annotations

import io
import os
import pwd

import pytest
from rich.console import Console

from flows.cli.status import _status_text
from flows.context import give_home, recording_failure
from infra.home.runs import read_runs, shown_state
from infra.home.status import view
from tests.kit.recipes import TINY
from tests.kit.sweeps import small
from xclr.errors import DataError
from xclr.recipe import Recipe


def test_who_has_no_home_has_state(tmp_path, monkeypatch):
    def unknown(user: int) -> None:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv("HOME", "/there")
    give_home(tmp_path)
    assert os.environ["HOME"] == "/there"
    monkeypatch.delenv("HOME")
    give_home(tmp_path)
    assert os.environ["HOME"] == str(tmp_path)


@pytest.mark.parametrize("sweep", [None, small()], ids=["a recipe", "a sweep"])
def test_a_run_that_ends_before_its_stages_are_known_leaves_its_reason_and_what_runs_it_again(sweep, tmp_path):
    (tmp_path / "mine.yaml").write_text("")
    recipe, cluster, home = Recipe.model_validate(TINY), str(tmp_path / "mine.yaml"), tmp_path / "home"
    error = DataError("[t].tsv cannot be fetched:\nnobody", "download it")
    with pytest.raises(DataError) as caught, recording_failure(recipe, sweep, cluster, str(home)):
        raise error
    assert caught.value is error
    (record,) = read_runs(home)
    assert (shown_state(record), record.recipe, record.sweep, record.cluster) == ("failed", recipe, sweep, cluster)
    shown = Console(file=io.StringIO(), width=200, record=True)
    shown.print(_status_text(home, view(home)))
    text = shown.export_text()
    assert f"failed: {record.run}: [t].tsv cannot be fetched: -> download it" in text
    assert "of 0 cells" not in text
    with recording_failure(recipe, sweep, cluster, str(home)):
        pass
    assert read_runs(home) == [record]
