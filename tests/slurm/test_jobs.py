"""Jobs of a real cluster: what they get, what they leave, and what is in their files."""

from __future__ import annotations

from pathlib import Path

from infra.ledger import JobState
from tests.infra.conftest import open_run
from tests.infra.test_stage import pretrained
from tests.slurm.conftest import on_slurm, recipe, slurm
from xclr.spool import SPOOL, read_spool


def test_a_training_runs_as_a_job_whose_traces_lie_beside_its_artifact(cluster, home, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "hush-hush-4711")
    run = open_run(home, recipe=recipe(epochs=2), cluster=on_slurm())
    artifact = pretrained(run)
    entry = run.book.latest(artifact.digest)
    assert entry.state is JobState.COMPLETED and entry.job.startswith("slurm/")
    assert run.store.manifest(artifact).jobs == (entry.job,)
    log = Path(entry.log)
    assert log.is_relative_to(artifact.path / "jobs")
    assert len(list(log.parent.glob("*_log.out"))) == 2
    for path in (*log.parent.iterdir(), *(cluster.root / "state").rglob("*")):
        assert path.is_dir() or b"hush-hush" not in path.read_bytes(), path
    pickle = (log.parent / "job.pkl").read_bytes()
    assert len(pickle) < 10_000 and b"PATH" not in pickle
    shown = slurm("scontrol", "show", "job", entry.job.removeprefix("slurm/"))
    assert f"JobName={entry.name}" in shown
    assert "TresPerNode=gres:gpu:2" in shown and "NumTasks=2" in shown
    assert f"Comment=xclr run={run.id} stage={entry.stage} digest={artifact.digest}" in shown
    assert [each.step for each in read_spool(artifact.path / SPOOL)]
