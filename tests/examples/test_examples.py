"""The examples run as they are: both loops learn, and the notebook reads a run to its plots."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest
import torch

from tests.kit.home import one_thread

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOK = EXAMPLES / "scores.ipynb"


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """The examples' folder is where Python looks first, as for a script; random numbers are drawn as before."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with one_thread(), torch.random.fork_rng():
        yield


@pytest.mark.parametrize("name", ["plain_loop", "lightning_loop"])
def test_a_loop_learns_and_prints_its_loss(name, capsys):
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    losses = [float(each) for each in re.findall(r"^step +\d+  loss (\d+\.\d+)$", capsys.readouterr().out, re.M)]
    assert len(losses) == 5
    assert losses[-1] < losses[0] - 0.5


def cells() -> list[dict[str, object]]:
    return [each for each in json.loads(NOTEBOOK.read_text())["cells"] if each["cell_type"] == "code"]


def test_the_notebook_is_stored_without_output():
    assert all((each["outputs"], each["execution_count"]) == ([], None) for each in cells())


def test_the_notebook_runs_from_a_home_to_its_plots(own_home, monkeypatch):
    monkeypatch.setenv("XCLR_HOME", str(own_home))
    monkeypatch.setenv("MPLBACKEND", "Agg")
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(plt.gcf()) or plt.figure())
    names: dict[str, object] = {}
    for cell in cells():
        exec(compile("".join(cell["source"]), NOTEBOOK.name, "exec"), names)
    scores, curves = shown
    assert [len(axis.patches) for axis in scores.axes] == [6]
    assert [line.get_label() for line in curves.axes[0].lines] == ["random", "clip", "xclr"]
    assert all(len(line.get_ydata()) > 2 for line in curves.axes[0].lines)
    plt.close("all")
