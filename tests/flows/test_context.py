"""Where a run is: HOME, STATE, and a home for who has none."""

from __future__ import annotations

import os
import pwd

from flows.context import give_home


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
