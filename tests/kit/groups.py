"""Which tests run in one process: those that share what is dear to start.

xdist's own `--dist loadgroup` writes its groups into the names of tests, which pytest 9.2 no longer lets it
(pytest-xdist issue 1386); so the name of a test's file has to tell.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

GROUPS = {  # the longest first
    "tests/flows/": "the smoke run and its servers",
    "tests/browser/": "the smoke run and its servers",
    "tests/slurm/test_mission.py": "a Slurm cluster with accounting",
    "tests/slurm/test_operator.py": "a Slurm cluster with accounting",
    "tests/slurm/test_survival.py": "a Slurm cluster whose nodes are lost",
    "tests/slurm/test_jobs.py": "a Slurm cluster whose nodes are lost",
    "tests/slurm/": "a Slurm cluster",
    "tests/docs/": "a page that is followed",
    "tests/ddp/": "ranks",
    "tests/training/test_survival.py": "ranks",
    "tests/evaluation/test_finetune.py": "ranks",
}


def group_of(name: str) -> str:
    """The group of a test by its name; most files are one each."""
    return next((group for path, group in GROUPS.items() if name.startswith(path)), name.partition("::")[0])


def rank_of(name: str) -> int:
    """Groups in the order in which they begin."""
    groups = list(dict.fromkeys(GROUPS.values()))
    return groups.index(group) if (group := group_of(name)) in groups else len(groups)


class Groups(LoadScopeScheduling):
    """Gives a process one group after the other."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)
