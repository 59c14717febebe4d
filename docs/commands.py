"""Writes docs/commands.md, what each command says of itself: `python -m docs.commands`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from flows.cli.app import app

PAGE = Path(__file__).with_name("commands.md")
WIDTH = 110  # of the help, whatever the terminal's
HEAD = """\
# Commands

What `xclr --help` and each command's `--help` say; written by `python -m docs.commands`, and a test compares it with
the command line. [operator.md](operator.md), [sweeps.md](sweeps.md), [evaluation.md](evaluation.md) and
[graph.md](graph.md) show them at work.
"""


def page() -> str:
    """The page as it should be."""
    return "\n".join([HEAD, *(f"## {name}\n\n```text\n{words}\n```\n" for name, words in helps(get_command(app)))])


def helps(command: TyperGroup | TyperCommand, above: str = "") -> Iterator[tuple[str, str]]:
    """A command and those below it, each with its help as plain text."""
    command.rich_markup_mode = None  # no boxes, no colours
    name = f"{above} {command.name}" if above else "xclr"
    context = command.make_context(name, ["--"], resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH)
    yield name, command.get_help(context)
    if isinstance(command, TyperGroup):
        for each in command.list_commands(context):
            yield from helps(command.get_command(context, each), name)


if __name__ == "__main__":
    PAGE.write_text(page())
