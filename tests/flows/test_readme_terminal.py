"""The README's commands in a terminal of 80 columns: they answer soon, ask nothing, fit, and end well."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from infra.home.runs import read_runs
from tests.kit.terminal import Shown, in_terminal

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SOON_S = 5.0  # computed, not waited: imports of Prefect and torch take more; alone each answers within 2 s
FOUND = "objective.target_temperature=0.1"  # what it is anyway: nothing is made
HERE = {  # of the README's commands, what is run here in its place, and when Ctrl-C ends it
    "xclr serve": ("xclr serve", "Ctrl-C stops both."),  # beside one that is up, whose servers it shows
    "xclr plan emoji": ("xclr plan emoji", None),
    "xclr run emoji --set objective.target_temperature=0.2": (f"xclr run smoke --set {FOUND}", None),
    "xclr compare --against clip": ("xclr compare --against clip", None),
    'xclr graph neighbours "a red apple"': ('xclr graph neighbours "a red apple"', None),
    "xclr lineage eval/imagenet/val_top1": ("xclr lineage eval/imagenet/val_top1", None),
    "xclr export emoji --method xclr": ("xclr export smoke --method xclr --force", None),
    "xclr doctor --cluster my.yaml": ("xclr doctor --cluster local", None),
    "xclr status --watch": ("xclr status --watch", "smoke-"),
    "xclr sweep temperature": ("xclr sweep temperature --plan", None),  # eighteen trainings
}
ELSEWHERE = {  # where the nearest of the others are run, in a terminal as well
    "make demo": "tests/test_makefile.py",  # installs 7 GB
    "source .venv/bin/activate": "tests/test_makefile.py",  # the shell's own
    "xclr doctor": "tests/infra/doctor/test_machine.py",
    "xclr run cc12m --cluster my.yaml": "tests/slurm/test_mission.py",
    "xclr retry cc12m": "tests/slurm/test_operator.py",
    "prefect work-pool create xclr --type process": "tests/kit/worker.py",
    "prefect deploy --all": "tests/kit/worker.py",
    "prefect worker start --pool xclr": "tests/kit/worker.py",  # to no terminal: it stays
    "prefect deployment run xclr-full/emoji --watch --param 'overrides=[\"objective.target_temperature=0.2\"]'": (
        "tests/flows/test_deployments.py"
    ),
}


def typed() -> set[str]:
    """The commands of the README's blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return {re.sub(r"\s+#.*", "", line).strip() for block in blocks for line in block.splitlines()} - {""}


def test_every_command_of_the_readme_is_run_in_a_terminal():
    assert typed() == HERE.keys() | ELSEWHERE.keys()
    assert all((ROOT / path).exists() for path in ELSEWHERE.values())


@pytest.fixture(scope="module")
def shown(served, tmp_path_factory) -> dict[str, Shown]:
    """What each showed, beside servers that are up."""
    folder, there = tmp_path_factory.mktemp("terminal"), {"XCLR_HOME": str(served.home), "PYTHONPATH": str(ROOT)}

    def show(command: str, until: str | None) -> Shown:
        program = [sys.executable, "-m", *shlex.split(command)]
        return in_terminal(program, cwd=folder, environment=os.environ | there, until=until)

    return {asked: show(*instead) for asked, instead in HERE.items()}


@pytest.mark.parametrize("command", HERE)
def test_it_answers_soon_fits_and_ends_well(shown, command):
    done = shown[command]
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    assert done.first_s < SOON_S, "nothing was shown for long"
    assert done.wide == []


def test_a_run_that_finds_all_says_so_in_one_line_and_shows_its_own_scores(shown, served):
    (done,) = [each for asked, each in shown.items() if asked.startswith("xclr run")]
    own = [each for each in read_runs(served.home) if each.recipe.name == "smoke"][-1]
    assert [line for line in done.lines if re.search(r"\d stages found$", line)] == ["38 of 38 stages found"]
    assert not any(line.endswith(" hit") for line in done.lines)
    assert f"compare-{own.run}.html" in done.lines[-1]
    for line in (f"mlflow      {served.mlflow}/#/experiments/", f"prefect     {served.prefect}/"):
        assert line in done.stdout, "it uses the servers that are up"


def test_tables_are_shown_as_they_are_asked_for(shown):
    distances = " ".join(shown["xclr compare --against clip"].stdout.split())
    assert "distance to clip of the same seed" in distances
    assert "│ xclr" in distances and "│ clip" not in distances
    near = [line for line in shown['xclr graph neighbours "a red apple"'].lines if line.startswith("│")]
    assert len(near) == 10 and "red" in near[0]
