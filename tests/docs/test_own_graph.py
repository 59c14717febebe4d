"""docs/own-graph.md does what it says: its scripts print what stands there, and its recipe's graphs are made."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.kit.finished import begin
from tests.kit.stages import commit
from xclr.graph.own import run
from xclr.graph.stages import OWN_GRAPH
from xclr.pipeline import pipeline
from xclr.recipe import graph_name, load_recipe
from xclr.store import Store
from xclr.training.stages import objectives

pytestmark = pytest.mark.slow
PAGE = (Path(__file__).parents[2] / "docs" / "own-graph.md").read_text()
BLOCKS = re.findall(r"^```(\w+) ?(\S*)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_pages_scripts_make_the_graphs_of_its_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _, name, text in BLOCKS:
        if name:
            Path(name).write_text(text)
    printed = []
    for language, _, text in BLOCKS:
        if language == "bash" and text == "xclr run emoji --set data.limit=1000 --until captions\n":
            begin(Path(".xclr"), load_recipe("emoji", ["data.limit=1000"]), "captions")
        elif language == "bash" and text.startswith("python "):
            runpy.run_path(text.split()[1])
            printed.append(capsys.readouterr().out)
    store = Store(Path(".xclr"))
    recipe = load_recipe("own-graph.yaml")
    made = [commit(store, stage, run) for stage in pipeline(recipe, store).of(OWN_GRAPH)]
    printed += [f"{line}\n" for each in made for line in OWN_GRAPH.tell(store.manifest(each))]
    assert printed == [text for language, _, text in BLOCKS if language == "text"]
    assert len(made) == 3
    named = [graph_name(each, "emoji") for each in objectives(recipe)]
    assert [line.split(" | ")[1] for line in PAGE.splitlines() if line.startswith(("| random", "| xclr"))] == named
