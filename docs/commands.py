"""Writes docs/commands.md, what each command says of itself: `python -m docs.commands`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from click import Command, Context
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


def text() -> str:
    """The page as it should be."""
    return "\n".join([HEAD, *(f"## {name}\n\n```text\n{words}\n```\n" for name, words in helps())])


def helps() -> Iterator[tuple[str, str]]:
    """The program and each of its commands, with its help as plain text."""
    yield from _helps("xclr", get_command(app), None)


def _helps(name: str, command: Command, above: Context | None) -> Iterator[tuple[str, str]]:
    command.rich_markup_mode = None  # plain text, without boxes and colours
    context = command.context_class(
        command, above, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH, **command.context_settings
    )
    yield context.command_path, command.get_help(context)
    for each in getattr(command, "commands", {}):
        yield from _helps(each, command.get_command(context, each), context)


if __name__ == "__main__":
    PAGE.write_text(text())
