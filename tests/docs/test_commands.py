"""docs/commands.md is what the command line says of itself."""

from __future__ import annotations

from docs.commands import PAGE, page


def test_the_page_is_what_the_commands_say():
    assert PAGE.read_text() == page(), "python -m docs.commands writes it anew"


def test_the_page_is_the_same_whatever_the_terminal(monkeypatch):
    for name, value in {"COLUMNS": "40", "TERMINAL_WIDTH": "40", "FORCE_COLOR": "1", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    assert PAGE.read_text() == page()
