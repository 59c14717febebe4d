"""Files that others could have written are refused, and those that jobs are made of they cannot write."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from infra.executors.snapshot import PACKAGES
from infra.resources import Resources
from infra.slurm.submit import Order, _write_pickle, executor_for
from infra.stagejob import StageJob
from tests.kit.users import NOBODY
from xclr.errors import StoreError
from xclr.ownership import check_own, guarded
from xclr.training import checkpoint


@pytest.fixture(name="loose")
def _loose():
    """A user whose files are his group's too."""
    before = os.umask(0o002)
    yield
    os.umask(before)


def given(path, mode=0o644, uid=None, gid=None):
    path.touch()
    path.chmod(mode)
    if uid is not None or gid is not None:
        if os.geteuid():
            pytest.skip("only root gives files away")
        os.chown(path, -1 if uid is None else uid, -1 if gid is None else gid)
    return path


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "reason"),
    [
        (0o644, NOBODY, None, "belongs to"),
        (0o666, None, None, "by everybody"),
        (0o664, None, NOBODY, "by the group"),
    ],
)
def test_what_others_could_have_written_is_refused_with_the_reason(mode, uid, gid, reason, tmp_path):
    path = given(tmp_path / "file", mode, uid, gid)
    with pytest.raises(StoreError, match=reason) as caught:
        check_own(path)
    assert str(path) in caught.value.remedy


def test_what_is_ones_own_is_taken(tmp_path):
    check_own(given(tmp_path / "file"))


def test_a_checkpoint_is_its_owners_alone_and_another_is_not_gone_on_from(loose, tmp_path):
    saved = checkpoint.save(tmp_path, 3, {}, loss=1.0)
    assert saved.path.stat().st_mode & 0o022 == 0 and checkpoint.load(saved) == {"step": 3}
    saved.path.chmod(0o666)
    with pytest.raises(StoreError, match="may have been written by everybody"):
        checkpoint.load(saved)


def test_files_are_guarded_as_long_as_any_thread_wants_that(loose, tmp_path):
    inside, leave = threading.Event(), threading.Event()

    def other():
        with guarded():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with guarded():
        thread.start()
        assert inside.wait(60)
    (tmp_path / "guarded").touch()
    leave.set()
    thread.join()
    (tmp_path / "loose").touch()
    assert [(tmp_path / name).stat().st_mode & 0o022 for name in ("guarded", "loose")] == [0, 0o020]


def test_a_job_of_slurm_runs_nothing_that_others_could_have_written(loose, tmp_path):
    code = tmp_path / "code"
    with guarded():
        for name in PACKAGES:
            (code / name).mkdir(parents=True)
        order = Order((StageJob(tmp_path, tmp_path, 1),), tmp_path / "jobs", "x", "c", code, 0, tmp_path)
        executor = executor_for(order, Resources(executor="slurm"))
        pickle = order.folder / "job.pkl"
        _write_pickle(executor, pickle, Resources(executor="slurm"))
    assert all(path.stat().st_mode & 0o022 == 0 for path in (order.folder, pickle))
    setup = executor._make_submission_file_text(f"{sys.executable} -c 'print(7)'", "x").replace("\nsrun ", "\n: ")
    script = tmp_path / "script.sh"
    script.write_text(setup + "\necho began\n")

    def run():
        return subprocess.run(
            ["bash", str(script)], capture_output=True, text=True, env=os.environ | {"SLURM_JOB_ID": "5"}
        )

    assert "began" in run().stdout
    for path in (pickle, code / "infra"):
        mode = path.stat().st_mode
        path.chmod(mode | 0o020)
        done = run()
        assert done.returncode == 1 and f"{path} belongs to another user" in done.stderr and "began" not in done.stdout
        path.chmod(mode)
