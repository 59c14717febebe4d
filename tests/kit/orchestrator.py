"""An orchestrator that tests may kill: a process without Prefect that makes a training or a sweep.

python -m tests.kit.orchestrator HOME CLUSTER RECIPE_OR_SWEEP      (JSON)
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from infra.cluster import Cluster
from infra.run import Run
from tests.kit.holds import holdable
from tests.kit.runs import open_run, pretrained
from tests.kit.sweeps import make_levels, open_sweep
from xclr.errors import JobError
from xclr.recipe import Recipe
from xclr.sweep.spec import Sweep


def orchestrate(home: Path, work: Recipe | Sweep, cluster: Cluster) -> subprocess.Popen[bytes]:
    """Start one; what it says is added to HOME.log."""
    arguments = [str(home), cluster.model_dump_json(), work.model_dump_json()]
    with home.with_suffix(".log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", "tests.kit.orchestrator", *arguments], stdout=log, stderr=log)


def train(run: Run) -> None:
    """Make the training of a run, and write how that ended."""
    end = "failed"
    try:
        pretrained(run)
        end = "completed"
    finally:
        run.close(end)


def sweep(home: Path, work: Sweep, cluster: Cluster) -> None:
    """Make a sweep, and write how that ended; raises JobError when something could not be made."""
    run, swept = open_sweep(home, work, cluster)
    failures = make_levels(run, swept)
    run.close("failed" if failures else "completed")
    if failures:
        raise JobError("\n".join(map(str, failures.values())), "see the ledger")


def main(home: Path, cluster: Cluster, work: str) -> None:
    """The command line."""
    with holdable():
        if "grid" in json.loads(work):
            sweep(home, Sweep.model_validate_json(work), cluster)
        else:
            train(open_run(home, recipe=Recipe.model_validate_json(work), cluster=cluster))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Cluster.model_validate_json(sys.argv[2]), sys.argv[3])
