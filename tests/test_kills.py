"""A stage that is killed at any system call that changes a file: never believed half-written, made whole the next time.

strace counts the calls and sends SIGKILL; a part of `make soak`.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.recipes import TINY
from xclr.pipeline import pipeline
from xclr.recipe import Recipe
from xclr.store import Store

CALLS = ("write", "rename", "fsync", "mkdir", "unlink", "unlinkat", "rmdir", "flock", "fcntl")
EVERY = 5
STAGES = ("captions", "images")
MEASURED = {"manifest.json", "result.json", "progress.json"}  # with times and costs
MAKE = """
import sys
from pathlib import Path
from infra.ledger import Book
from infra.stage import commit
from tests.kit.recipes import TINY
from xclr.job import run_stage
from xclr.pipeline import pipeline
from xclr.recipe import Recipe
from xclr.store import Store

store = Store(Path(sys.argv[1]))
store.check_writable()
for stage in pipeline(Recipe.model_validate(TINY), store):
    if stage.kind.name in sys.argv[2:] and store.find(stage.digest) is None:
        out = store.begin(stage.digest)
        run_stage(stage, out)
        commit(store, Book(store.home), stage, out)
"""
pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(4 * 3600),
    pytest.mark.skipif(
        shutil.which("strace") is None, reason="strace is not installed (Debian: apt-get install strace)"
    ),
]


def make(home: Path, *kinds: str, at: tuple[str, int] | None = None) -> int:
    """The exit status of a process that makes these stages, killed at a call of that name and number."""
    tracing = []
    if at is not None:
        name, number = at
        tracing = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}"]
        tracing += ["-e", f"inject={name}:signal=KILL:when={number}"]
    done = subprocess.run([*tracing, sys.executable, "-c", MAKE, str(home), *kinds], capture_output=True, text=True)
    assert done.returncode in (0, -signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
    return done.returncode


def contents(home: Path) -> dict[str, bytes]:
    """What the artifacts of a HOME hold, but for when and at which cost they were made."""
    return {
        str(path.relative_to(home)): path.read_bytes()
        for path in sorted((home / "artifacts").rglob("*"))
        if path.is_file() and path.name not in MEASURED and not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A HOME in which nothing was killed."""
    home = tmp_path_factory.mktemp("whole") / "home"
    assert make(home, *STAGES) == 0
    return home


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("call", CALLS)
def test_a_stage_killed_at_every_fifth_call_is_made_whole_the_next_time(call, kind, whole, tmp_path):
    kills, number, ended = 0, 1, False
    while not ended:
        home = tmp_path / f"{number}"
        if kind != STAGES[0]:
            assert make(home, STAGES[0]) == 0
        ended = make(home, kind, at=(call, number)) == 0
        store = Store(home)
        for stage in pipeline(Recipe.model_validate(TINY), store):
            if (found := store.find(stage.digest)) is not None:
                store.verify(found)
        assert make(home, *STAGES) == 0
        assert contents(home) == contents(whole)
        shutil.rmtree(home)
        kills, number = kills + (not ended), number + EVERY
    print(f"{kind}: {kills} kills at {call}")
