"""README and docs name what is there: sources, files, headings, commands, options, targets of make."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import xclr

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*).*?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)")
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
HELP = dict(re.findall(r"^## ([^\n]+)\n\n```text\n(.*?)^```$", (ROOT / "docs/commands.md").read_text(), re.M | re.S))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """Headings as links name them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def typed(page: Path) -> Iterator[list[str]]:
    """The words of each command that a page shows, in a block or in a line of text."""
    text = page.read_text()
    for language, block in BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        if language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        if language in {"bash", "console"}:
            yield from (shlex.split(part, comments=True) for line in lines for part in re.split("&&|; ", line))
    yield from (shlex.split(span) for span in re.findall(r"`((?:xclr|make) [^`\n]+)`", BLOCK.sub("", text)))


def command_of(words: list[str]) -> str:
    """The longest command that words begin with: xclr graph show."""
    return next((name for end in (3, 2) if (name := " ".join(words[:end])) in HELP), "")


def test_the_readme_quotes_the_pipeline_and_fits_two_screens():
    (quote,) = [block for language, block in BLOCK.findall(README.read_text()) if language == "python"]
    assert quote.startswith("def _pipeline(")
    assert f"\n\n{quote}\n" in (ROOT / "xclr" / "pipeline.py").read_text()
    assert len(README.read_text().splitlines()) <= 160


def test_the_citation_is_of_this_version_and_of_the_paper():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what the format asks for
    assert (cited["version"], cited["license"]) == (xclr.__version__, "Apache-2.0")
    (paper,) = cited["references"]
    assert paper["url"] in README.read_text() and len(paper["authors"]) == 8


@every_page
def test_links_lead_somewhere(page):
    for path, anchor in LINK.findall(BLOCK.sub("", page.read_text())):
        there = page.parent / path if path else page
        assert there.exists(), f"{path} is not there"
        assert not anchor or anchor in anchors(there), f"{path} has no heading #{anchor}"


@every_page
def test_commands_options_and_targets_exist(page):
    for words in filter(None, typed(page)):
        if words[0] == "make":
            assert TARGETS.issuperset(word for word in words[1:] if "=" not in word), words
        elif words[0] == "xclr" and words[1:2] != ["--help"] and not words[1].startswith("("):  # a network's name
            assert (name := command_of(words)), f"there is no {' '.join(words)}"
            options = {word.partition("=")[0] for word in words if re.fullmatch(r"--[a-z].*", word)}
            assert options <= set(re.findall(r"--[a-z-]+", HELP[name])), words


def test_pages_that_messages_name_exist():
    sources = [path for folder in ("flows", "tasks", "infra", "xclr") for path in (ROOT / folder).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r"docs/[\w-]+\.md", path.read_text())}
    assert named
    assert {ROOT / name for name in named} <= set(PAGES)


def test_every_picture_is_shown():
    shown = {path for page in PAGES for path, _ in LINK.findall(page.read_text())}
    assert {path.name for path in (ROOT / "docs/images").iterdir()} <= {Path(path).name for path in shown}
